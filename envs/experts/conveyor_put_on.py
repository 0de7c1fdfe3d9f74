"""Expert for put-on tasks whose object rides on a conveyor belt."""

import numpy as np

from envs.experts._motion import lead
from envs.experts.put_on import Phase, PutOnExpert
from envs.geometry import Vector

_AHEAD = 0.5  # [s]: a control period over the gain, which makes up for following in parts of the gap


class ConveyorPutOnExpert(PutOnExpert):
    """Aims ahead of the object as long as the belt carries it."""

    def _wanted(self) -> tuple[Vector, float, float]:
        position, yaw, gripper = super()._wanted()
        following = self._phase in (Phase.REACH, Phase.CLOSE)
        ahead = lead(self._env, self._source.name, _AHEAD) if following else np.zeros(3)
        return position + ahead, yaw, gripper


EXPERT = ConveyorPutOnExpert
