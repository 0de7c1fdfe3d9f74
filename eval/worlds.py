"""Builds the environment a policy needs: its camera at its image size, or no images for a policy that reads none."""

from collections.abc import Iterable, Sequence
from typing import Any

from eval.rollout import Episode
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


def robot_of(task: str) -> str:
    """Name of a task's robot."""
    import envs.tasks

    return envs.tasks.find(task).robot.name


def suite(task: str, setting: str) -> list[str]:
    """Names of the variants that SIMPLER runs for a task in a setting."""
    import envs.tasks
    import envs.variants

    return [variant.name for variant in envs.variants.suite(envs.tasks.find(task), setting)]


def left_out(variants: Iterable[str]) -> frozenset[str]:
    """Those variants that SIMPLER runs but does not average."""
    import envs.variants

    return frozenset(name for name in variants if not envs.variants.find(name).in_average)


def make_world(
    episode: Episode,
    cameras: Sequence[Camera],
    film: bool,
    overlay: str | None = None,
    robot_assets: str | None = None,
) -> Any:
    """The environment of an episode for one policy.

    Args:
        episode: names task, setting, variant and scene.
        cameras: what the policy reads.
        film: draw images even if the policy reads none.
        overlay: photograph behind robot and objects.
        robot_assets: checkout of MuJoCo Menagerie.

    Raises:
        InputError: if the policy reads a camera the robot does not have.
        EnvError: on an unknown task or variant, a file that cannot be used, or without OpenGL.
    """
    import envs.tasks

    size = image_size(cameras, envs.tasks.find(episode.task).robot.camera)
    return envs.make(
        episode.task,
        setting=episode.setting,
        variant=episode.variant,
        scene=episode.scene,
        overlay=overlay,
        robot_assets=robot_assets,
        image_size=size or FILM_SIZE,
        render=film or size is not None,
    )


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
