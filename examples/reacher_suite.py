"""One's own gymnasium environment as tasks of cadence-eval: gymnasium's Reacher, an arm of two links in MuJoCo.

    cadence-eval 'tasks=["examples/reacher_suite.py:reach"]' policy=random

Copy this file and change what `make` says. Beside the policies of Cadence, any policy server can be scored on it:
policy=remote endpoint=tcp://host:5555.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from eval.suites.adapter import Suite, World

NEAR = 0.02  # [m] from the fingertip to the ball


class Follower:
    """A script, for policy=expert: turns the joints so that the fingertip goes to the ball."""

    def __init__(self, world: World) -> None:
        self._world = world

    def reset(self) -> None:
        """Nothing is remembered."""

    def action(self) -> NDArray[np.float32]:
        cos, sin, speed, away = (self._world.seen[at] for at in (slice(0, 2), slice(2, 4), slice(6, 8), slice(8, 10)))
        first, second = np.arctan2(sin, cos)
        outer = 0.11 * np.array([-np.sin(first + second), np.cos(first + second)])  # [m/rad] of the fingertip
        both = 0.10 * np.array([-np.sin(first), np.cos(first)]) + outer
        return np.clip(-200 * np.array([both @ away, outer @ away]) - 0.1 * speed, -1, 1).astype(np.float32)


def make(task: str, size: tuple[int, int] | None) -> World:
    """The world of a task; `size` is (height, width) of images, None if nobody reads them."""
    height, width = size or (64, 64)
    options: dict[str, Any] = {"render_mode": "rgb_array", "height": height, "width": width} if size else {}
    environment = gymnasium.make("Reacher-v5", max_episode_steps=-1, **options)
    return World(
        environment=environment,
        instruction="bring the fingertip to the ball",
        state_names=("cos_1", "cos_2", "sin_1", "sin_2"),
        state_units=("1", "1", "1", "1"),
        action_names=("torque_1", "torque_2"),
        action_units=("1", "1"),
        control_period=0.02,
        max_steps=100,
        cameras={"above": lambda: np.asarray(environment.render())} if size else {},
        state=lambda seen: seen[:4],
        succeeded=lambda info: -info["reward_dist"] < NEAR,
        hold_action=np.zeros(2, np.float32),
        expert=Follower,
    )


SUITE = Suite(tasks=("reach",), make=make, starts=20, cameras=("above",), install="pip install 'gymnasium[mujoco]'")
