"""A blue plastic bottle with a neck and a cap."""

import mujoco
import numpy as np

from envs.object_model import ObjectModel, RoundGrasp, add_solid
from envs.objects._lying import STANDING
from envs.objects._shapes import Revolved, add_standing_cylinder
from envs.scene import HIDDEN
from envs.textures import Image, add_material, painted, shaded

_DENSITY = 50.0  # [kg/m^3]
_RADIUS, _HALF = 0.030, 0.1015  # [m]
_SHOULDER, _NECK, _CAP = 0.048, 0.078, 0.084  # [m] where each begins, above the middle
_SHAPE = Revolved(
    "bottle",
    (
        (0.0, -_HALF + 0.003),
        (0.022, -_HALF),
        (0.028, -_HALF + 0.003),
        (_RADIUS, -_HALF + 0.012),
        (_RADIUS, -0.050),
        (_RADIUS - 0.0015, -0.046),
        (_RADIUS - 0.0015, 0.022),
        (_RADIUS, 0.026),
        (_RADIUS, _SHOULDER),
        (0.026, 0.060),
        (0.013, _NECK),
        (0.013, _CAP),
        (0.016, _CAP),
        (0.016, _HALF - 0.001),
        (0.014, _HALF),
        (0.0, _HALF),
    ),
)


def _picture() -> Image:
    """Blue plastic with bright reflections down its side, a pale label, and a dark blue cap."""
    angle, _, z = _SHAPE.pixels(128, 64)
    gleam = 1.0 + 0.55 * np.maximum(np.cos(4 * angle + 0.6), 0) ** 6 + 0.15 * np.cos(2 * np.pi * z / 0.012)
    label = (z > -0.045) & (z < 0.021)
    layers = [
        (label, (120, 190, 235)),
        (label & (np.abs(z + 0.012) < 0.012) & (np.cos(2 * angle) > -0.2), (235, 245, 250)),
        (label & (np.abs(np.abs(z + 0.012) - 0.029) < 0.003), (20, 70, 170)),
        (z > _CAP - 0.0005, (20, 56, 150)),
    ]
    return painted(shaded((38, 112, 205), gleam), layers)


def _build(scene: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    add_standing_cylinder(body, radius=_RADIUS, bottom=-_HALF, top=_SHOULDER, density=_DENSITY)
    neck = {"density": _DENSITY, "type": mujoco.mjtGeom.mjGEOM_CYLINDER, "group": HIDDEN, "rolls": True}
    add_solid(body, size=[0.024, 0.009, 0], pos=[0, 0, _SHOULDER + 0.009], **neck)
    add_solid(body, size=[0.016, 0.018, 0], pos=[0, 0, _HALF - 0.018], **neck)
    _SHAPE.add_to(scene, body, material=add_material(scene, "bottle", _picture(), specular=0.9, shininess=0.8))


# Size and density: ManiSkill2_real2sim `data/custom/info_pick_custom_v0.json`.
BLUE_PLASTIC_BOTTLE = ObjectModel(
    name="blue_plastic_bottle",
    words="blue plastic bottle",
    size=(2 * _RADIUS, 2 * _RADIUS, 2 * _HALF),
    build=_build,
    grasp=RoundGrasp(width=2 * _RADIUS, axis=(0, 0, 1), along=-0.020, above_standing=0.035),
    lying=STANDING,
)
