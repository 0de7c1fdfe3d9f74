"""The mean of several actions, in the numbers that CogACT's code averages (numpy only).

Its predictions hold a rotation as roll, pitch and yaw and a gripper's command as 0 or 1; ours, a rotation vector and -1
or 1. So both are turned into its numbers, averaged there, and turned back: `sim_cogact/cogact_policy.py` executes the
command that is above 0.5 in the mean.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla.api import Quantity
from vla.rotations import euler_angles, rotation_vector

_ROTATION, _GRIPPER = ("rotation_x", "rotation_y", "rotation_z"), "gripper"


@dataclass(frozen=True)
class Averaging:
    """Which numbers of an action are no plain numbers.

    Attributes:
        rotation: where a rotation vector begins; None: there is none.
        gripper: where the gripper is; None: there is none.
    """

    rotation: int | None = None
    gripper: int | None = None

    @classmethod
    def of(cls, actions: Sequence[Quantity]) -> "Averaging":
        """As the names and units of a policy's actions say; without any, all numbers are plain."""
        names = [quantity.name if quantity.unit in ("rad", "1") else "" for quantity in actions]
        places = [i for i in range(len(names)) if tuple(names[i : i + 3]) == _ROTATION]
        return cls(places[0] if places else None, names.index(_GRIPPER) if _GRIPPER in names else None)

    def plain(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, A) physical units -> the same in numbers that can be averaged."""
        made = rows.astype(np.float64)
        if self.rotation is not None:
            where = slice(self.rotation, self.rotation + 3)
            made[:, where] = euler_angles(rows[:, where])
        if self._commands(rows):
            made[:, self.gripper] = (made[:, self.gripper] + 1) / 2
        return made

    def physical(self, mean: NDArray[np.float64], rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """The inverse of `plain`, for the mean (A,) of these rows; a command is -1 or 1 again."""
        made = mean.copy()
        if self.rotation is not None:
            where = slice(self.rotation, self.rotation + 3)
            made[where] = rotation_vector(mean[where])
        if self._commands(rows):
            made[self.gripper] = 1 if mean[self.gripper] > 0.5 else -1
        return made.astype(np.float32)

    def _commands(self, rows: NDArray[np.float32]) -> bool:
        """Whether the gripper is told to close or to open; else it has a width, which is a plain number."""
        return self.gripper is not None and bool((np.abs(rows[:, self.gripper]) == 1).all())
