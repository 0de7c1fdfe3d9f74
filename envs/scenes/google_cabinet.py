"""The cabinet with three drawers, in an office."""

import mujoco

from envs.scene import Scene
from envs.scenes._cabinet import CABINET_SIZE, add_cabinet
from envs.scenes._lab import add_lab
from envs.scenes._room import set_rendering

_FLOOR = 0.017  # [m], under the robot's wheels
_POSITION = (-0.295, 0.0, _FLOOR)


def _build(spec: mujoco.MjSpec) -> None:
    set_rendering(spec, centre=(-0.1, 0.0, 0.4), shadows=1.8)
    add_lab(spec, floor=_FLOOR, middle=0.0)
    add_cabinet(spec, _POSITION)


SCENE = Scene("google_cabinet", surface=_FLOOR + CABINET_SIZE[2], area=((-0.55, -0.26), (-0.16, 0.26)), build=_build)
