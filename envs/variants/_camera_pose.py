"""Cameras that look higher or lower; SIMPLER runs them for the tabletop tasks but leaves them out of its averages."""

from functools import partial
from typing import TYPE_CHECKING

from envs.variant import VARIANT_AGGREGATION, Variant
from envs.variants._edits import tilt_cameras

if TYPE_CHECKING:
    from envs.task import Task

_TILT = 0.7851361  # [rad] of the Google robot's head otherwise


def camera_pose(name: str, tilt: float) -> Variant:
    """The variant in which the Google robot's head has this tilt [rad], and other cameras turn by as much."""
    return Variant(
        name,
        settings=(VARIANT_AGGREGATION,),
        edit=partial(tilt_cameras, angle=tilt - _TILT),
        belongs_to=_is_tabletop,
        in_average=False,
    )


def _is_tabletop(task: "Task") -> bool:
    return task.scene.name != "google_cabinet"
