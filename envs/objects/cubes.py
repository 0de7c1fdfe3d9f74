"""Coloured cubes."""

import mujoco

from envs.object_model import BoxGrasp, ObjectModel, add_solid
from envs.objects._lying import FLAT

_SIZE = (0.03, 0.03, 0.03)


def _cube(colour: str, rgba: list[float]) -> ObjectModel:
    def build(_: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
        add_solid(body, density=1000, type=mujoco.mjtGeom.mjGEOM_BOX, size=[side / 2 for side in _SIZE], rgba=rgba)

    return ObjectModel(
        name=f"{colour}_cube", words=f"{colour} cube", size=_SIZE, build=build, grasp=BoxGrasp(_SIZE), lying=FLAT
    )


# Size and density: ManiSkill2_real2sim `data/custom/info_bridge_custom_v0.json`.
GREEN_CUBE = _cube("green", [0.10, 0.55, 0.16, 1.0])
YELLOW_CUBE = _cube("yellow", [0.93, 0.79, 0.09, 1.0])
