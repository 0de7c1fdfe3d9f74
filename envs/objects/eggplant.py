"""An eggplant (a toy), lying on its side, thick end towards x."""

import mujoco
import numpy as np

from envs.object_model import ObjectModel, RoundGrasp, add_solid, add_visual
from envs.objects._lying import FLAT
from envs.objects._shapes import ALONG_X, Revolved
from envs.scene import HIDDEN
from envs.textures import Image, add_material, shaded

_DENSITY = 400.0  # [kg/m^3]
_RADIUS = 0.0187  # [m]
_PROFILE = (
    (0.0, -0.032),
    (0.008, -0.031),
    (0.0115, -0.022),
    (0.0125, -0.010),
    (0.0155, 0.003),
    (_RADIUS, 0.018),
    (0.0172, 0.028),
    (0.0115, 0.0355),
    (0.006, 0.0385),
    (0.0, 0.03915),
)
_BODY = Revolved("eggplant", _PROFILE, shifts=tuple(_RADIUS - max(radius, 0.012) for radius, _ in _PROFILE))


def _skin() -> Image:
    """Deep purple, paler where light would glance off."""
    angle, _, _ = _BODY.pixels(32, 64)
    return shaded((74, 30, 92), 1.0 + 0.25 * np.cos(3 * angle))


def _build(scene: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    box, ellipsoid, capsule = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID, mujoco.mjtGeom.mjGEOM_CAPSULE
    # Boxes carry the contacts so that it neither rolls nor rocks.
    solid = {"density": _DENSITY, "type": box, "group": HIDDEN}
    add_solid(body, pos=[0.016, 0, 0], size=[0.0155, _RADIUS, 0.019], **solid)
    add_solid(body, pos=[-0.0155, 0, -0.0085], size=[0.016, 0.0105, 0.0105], **solid)
    _BODY.add_to(
        scene, body, quat=ALONG_X, material=add_material(scene, "eggplant", _skin(), specular=0.8, shininess=0.7)
    )
    green = [0.24, 0.44, 0.14, 1]
    add_visual(body, type=ellipsoid, pos=[-0.0285, 0, -0.006], size=[0.006, 0.012, 0.012], rgba=green)
    add_visual(body, type=capsule, fromto=[-0.031, 0, -0.006, -0.0365, 0, -0.003], size=[0.0026, 0, 0], rgba=green)


# Size and density: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`.
EGGPLANT = ObjectModel(
    name="eggplant",
    words="eggplant",
    size=(0.0783, 0.0374, 0.038),
    build=_build,
    grasp=RoundGrasp(width=2 * _RADIUS, axis=(1, 0, 0), along=0.014),
    lying=FLAT,
)
