"""`python -m envs.view task=…`: a task in MuJoCo's interactive viewer, at the speed of the robot."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.view()

import time
import warnings
from typing import Any

import glfw
import mujoco.viewer
import numpy as np
from omegaconf import DictConfig, OmegaConf

import envs
from cadence_configs.command import DONE, command
from envs import experts
from envs.errors import EnvError
from envs.experts import Expert
from envs.manipulation import ManipulationEnv

_FRAME = 1 / 60  # [s]
_DISTANCE, _ELEVATION = 1.6, -25.0  # of the first view, from the tool [m], [degrees]


@command("view", usage_errors=(EnvError,))
def main(config: DictConfig) -> int:
    """Show one episode; after it the robot holds still until the window is closed."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    task, wants_expert, seed = (options.pop(key) for key in ("task", "expert", "seed"))
    start = {key: options.pop(key) for key in ("episode_id", "goal")}
    env = envs.make(task, render=False, **options)
    _, info = env.reset(seed=seed, options=start)
    _check_display()
    print(f"{task}: {info['instruction']}")
    expert = experts.make(env) if wants_expert else None
    if expert is not None:
        expert.reset()
    _watch(env, expert)
    return DONE


def _check_display() -> None:
    """Say at once what MuJoCo's viewer would otherwise wait for without end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GLFW says the same again
        if not glfw.init():
            raise EnvError("there is no display to open a window on; python -m envs.gallery writes pictures and clips")


def _watch(env: ManipulationEnv, expert: Expert | None) -> None:
    """Run the episode in a window. The window has data of its own, which moves evenly between control steps."""
    model, data, shown = env.world.model, env.world.data, mujoco.MjData(env.world.model)
    shown.qpos[:] = data.qpos
    change, frames = np.empty(model.nv), round(env.control_period / _FRAME)
    with _window(model, shown) as viewer:
        viewer.cam.lookat[:] = data.site("tcp").xpos
        viewer.cam.distance, viewer.cam.elevation = _DISTANCE, _ELEVATION
        due = time.monotonic()
        while viewer.is_running():
            env.step(env.hold_action if expert is None or expert.done else expert.action())
            mujoco.mj_differentiatePos(model, change, env.control_period, shown.qpos, data.qpos)
            for _ in range(frames):
                mujoco.mj_integratePos(model, shown.qpos, change, env.control_period / frames)
                mujoco.mj_fwdPosition(model, shown)
                viewer.sync()
                now = time.monotonic()
                due = max(due + env.control_period / frames, now)
                time.sleep(due - now)


def _window(model: mujoco.MjModel, data: mujoco.MjData) -> mujoco.viewer.Handle:
    try:
        return mujoco.viewer.launch_passive(model, data, show_left_ui=False, show_right_ui=False)
    except RuntimeError as error:  # on macOS: use mjpython
        raise EnvError(str(error)) from error
