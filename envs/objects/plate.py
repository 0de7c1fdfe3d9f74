"""A flat plate."""

import mujoco

from envs.object_model import ObjectModel
from envs.objects._shapes import Revolved, add_standing_cylinder
from envs.textures import Image, add_material, painted, shaded, speckle

_RADIUS, _HALF = 0.055, 0.003  # [m]
_REST = 0.0015  # [m] above the middle, on what things lie
_SHAPE = Revolved(
    "plate",
    (
        (0.0, -_HALF),
        (0.036, -_HALF),
        (0.054, 0.0015),
        (_RADIUS, 0.0025),
        (0.054, _HALF),
        (0.036, 0.0005),
        (0.0, 0.0005),
    ),
    segments=32,
)


def _glaze() -> Image:
    """Cream, with a blue ring on the rim."""
    _, radius, z = _SHAPE.pixels(128, 32)
    top = z > -0.0005
    ring = top & (radius > 0.049) & (radius < 0.0525)
    fold = top & (radius > 0.036) & (radius < 0.038)
    return painted(
        shaded((232, 226, 214), speckle(*z.shape, contrast=0.01)), [(ring, (70, 96, 160)), (fold, (196, 190, 180))]
    )


def _build(scene: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    add_standing_cylinder(body, radius=_RADIUS, bottom=-_HALF, top=_REST, density=1000)
    _SHAPE.add_to(scene, body, material=add_material(scene, "plate", _glaze(), specular=0.6, shininess=0.7))


# Size and density: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`, `bridge_plate_objaverse_larger`.
PLATE = ObjectModel(name="plate", words="plate", size=(2 * _RADIUS, 2 * _RADIUS, 2 * _HALF), build=_build)
