"""An adapter file as a user writes one: a gymnasium environment with a camera, adapted in a few lines."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from eval.suites.adapter import Suite, World


class Point(gymnasium.Env[NDArray[np.float64], NDArray[np.float32]]):
    """A point to be brought to the right."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float64], dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(scale=0.1, size=2)
        return self.place, {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, bool, bool, dict[str, Any]]:
        if action[0] > 5:
            raise RuntimeError("the point flew away")
        self.place = self.place + action[:2]
        return self.place, 0.0, False, False, {"right": self.place[0] > 0.5}

    def draw(self) -> NDArray[np.uint8]:
        image = np.zeros((16, 16, 3), np.uint8)
        image[int(np.clip(8 + 8 * self.place[1], 0, 15)), int(np.clip(8 + 8 * self.place[0], 0, 15))] = 255
        return image


class Pusher:
    """Goes right."""

    def reset(self) -> None:
        """Nothing is remembered."""

    def action(self) -> NDArray[np.float32]:
        return np.array([0.2, 0.0, -1.0], np.float32)


def make(task: str, size: tuple[int, int] | None) -> World:
    point = Point()
    return World(
        environment=point,
        instruction=f"{task} the point",
        state_names=("x", "y"),
        state_units=("m", "m"),
        action_names=("dx", "dy", "gripper"),
        action_units=("m", "m", "1"),
        control_period=0.1,
        max_steps=8,
        cameras={} if size is None else {"above": point.draw},
        state=lambda seen: seen,
        succeeded=lambda info: bool(info["right"]),
        hold_action=np.zeros(3, np.float32),
        kept=(2,),
        expert=lambda world: Pusher(),
    )


SUITE = Suite(tasks=("push", "lift"), make=make, starts=5, cameras=("above",), install="nothing")
