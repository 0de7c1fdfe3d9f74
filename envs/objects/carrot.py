"""A carrot with its green top, lying on its side."""

import mujoco
import numpy as np

from envs.object_model import ObjectModel, RoundGrasp, add_solid, add_visual
from envs.objects._lying import FLAT
from envs.objects._shapes import ALONG_X, Revolved
from envs.scene import HIDDEN
from envs.textures import Image, add_material, shaded, speckle

_DENSITY = 700.0  # [kg/m^3]
_FLOOR = -0.019  # [m] of the side it lies on
_PROFILE = (
    (0.0, -0.0575),
    (0.004, -0.056),
    (0.007, -0.045),
    (0.0095, -0.025),
    (0.012, 0.0),
    (0.0145, 0.025),
    (0.016, 0.036),
    (0.014, 0.043),
    (0.007, 0.046),
    (0.0, 0.045),
)
# The thinner, the lower: a straight line of its side touches the table. Along x, the profile's x axis points down.
_ROOT = Revolved("carrot", _PROFILE, shifts=tuple(-_FLOOR - max(radius, 0.005) for radius, _ in _PROFILE))


def _skin() -> Image:
    """Orange with darker rings."""
    angle, _, z = _ROOT.pixels(128, 32)
    rings = 0.14 * (np.sin(900 * z + 1.5 * np.sin(2 * angle)) > 0.85)
    return shaded((238, 112, 24), speckle(*z.shape, contrast=0.04) - rings)


def _build(scene: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    box, ellipsoid = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID
    # Boxes carry the contacts so that it does not roll.
    solid = {"density": _DENSITY, "type": box, "group": HIDDEN}
    add_solid(body, pos=[0.018, 0, _FLOOR + 0.0150], size=[0.028, 0.0150, 0.0150], **solid)
    add_solid(body, pos=[-0.0335, 0, _FLOOR + 0.0095], size=[0.0235, 0.0095, 0.0095], **solid)
    _ROOT.add_to(scene, body, quat=ALONG_X, material=add_material(scene, "carrot", _skin(), specular=0.3))
    for side, rise in ((-0.5, 0.35), (0.0, 0.7), (0.5, 0.45)):
        leaf = {"type": ellipsoid, "size": [0.011, 0.0035, 0.0035], "rgba": [0.16, 0.46, 0.12, 1]}
        turned = np.empty(4)
        mujoco.mju_euler2Quat(turned, np.array([0, -rise, side]), "XYZ")
        add_visual(body, pos=[0.049, 0.007 * side, 0.003 + 0.008 * rise], quat=turned, **leaf)


# Size and density: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`.
CARROT = ObjectModel(
    name="carrot",
    words="carrot",
    size=(0.115, 0.032, 0.038),
    build=_build,
    grasp=RoundGrasp(width=0.030, axis=(1, 0, 0), along=0.006, above=-0.003),
    lying=FLAT,
)
