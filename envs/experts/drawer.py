"""Opens drawers by hooking two fingers behind the handle's bar, and closes them by pushing with the closed hand."""

from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.experts._motion import CLOSED, OPEN, Tool, about_vertical
from envs.geometry import Matrix, Vector, rotation_vector_from_matrix
from envs.tasks._drawer import DRAWERS, Drawer, is_at_rest, joint

if TYPE_CHECKING:
    from envs.manipulation import ManipulationEnv

# The hand, in front of a drawer: as flat as the wrist can, which is less near the base and low.
_PITCH = np.deg2rad(15.0)  # [rad] below the horizontal at arm's length
_ARMS_LENGTH, _STEEPER = 0.6, 2.2  # [m], [rad/m^2]
_FIRST_PITCH, _TILTING = np.deg2rad(70.0), 0.5  # [rad] as episodes start; [m] beside its line over which it gets flat
_BACK = 0.10  # [m] from where it goes straight at what it is to touch
_CLEAR = 0.06  # [m] behind what it has let go
_UNDER = 0.06  # [m] above that place, from where on it fits under an open drawer

# Opening.
_BAR = np.zeros(3)
_DEPTH = 0.013  # [m] of the fingertips beyond the bar: closed, they hook behind it
_HOOKED_WIDTH = 0.25  # opening of the gripper when its fingers have met behind the bar
_PINCHED_WIDTH = 0.5  # at most, when they have the bar between them
_TOLERANCE = 0.03  # [m] of how far a drawer is opened

# Closing.
_FRONT = np.array([-0.03, 0.0, -0.05])  # [m] in the world, from a handle to where its drawer's front is pushed
_SHUT_TO = 0.01  # [m]
_PUSH = 0.06  # [m] per action
_AIMED, _ASTRAY = 0.03, 0.06  # [m] beside the line: to begin to push, and to leave off


class Aim:
    """A point of a drawer and the hand that goes for it, in the base frame.

    Args:
        env: the environment, after a reset.
        drawer: which.
        offset: (3,) [m] in the world, from the handle to the point.
    """

    def __init__(self, env: "ManipulationEnv", drawer: str, offset: Vector) -> None:
        self._world, self._drawer, self._offset = env.world, drawer, offset
        self._above = DRAWERS[: DRAWERS.index(drawer)]
        self._tool = Tool(env)

    @property
    def drawn(self) -> float:
        """[m] how far the drawer is out."""
        return self._world.joint(joint(self._drawer))

    @property
    def line(self) -> Vector:
        """(3,) unit vector along which the hand goes straight at the point."""
        return self._hand(self._flattest())[:, 2]

    @property
    def rotation(self) -> Matrix:
        """(3, 3) of the hand: along the line with its fingers above and below, and steeper while it is far from it."""
        _, aside = self.gaps()
        far = np.clip((aside - _BACK) / _TILTING, 0.0, 1.0)
        return self._hand(self._flattest() + far * (_FIRST_PITCH - self._flattest()))

    def point(self, *, ahead: float = 0.0, out: float = 0.0) -> Vector:
        """(3,) [m] the point, or one beyond it on the line, or where it is when the drawer is further out."""
        place = self._world.site(f"{self._drawer}_handle") + self._offset + np.array([out, 0.0, 0.0])
        return self._world.in_base(place) + (ahead * self.line if ahead else 0.0)

    def gaps(self) -> tuple[float, float]:
        """How far the tool is beyond the point on the line, and beside the line [m]."""
        offset, line = self._tool.position - self.point(), self.line
        ahead = float(offset @ line)
        return ahead, float(np.linalg.norm(offset - ahead * line))

    def turn(self) -> float:
        """[rad] by which the hand still has to turn."""
        return float(np.linalg.norm(rotation_vector_from_matrix(self.rotation @ self._tool.rotation.T)))

    def approach(self, depth: float) -> Vector:
        """(3,) [m] ahead to this depth beyond the point, but only as far as the hand is aligned."""
        around = self._around()
        if around is not None:
            return around
        _, aside = self.gaps()
        back = 3.0 * max(aside - 0.01, 0.0) + 0.4 * max(self.turn() - 0.12, 0.0)
        return self.point(ahead=depth - min(back, _BACK))

    def straight_back(self) -> Vector:
        """(3,) [m] where the hand is out of the way of what it touched."""
        ahead, _ = self.gaps()
        return self._tool.position - (_BACK + ahead) * self.line

    def _around(self) -> Vector | None:
        """(3,) [m] in front of the drawers above, across and then down; None if they are not in the way (any more)."""
        out = max((self._world.joint(joint(drawer)) for drawer in self._above), default=0.0)
        tool, place = self._tool.position, self.point(ahead=-_BACK, out=max(out - self.drawn, 0.0))
        if out < _SHUT_TO or tool[2] < place[2] + _UNDER:
            return None
        return place if np.hypot(*(place - tool)[:2]) < _BACK / 2 else np.array([*place[:2], tool[2]])

    def _flattest(self) -> float:
        """[rad] below the horizontal, as flat as the wrist can where the tool is."""
        x, y, z = self._tool.position
        return _PITCH + _STEEPER * max(_ARMS_LENGTH - float(np.hypot(x, y)), 0.0) * (1.0 - z)

    def _hand(self, pitch: float) -> Matrix:
        """(3, 3) of a hand that points down by `pitch` [rad] at the shut drawer, from where the base is."""
        shut = self.point(out=-self.drawn)
        ahead = np.array([np.cos(pitch), 0.0, -np.sin(pitch)])
        closing = np.array([-np.sin(pitch), 0.0, -np.cos(pitch)])
        level = np.stack([np.cross(closing, ahead), closing, ahead], axis=1)
        return about_vertical(np.arctan2(shut[1], shut[0])) @ level


