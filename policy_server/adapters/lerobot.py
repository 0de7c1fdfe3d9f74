"""Drives any lerobot `Robot` with a `ControlLoop`; lerobot itself is not imported (numpy only).

from lerobot.robots.so_follower import SO101Follower, SO101FollowerConfig

with RemotePolicy("tcp://127.0.0.1:5555", timeout=1.0) as policy:
    follower = SO101Follower(SO101FollowerConfig(port="/dev/ttyACM0", cameras={...}))
    follower.connect()
    arm = LeRobotArm(follower, policy.spec, limits)
    with ControlLoop(arm, policy, RealTimeChunking(execute=10)) as loop:
        loop.run("pick up the cube", session="so101/1")
    follower.disconnect()
"""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from policy_server.robot import Limits, Sensed
from vla.api import Camera, InputError, PolicySpec

log = logging.getLogger(__name__)

Prepare = Callable[[NDArray[np.uint8], Camera], NDArray[np.uint8]]
POSITION, VELOCITY = ".pos", ".vel"  # how lerobot's keys end


class LeRobot(Protocol):
    """The part of `lerobot.robots.Robot` that is used (lerobot 0.3 and later)."""

    @property
    def observation_features(self) -> Mapping[str, Any]: ...

    @property
    def action_features(self) -> Mapping[str, Any]: ...

    def get_observation(self) -> dict[str, Any]: ...

    def send_action(self, action: dict[str, Any]) -> Mapping[str, Any]: ...


class LeRobotArm:
    """A connected lerobot robot as the `Robot` of a control loop.

    Its actions are goals, in the units the robot is set to: positions of joints, or velocities, of a base for example.
    Holding sends the last goal again, and for velocities 0. Stopping sends the measured position, or the last goal if
    it cannot be read, and velocity 0; the torque stays on, because an arm without torque falls. `get_observation` may
    wait for the next camera frame, so the cameras should not be slower than the loop.

    Args:
        robot: connected and calibrated.
        spec: of the policy.
        limits: in the order of `spec.actions`, of positions and velocities; no column is a change.
        period: [s] between commands; None takes the policy's.
        names: name in the spec -> key of the robot, for those that differ.
        prepare: makes a camera's image what the policy needs, for example by resizing; None sends it as it is.
        velocities: keys of the robot's actions that are velocities; None: those that end in `.vel`, where all others
            end in `.pos`.

    Raises:
        InputError: naming every camera, state or action that the robot does not have, a camera of another size, or
            actions that may be positions or velocities.
    """

    def __init__(
        self,
        robot: LeRobot,
        spec: PolicySpec,
        limits: Limits,
        *,
        period: float | None = None,
        names: Mapping[str, str] | None = None,
        prepare: Prepare | None = None,
        velocities: Collection[str] | None = None,
    ) -> None:
        if any(limits.relative):
            raise InputError("a lerobot robot takes goals, not changes; limits.relative must be False in every column")
        self.limits = limits
        self.period = spec.period if period is None else period
        self._robot, self._spec, self._names, self._prepare = robot, spec, dict(names or {}), prepare
        self._actions = [self._key(action.name) for action in spec.actions]
        self._check()
        moving = self._velocities() if velocities is None else self._known(velocities)
        self._moving = np.array([key in moving for key in self._actions])  # (A,) bool
        self._goal = self._measured(robot.get_observation())

    def observe(self) -> Sensed:
        """The newest frames and joint positions."""
        seen = self._robot.get_observation()
        images = {camera.name: self._image(seen, camera) for camera in self._spec.cameras}
        state = np.array([seen[self._key(number.name)] for number in self._spec.state], np.float32)
        return Sensed(images, state if self._spec.state else None)

    def position(self) -> NDArray[np.floating]:
        """The last goal, (A,): reading the bus takes too long to do it for every command."""
        return self._goal

    def apply(self, action: NDArray[np.float32]) -> None:
        """Send goals, (A,); what the robot says it sent, after its own limits, is the new position."""
        sent = self._robot.send_action(dict(zip(self._actions, map(float, action), strict=True)))
        self._goal = np.array([sent[key] for key in self._actions], np.float32)

    def hold(self) -> None:
        """Send the last goal again, with all velocities 0."""
        self._rest(self._goal)

    def stop(self) -> None:
        """Make where the robot is its goal, with all velocities 0; something is sent whatever fails."""
        here = self._goal
        try:
            here = self._measured(self._robot.get_observation())
        except Exception as error:  # a camera that failed must not keep the robot from stopping
            log.warning("cannot read where the robot is (%r): it stops at its last goal", error)
        finally:
            self._rest(here)

    def _rest(self, goal: NDArray[np.float32]) -> None:
        self.apply(np.where(self._moving, np.float32(0), goal))

    def _measured(self, seen: Mapping[str, Any]) -> NDArray[np.float32]:
        return np.array([seen[key] for key in self._actions], np.float32)

    def _image(self, seen: Mapping[str, Any], camera: Camera) -> NDArray[np.uint8]:
        image = np.array(seen[self._key(camera.name)])  # a copy: the camera's thread goes on writing
        return image if self._prepare is None else self._prepare(image, camera)

    def _key(self, name: str) -> str:
        return self._names.get(name, name)

    def _velocities(self) -> list[str]:
        unclear = [key for key in self._actions if not key.endswith((POSITION, VELOCITY))]
        if unclear:
            raise InputError(
                f"actions {unclear} end neither in {POSITION} nor in {VELOCITY}: list the velocities among "
                f"{self._actions}, which are 0 when the robot holds, in `velocities`; () if all are positions"
            )
        return [key for key in self._actions if key.endswith(VELOCITY)]

    def _known(self, velocities: Collection[str]) -> Collection[str]:
        if unknown := sorted(set(velocities) - set(self._actions)):
            raise InputError(f"velocities names {unknown}, which are no actions; the actions are {self._actions}")
        return velocities

    def _check(self) -> None:
        spec, has = self._spec, self._robot.observation_features
        needed = [self._key(item.name) for item in (*spec.cameras, *spec.state)]
        missing = [key for key in (*needed, *self._actions) if key not in has]
        missing += [key for key in self._actions if key not in self._robot.action_features]
        if missing:
            every = sorted({*has, *self._robot.action_features})
            raise InputError(f"the robot has no {sorted(set(missing))}; it has {every}; map names with `names`")
        extra = sorted(set(self._robot.action_features) - set(self._actions))
        if extra:
            raise InputError(f"the robot needs goals for {extra}, the policy gives {self._actions}")
        for camera in spec.cameras:
            shape = tuple(has[self._key(camera.name)])
            if self._prepare is None and shape != (camera.height, camera.width, 3):
                size = f"{camera.height} x {camera.width}"
                raise InputError(f"the policy needs camera {camera.name!r} of {size}, it is {shape}: give `prepare`")
