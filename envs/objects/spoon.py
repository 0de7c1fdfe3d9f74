"""A green plastic spoon."""

import mujoco

from envs.object_model import ObjectModel, RoundGrasp, add_solid, add_visual
from envs.objects._lying import FLAT
from envs.scene import HIDDEN

_GREEN_PLASTIC = [0.10, 0.42, 0.22, 1.0]


def _build(_: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    box, ellipsoid, capsule = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID, mujoco.mjtGeom.mjGEOM_CAPSULE
    # Boxes carry the contacts so that the spoon neither rolls nor rocks; rounded shapes are what the camera sees.
    solid = {"density": 1200, "type": box, "group": HIDDEN}
    add_solid(body, pos=[0.050, 0, -0.002], size=[0.020, 0.0173, 0.005], **solid)
    add_solid(body, pos=[-0.020, 0, 0.002], size=[0.050, 0.0075, 0.009], **solid)
    add_visual(body, type=ellipsoid, pos=[0.048, 0, 0.000], size=[0.022, 0.0173, 0.0075], rgba=_GREEN_PLASTIC)
    handle = {"type": capsule, "size": [0.0085, 0, 0], "rgba": _GREEN_PLASTIC}
    add_visual(body, fromto=[-0.0615, 0, 0.0015, 0.034, 0, 0.0015], **handle)


# Size and density: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`.
SPOON = ObjectModel(
    name="spoon",
    words="spoon",
    size=(0.14, 0.0346, 0.026),
    build=_build,
    grasp=RoundGrasp(width=0.015, axis=(1, 0, 0), along=0.004, above=0.004),
    lying=FLAT,
)
