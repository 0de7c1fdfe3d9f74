"""Colours of the Google robot's arm: medians of SIMPLER's textures `googlerobot_description/3obj_recolor_*`."""

from functools import partial
from typing import TYPE_CHECKING

import mujoco

from envs.variant import VISUAL_MATCHING, Variant
from envs.variants._edits import recolour

if TYPE_CHECKING:
    from envs.task import Task

Colour = tuple[int, int, int]


def arm_colour(name: str, arm: Colour, fingers: Colour) -> Variant:
    """The variant that gives the arm and the fingers these colours, 0..255; other robots stay as they are."""
    edit = partial(_paint, arm=arm, fingers=fingers)
    return Variant(name, settings=(VISUAL_MATCHING,), edit=edit, belongs_to=_has_google_robot)


def _paint(spec: mujoco.MjSpec, arm: Colour, fingers: Colour) -> None:
    recolour(spec, "google_robot_arm", arm)
    recolour(spec, "google_robot_finger", fingers)


def _has_google_robot(task: "Task") -> bool:
    return task.robot.name == "google_robot"
