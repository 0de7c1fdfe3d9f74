"""Changes that several variants make to a finished scene."""

import mujoco
import numpy as np

from envs.textures import Image, add_material

_GAMMA = 2.2  # MuJoCo adds up light as it is seen, SIMPLER's renderer as it is
_TO_CAMERA = 0.10488  # [m] from the axis about which SIMPLER tilts the head to its camera


def repaint(spec: mujoco.MjSpec, name: str, image: Image, repeat: tuple[float, float] = (1, 1)) -> None:
    """Show an image (height, width, 3) on a material, if the scene has it."""
    material = spec.material(name)
    if material is not None:
        picture = add_material(spec, f"{name}_of_variant", image)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = picture
        material.texrepeat = list(repeat)
        material.rgba = [1, 1, 1, 1]


def recolour(spec: mujoco.MjSpec, name: str, colour: tuple[int, int, int]) -> None:
    """Give a material a colour, 0..255, if the scene has it."""
    material = spec.material(name)
    if material is not None:
        material.rgba = [*(channel / 255 for channel in colour), 1]


def scale_light(spec: mujoco.MjSpec, lamps: float, fill: float) -> None:
    """Make every lamp, and the light that comes from the camera, brighter by factors of SIMPLER's linear light."""
    seen_lamps, seen_fill = lamps ** (1 / _GAMMA), fill ** (1 / _GAMMA)
    for light in spec.lights:
        light.diffuse = np.array(light.diffuse) * seen_lamps
        light.specular = np.array(light.specular) * seen_lamps
    spec.visual.headlight.diffuse = np.array(spec.visual.headlight.diffuse) * seen_fill


def tilt_cameras(spec: mujoco.MjSpec, angle: float) -> None:
    """Turn every camera downwards [rad] about the level axis behind it on which the Google robot's head tilts."""
    turned = np.array([np.cos(angle / 2), -np.sin(angle / 2), 0.0, 0.0])
    for camera in spec.cameras:
        before = np.array(camera.quat)
        after = np.empty(4)
        mujoco.mju_mulQuat(after, before, turned)
        camera.quat = after
        camera.pos = np.array(camera.pos) + _TO_CAMERA * (_forward(after) - _forward(before))


def _forward(quaternion: np.ndarray) -> np.ndarray:
    direction = np.empty(3)
    mujoco.mju_rotVecQuat(direction, np.array([0.0, 0.0, -1.0]), quaternion)
    return direction
