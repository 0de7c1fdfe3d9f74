"""Other finishes of the drawer cabinet (ManiSkill2_real2sim `data/custom/mk_station2.urdf`, `mk_station3.urdf`)."""

from typing import TYPE_CHECKING

import mujoco

from envs.variants._edits import recolour

if TYPE_CHECKING:
    from envs.task import Task

_GREY_WOOD = (168, 155, 144)


def darken_drawers(spec: mujoco.MjSpec) -> None:
    """Make the drawers' insides of the same grey wood as the cabinet."""
    recolour(spec, "drawer", _GREY_WOOD)


def has_cabinet(task: "Task") -> bool:
    return task.scene.name == "google_cabinet"
