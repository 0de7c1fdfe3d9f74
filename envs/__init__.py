"""MuJoCo tasks as gymnasium environments: `envs.make(name)`, or `gymnasium.make("simpler-mujoco/<name>")`."""

import os
import pkgutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

if sys.platform == "linux" and "DISPLAY" not in os.environ:
    os.environ.setdefault("MUJOCO_GL", "egl")  # mujoco reads it when it is imported: draw without a display

# One file per task; files that start with "_" are shared families. Found without importing them or mujoco.
TASKS = tuple(
    sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).with_name("tasks"))]) if m.name[0] != "_")
)

# SIMPLER's own suite is what `all` means; the conveyor tasks are further ones and are asked for by name.
CONVEYOR = tuple(name for name in TASKS if name.startswith("conveyor_"))
SIMPLER = tuple(name for name in TASKS if name not in CONVEYOR)


def make(
    name: str,
    *,
    setting: str = "visual_matching",
    variant: str = "base",
    scene: str = "official",
    overlay: "str | os.PathLike[str] | None" = None,
    robot_assets: "str | os.PathLike[str] | None" = None,
    image_size: tuple[int, int] = (224, 224),
    render: bool = True,
) -> "ManipulationEnv":
    """Build the environment of one task.

    Args:
        name: task name, one of `TASKS`.
        setting: `visual_matching` or `variant_aggregation`.
        variant: visual perturbation; `envs.variants.names()` lists them.
        scene: `official`, or `mixed` with the objects and targets of other tasks present.
        overlay: photograph to put behind robot and objects under visual matching.
        robot_assets: checkout of MuJoCo Menagerie whose meshes replace our own robot.
        image_size: (height, width) of camera images in pixels.
        render: False leaves images out of observations.

    Raises:
        EnvError: for an unknown name (listing those that exist), a file that cannot be used, or without OpenGL.
    """
    from envs.tasks import find

    task = find(name)  # before anything imports mujoco: it says clearly when there is no OpenGL
    from envs.manipulation import ManipulationEnv
    from envs.staging import Staging

    photo = None if overlay is None else Path(overlay)
    meshes = None if robot_assets is None else Path(robot_assets)
    staging = Staging(setting, variant, scene, photo, meshes)
    return ManipulationEnv(task, staging, image_size=image_size, render=render)


with suppress(ModuleNotFoundError):  # without gymnasium nobody can make one; commands then say what to install
    from gymnasium import register

    for _name in TASKS:
        # The environment truncates its episodes itself, so gymnasium gets no step limit.
        register(id=f"simpler-mujoco/{_name}", entry_point="envs:make", kwargs={"name": _name})
