"""Builds the environment a policy needs: its camera at its image size, or no images for a policy that reads none."""

from collections.abc import Sequence
from typing import Any

from vla.api import Camera, InputError

FILM_SIZE = (224, 224)  # (height, width) [pixels] of videos of policies that read no image


def task_names() -> tuple[str, ...]:
    """All tasks."""
    import envs

    return envs.TASKS


def grid_size(task: str) -> int:
    """Number of official starts of a task."""
    import envs.tasks

    return envs.tasks.find(task).grid_size


def make_world(task: str, cameras: Sequence[Camera], film: bool) -> Any:
    """The environment of a task for one policy.

    Args:
        task: name.
        cameras: what the policy reads.
        film: draw images even if the policy reads none.

    Raises:
        InputError: if the policy reads a camera the robot does not have.
        EnvError: on an unknown task, or without OpenGL.
    """
    import envs.tasks

    size = image_size(cameras, envs.tasks.find(task).robot.camera)
    return envs.make(task, image_size=size or FILM_SIZE, render=film or size is not None)


def image_size(cameras: Sequence[Camera], available: str) -> tuple[int, int] | None:
    """(height, width) [pixels] that the policy needs of the robot's camera; None if it reads no image.

    Raises:
        InputError: if the policy reads another camera, or more than one.
    """
    if not cameras:
        return None
    if [camera.name for camera in cameras] != [available]:
        raise InputError(f"the policy reads cameras {[camera.name for camera in cameras]}; the robot has {available}")
    return cameras[0].height, cameras[0].width
