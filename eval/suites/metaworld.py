"""Meta-World v3: 50 tasks of a Sawyer arm in MuJoCo (arXiv 1910.10897, Farama Foundation's `metaworld` 3).

Its release pins an older MuJoCo than ours, so it is installed in an environment of its own:

    python -m venv ../metaworld && ../metaworld/bin/pip install metaworld==3.1.1 packaging
    cadence-eval 'tasks=["metaworld:drawer-open-v3"]' suite_python=../metaworld/bin/python policy=expert

Official start n is the seed n of a task's own distribution; success is Meta-World's at each step (its papers count any
step). Actions are its own: displacements of the hand in units of 1 cm per step, fingers -1 open .. +1 closed.
"""

import importlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.suites.adapter import Suite, World

CAMERA = "corner2"
TASKS = (
    "assembly", "basketball", "bin-picking", "box-close", "button-press-topdown", "button-press-topdown-wall",
    "button-press", "button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn", "disassemble",
    "door-close", "door-lock", "door-open", "door-unlock", "hand-insert", "drawer-close", "drawer-open", "faucet-open",
    "faucet-close", "hammer", "handle-press-side", "handle-press", "handle-pull-side", "handle-pull", "lever-pull",
    "pick-place-wall", "pick-out-of-hole", "reach", "push-back", "push", "pick-place", "plate-slide",
    "plate-slide-side", "plate-slide-back", "plate-slide-back-side", "peg-insert-side", "peg-unplug-side", "soccer",
    "stick-push", "stick-pull", "push-wall", "reach-wall", "shelf-place", "sweep-into", "sweep", "window-open",
    "window-close",
)  # fmt: skip


class _Script:
    """Meta-World's own scripted policy of a task."""

    def __init__(self, task: str, world: World) -> None:
        policies = importlib.import_module("metaworld.policies")
        self._policy, self._world = policies.ENV_POLICY_MAP[task](), world

    def reset(self) -> None:
        """It looks at the observation alone."""

    def action(self) -> NDArray[np.float32]:
        return np.clip(self._policy.get_action(self._world.seen), -1, 1).astype(np.float32)


def make(task: str, size: tuple[int, int] | None) -> World:
    """The world of one task."""
    kinds = importlib.import_module("metaworld.env_dict").ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
    environment: Any = kinds[f"{task}-goal-observable"](seed=0, render_mode="rgb_array")
    environment._freeze_rand_vec, environment.seeded_rand_vec = False, True  # every reset draws from the seed
    return World(
        environment=environment,
        instruction=re.sub(r"-v\d$", "", task).replace("-", " "),
        state_names=("x", "y", "z", "opening"),
        state_units=("m", "m", "m", "1"),
        action_names=("dx", "dy", "dz", "gripper"),
        action_units=("cm", "cm", "cm", "1"),
        control_period=float(environment.dt),
        max_steps=int(environment.max_path_length),
        cameras={} if size is None else {CAMERA: _camera(environment, size)},
        state=lambda seen: seen[:4],
        succeeded=_solved,
        hold_action=np.zeros(4, np.float32),
        kept=(3,),  # a hand that was closed stays closed
        expert=lambda world: _Script(task, world),
        seeded=lambda seed: _reset(environment, seed),
    )


def _camera(environment: Any, size: tuple[int, int]) -> Any:
    renderer = environment.mujoco_renderer
    renderer.height, renderer.width = size
    quality = environment.model.vis.quality  # on a CPU, shadows and anti-aliasing cost more than all else
    quality.shadowsize, quality.offsamples = 1024, 0
    renderer.camera_id = None
    renderer.camera_name = CAMERA
    return environment.render


def _reset(environment: Any, seed: int) -> Any:
    environment.seed(seed)
    return environment.reset()[0]


def _solved(info: Mapping[str, Any]) -> bool:
    return bool(info["success"])


SUITE = Suite(
    tasks=tuple(f"{name}-v3" for name in TASKS),
    make=make,
    starts=50,
    cameras=(CAMERA,),
    install="python -m venv ../metaworld && ../metaworld/bin/pip install metaworld==3.1.1 packaging",
)