class Phase(Enum):
    REACH = auto()
    CLOSE = auto()
    PULL = auto()
    RELEASE = auto()
    RETREAT = auto()


class Opening:
    """Opens one drawer.

    Args:
        env: the environment, after a reset.
        drawer: which.
        wide: how far [m].
    """

    def __init__(self, env: "ManipulationEnv", drawer: str, wide: float = 0.22) -> None:
        self._world, self._drawer, self._wide = env.world, drawer, wide
        self._tool, self._aim = Tool(env), Aim(env, drawer, _BAR)
        self._phase = Phase.REACH

    @property
    def done(self) -> bool:
        return self._phase is Phase.RETREAT and self._aim.gaps()[0] < -_CLEAR

    def action(self) -> NDArray[np.float32]:
        self._advance()
        aim, rotation = self._aim, self._aim.rotation
        match self._phase:
            case Phase.REACH:
                return self._tool.towards(aim.approach(_DEPTH), rotation, OPEN)
            case Phase.CLOSE:
                return self._tool.towards(aim.point(ahead=_DEPTH), rotation, CLOSED)
            case Phase.PULL:
                return self._tool.towards(aim.point(ahead=_DEPTH, out=self._wide - aim.drawn), rotation, CLOSED)
            case Phase.RELEASE:
                return self._tool.towards(self._tool.position, rotation, OPEN)
            case Phase.RETREAT:
                return self._tool.towards(aim.straight_back(), rotation, OPEN)

    def _advance(self) -> None:
        """Choose the phase from what is measured now."""
        width, drawn = self._world.gripper_opening(), self._aim.drawn
        ahead, aside = self._aim.gaps()
        on_bar = self._world.finger_contacts(f"{self._drawer}_drawer") == 2
        closed = width < (_PINCHED_WIDTH if on_bar else _HOOKED_WIDTH)
        hooked = ahead > 0.0 and aside < 0.03
        wide = drawn > self._wide - _TOLERANCE and is_at_rest(self._world, self._drawer)
        match self._phase:
            case Phase.REACH if wide:
                self._phase = Phase.RETREAT
            case Phase.REACH if aside < 0.015 and self._aim.turn() < 0.15 and abs(ahead - _DEPTH) < 0.01:
                self._phase = Phase.CLOSE
            case Phase.CLOSE if closed and hooked:
                self._phase = Phase.PULL
            case Phase.CLOSE | Phase.PULL if closed and not hooked:
                self._phase = Phase.REACH
            case Phase.PULL if wide:
                self._phase = Phase.RELEASE
            case Phase.RELEASE if width > 0.7:
                self._phase = Phase.RETREAT
            case Phase.RETREAT if self.done and not wide:
                self._phase = Phase.REACH


class Closing:
    """Closes one drawer.

    Args:
        env: the environment, after a reset.
        drawer: which.
    """

    def __init__(self, env: "ManipulationEnv", drawer: str) -> None:
        self._tool, self._aim = Tool(env), Aim(env, drawer, _FRONT)

    @property
    def done(self) -> bool:
        return self._aim.drawn < _SHUT_TO and self._aim.gaps()[0] < -_CLEAR

    def action(self) -> NDArray[np.float32]:
        aim = self._aim
        ahead, aside = aim.gaps()
        if aim.drawn < _SHUT_TO:
            place = aim.straight_back()
        elif aside < (_ASTRAY if ahead > -_AIMED else _AIMED):
            place = aim.point(out=-min(aim.drawn, _PUSH))
        else:
            place = aim.approach(0.0)
        return self._tool.towards(place, aim.rotation, CLOSED)


class DrawerExpert:
    """Opens or closes what is asked for.

    Args:
        env: the environment whose episodes to solve.

    Attributes:
        done: solved, released and out of the way.
    """

    def __init__(self, env: "ManipulationEnv") -> None:
        self._env = env
        self.done = False

    def reset(self) -> None:
        goal = self._env.goal
        assert isinstance(goal, Drawer)
        self._skill = Opening(self._env, goal.drawer) if goal.opens else Closing(self._env, goal.drawer)
        self.done = False

    def action(self) -> NDArray[np.float32]:
        action = self._skill.action()
        self.done = self._skill.done and self._env.success.strict
        return action


EXPERT = DrawerExpert
