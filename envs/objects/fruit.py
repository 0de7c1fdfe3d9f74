"""Apples and oranges: SIMPLER's own, and the light toys that its move-near tasks use."""

import mujoco
import numpy as np

from envs.object_model import ObjectModel, RoundGrasp, add_solid, add_visual
from envs.objects._lying import FLAT
from envs.objects._shapes import Revolved
from envs.scene import HIDDEN
from envs.textures import Image, add_material, painted, shaded, speckle

_FRUIT, _TOY = 800.0, 200.0  # [kg/m^3]
_APPLE_RADIUS, _ORANGE_RADIUS = 0.040, 0.035  # [m]
_APPLE = Revolved(
    "apple",
    (
        (0.0, -0.034),
        (0.010, -0.0385),
        (0.018, -0.0385),
        (0.028, -0.030),
        (0.036, -0.015),
        (0.040, 0.004),
        (0.037, 0.020),
        (0.028, 0.031),
        (0.018, 0.0345),
        (0.009, 0.031),
        (0.0, 0.023),
    ),
)
_TURNS = np.linspace(-np.pi / 2, np.pi / 2, 11)
_ORANGE = Revolved(
    "orange",
    tuple((_ORANGE_RADIUS * float(np.cos(turn)) * (abs(turn) < 1.57), 0.034 * float(np.sin(turn))) for turn in _TURNS),
)


def _apple_skin() -> Image:
    """Red with yellow streaks that gather in the dimple."""
    angle, radius, z = _APPLE.pixels(64, 128)
    streaks = 0.5 + 0.5 * np.sin(11 * angle + 2 * np.sin(5 * angle)) * np.sin(23 * angle + 1.0)
    yellow = np.clip(streaks * (0.15 + 12 * (z - 0.012)), 0, 1) * (radius > 0.004)
    red, gold = np.array([186.0, 18.0, 24.0]), np.array([226.0, 150.0, 60.0])
    skin = red + yellow[..., None] * (gold - red)
    dimple = (radius < 0.009) & (z > 0)
    return painted(skin.astype(np.uint8), [(dimple, (120, 110, 40))])


def _orange_peel() -> Image:
    """Orange with fine pores and a green-brown star where the stalk was."""
    angle, radius, z = _ORANGE.pixels(64, 128)
    star = (z > 0) & (radius < 0.005 + 0.002 * np.cos(5 * angle))
    return painted(shaded((242, 128, 16), speckle(*z.shape, contrast=0.07)), [(star, (92, 104, 36))])


def _add_apple(scene: mujoco.MjSpec, body: mujoco.MjsBody, density: float) -> None:
    sphere, capsule = mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE
    add_solid(body, density=density, type=sphere, size=[_APPLE_RADIUS, 0, 0], group=HIDDEN, rolls=True)
    skin = add_material(scene, "apple", _apple_skin(), specular=0.4, shininess=0.5)
    _APPLE.add_to(scene, body, material=skin)
    add_visual(body, type=capsule, fromto=[0, 0, 0.024, 0.003, 0, 0.040], size=[0.0018, 0, 0], rgba=[0.3, 0.2, 0.1, 1])


def _add_orange(scene: mujoco.MjSpec, body: mujoco.MjsBody, density: float) -> None:
    sphere = mujoco.mjtGeom.mjGEOM_SPHERE
    add_solid(body, density=density, type=sphere, size=[_ORANGE_RADIUS, 0, 0], group=HIDDEN, rolls=True)
    _ORANGE.add_to(scene, body, material=add_material(scene, "orange", _orange_peel(), specular=0.3, shininess=0.3))


def _apple(name: str, density: float) -> ObjectModel:
    return ObjectModel(
        name=name,
        words="apple",
        size=(0.08, 0.08, 0.08),
        build=lambda scene, body: _add_apple(scene, body, density),
        grasp=RoundGrasp(width=2 * _APPLE_RADIUS),
        lying=FLAT,
    )


def _orange(name: str, density: float) -> ObjectModel:
    return ObjectModel(
        name=name,
        words="orange",
        size=(0.07, 0.07, 0.068),
        build=lambda scene, body: _add_orange(scene, body, density),
        grasp=RoundGrasp(width=2 * _ORANGE_RADIUS),
        lying=FLAT,
    )


# Sizes and densities: ManiSkill2_real2sim `data/custom/info_pick_custom_v0.json`, toys: `move_near_in_scene.py`.
APPLE, TOY_APPLE = _apple("apple", _FRUIT), _apple("toy_apple", _TOY)
ORANGE, TOY_ORANGE = _orange("orange", _FRUIT), _orange("toy_orange", _TOY)
