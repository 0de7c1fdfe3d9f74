"""Builds the environment a policy needs: its camera at its image size, or no images for a policy that reads none."""

from collections.abc import Iterable, Sequence
from typing import Any

from eval.rollout import Episode
from eval.suites.adapter import SuiteError, check, is_foreign, split
from eval.suites.process import ProcessWorld
from vla.api import Camera, InputError, PolicySpec, Quantity

FILM_SIZE = (224, 224)  # (height, width) [pixels] of videos of policies that read no image


def task_names() -> tuple[str, ...]:
    """All tasks."""
    import envs

    return envs.TASKS


def grid_size(task: str) -> int:
    """Number of official starts of a task."""
    if is_foreign(task):
        return check(task).starts
    import envs.tasks

    return envs.tasks.find(task).grid_size


def official_starts(task: str, setting: str) -> list[str] | None:
    """By number, what each official start of a task is made of, equal where starts are; None of another suite's."""
    if is_foreign(task):
        return None
    import envs.tasks

    found = envs.tasks.find(task).in_setting(setting)
    return [repr(found.official_start(number)) for number in range(found.grid_size)]


def robot_of(task: str) -> str:
    """Name of a task's robot; of another suite's, the suite's name."""
    if is_foreign(task):
        return split(task)[0]
    import envs.tasks

    return envs.tasks.find(task).robot.name


def suite(task: str, setting: str) -> list[str]:
    """Names of the variants that SIMPLER runs for a task in a setting; another suite's task has only `base`."""
    if is_foreign(task):
        return ["base"]
    import envs.tasks
    import envs.variants

    return [variant.name for variant in envs.variants.suite(envs.tasks.find(task), setting)]


def left_out(variants: Iterable[str]) -> frozenset[str]:
    """Those variants that SIMPLER runs but does not average."""
    import envs.variants

    return frozenset(name for name in variants if not envs.variants.find(name).in_average)


def robot_spec(task: str, model: str, horizon: int, suite_python: str | None = None) -> PolicySpec:
    """What a policy would be that sees, reads and does all that a task's robot can.

    Args:
        model: what it is called.
        horizon: rows of its chunks.
        suite_python: interpreter that plays another suite's task; None: this one.
    """
    if is_foreign(task):
        return _foreign_spec(task, model, horizon, suite_python)
    import envs.tasks
    from envs.manipulation import ManipulationEnv as Env

    robot = envs.tasks.find(task).robot
    return PolicySpec(
        cameras=(Camera(robot.camera, *FILM_SIZE),),
        state=tuple(map(Quantity, Env.state_names, Env.state_units)),
        actions=tuple(map(Quantity, Env.action_names, Env.action_units)),
        horizon=horizon,
        period=robot.control_period,
        model=model,
    )


def _foreign_spec(task: str, model: str, horizon: int, python: str | None) -> PolicySpec:
    world = _foreign_world(task, (), False, python)
    try:
        return PolicySpec(
            cameras=tuple(Camera(name, *FILM_SIZE) for name in check(task).cameras[:1]),
            state=tuple(map(Quantity, world.state_names, world.state_units)),
            actions=tuple(map(Quantity, world.action_names, world.action_units)),
            horizon=horizon,
            period=world.control_period,
            model=model,
        )
    finally:
        world.close()


def make_world(
    episode: Episode,
    cameras: Sequence[Camera],
    film: bool,
    overlay: str | None = None,
    robot_assets: str | None = None,
    suite_python: str | None = None,
) -> Any:
    """The environment of an episode for one policy.

    Args:
        episode: names task, setting, variant and scene.
        cameras: what the policy reads.
        film: draw images even if the policy reads none.
        overlay: photograph behind robot and objects.
        robot_assets: checkout of MuJoCo Menagerie.
        suite_python: interpreter that plays another suite's task; None: this one.

    Raises:
        InputError: if the policy reads a camera the robot does not have.
        EnvError: on an unknown task or variant, a file that cannot be used, or without OpenGL.
    """
    if is_foreign(episode.task):
        return _foreign_world(episode.task, cameras, film, suite_python)
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


def _foreign_world(task: str, cameras: Sequence[Camera], film: bool, python: str | None) -> Any:
    suite = check(task)
    size = image_size(cameras, suite.cameras[0])
    drawn = size or (FILM_SIZE if film else None)
    if python is not None:
        return ProcessWorld(task, suite, drawn, python)
    try:
        return suite.make(split(task)[1], drawn)
    except ImportError as error:
        raise SuiteError(
            f"{task}: {error}; install the suite in an environment of its own and give its interpreter as "
            f"suite_python=<path>: {suite.install}"
        ) from error


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
