"""A folded towel."""

import mujoco

from envs.object_model import ObjectModel, add_solid, add_visual

_CLOTH, _HEM = [0.33, 0.42, 0.70, 1.0], [0.86, 0.88, 0.93, 1.0]


def _build(_: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    add_solid(body, density=330, type=box, size=[0.05, 0.05, 0.005], rgba=_CLOTH)
    for side in (-1, 1):
        add_visual(body, type=box, pos=[side * 0.040, 0, 0.0051], size=[0.004, 0.0499, 0.0002], rgba=_HEM)
        add_visual(body, type=box, pos=[0, side * 0.040, 0.0051], size=[0.0499, 0.004, 0.0002], rgba=_HEM)


# Size and density: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`, `table_cloth_generated_shorter`.
TOWEL = ObjectModel(name="towel", words="towel", size=(0.10, 0.10, 0.01), build=_build)
