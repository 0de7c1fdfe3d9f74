"""A kitchen sponge: yellow foam with a green scouring side."""

import mujoco

from envs.object_model import BoxGrasp, ObjectModel, add_solid, add_visual
from envs.objects._lying import ON_EDGE
from envs.scene import HIDDEN
from envs.textures import add_material, shaded, speckle

_SIZE = (0.10, 0.07, 0.036)
_FOAM = 0.026  # [m] thick, the rest scours


def _build(scene: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
    box = mujoco.mjtGeom.mjGEOM_BOX
    x, y, z = (length / 2 for length in _SIZE)
    add_solid(body, density=150, type=box, size=[x, y, z], group=HIDDEN)
    foam = add_material(scene, "sponge_foam", shaded((240, 200, 40), speckle(32, 32, contrast=0.12)))
    scourer = add_material(scene, "sponge_scourer", shaded((36, 120, 56), speckle(32, 32, contrast=0.2, seed=1)))
    add_visual(body, type=box, size=[x, y, _FOAM / 2], pos=[0, 0, _FOAM / 2 - z], material=foam)
    add_visual(body, type=box, size=[x, y, z - _FOAM / 2], pos=[0, 0, _FOAM / 2], material=scourer)


# Size and density: ManiSkill2_real2sim `data/custom/info_pick_custom_v0.json`, whose box has x and y the other way
# around than its mesh.
SPONGE = ObjectModel(name="sponge", words="sponge", size=_SIZE, build=_build, grasp=BoxGrasp(_SIZE), lying=ON_EDGE)
