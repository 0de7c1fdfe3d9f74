"""A lerobot robot, faked by its interface, driven by the control loop."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy_server.adapters.lerobot import LeRobotArm
from policy_server.control_loop import ControlLoop
from policy_server.robot import Limits
from tests.policy_server.arms import FINE, NEVER, PERIOD, Delayed, FakeClock, Numbered
from vla.api import Camera, InputError, PolicySpec, Quantity
from vla.chunking import OpenLoop

JOINTS = ("shoulder_pan.pos", "elbow_flex.pos", "gripper.pos")
SPEC = replace(
    FINE,
    cameras=(Camera("front", 4, 6),),
    state=tuple(Quantity(joint, "deg") for joint in JOINTS),
    actions=tuple(Quantity(joint, "deg") for joint in JOINTS),
)
LIMITS = Limits([False] * 3, [2.0] * 3, [-90.0] * 3, [90.0] * 3)


class Follower:
    """What `lerobot.robots.Robot` promises: flat dictionaries in and out, its own cap on goals."""

    action_features: Mapping[str, Any] = dict.fromkeys(JOINTS, float)
    observation_features: Mapping[str, Any] = {"front": (4, 6, 3), **action_features}

    def __init__(self) -> None:
        self.at: dict[str, Any] = dict.fromkeys(JOINTS, 1.0)
        self.sent: list[dict[str, Any]] = []
        self.frame = np.zeros((4, 6, 3), np.uint8)

    def get_observation(self) -> dict[str, Any]:
        return {**self.at, "front": self.frame}

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        assert all(type(value) is float for value in action.values())
        self.sent.append(action)
        self.at = {joint: min(goal, 5.0) for joint, goal in action.items()}
        return self.at


def test_the_loop_drives_it_within_its_limits_from_where_it_is() -> None:
    follower, policy, clock = Follower(), Numbered(SPEC), FakeClock()
    arm = LeRobotArm(follower, SPEC, LIMITS)
    loop = ControlLoop(arm, policy, OpenLoop(8), clock=clock, asker=Delayed(policy, clock, [1]))
    loop.run("lift", "s", ticks=6)
    # Held at 1, then rows 0, 1, 2, 3, 4 in every joint, and held at the end.
    assert [sent[JOINTS[0]] for sent in follower.sent] == [1, 0, 1, 2, 3, 4, 4]
    assert [set(sent) for sent in follower.sent] == [set(JOINTS)] * 7
    (seen,) = policy.seen
    assert seen.state is not None
    assert seen.state.tolist() == [1, 1, 1]
    assert seen.images["front"] is not follower.frame


def test_a_goal_that_the_robot_caps_is_where_it_stands() -> None:
    follower = Follower()
    arm = LeRobotArm(follower, SPEC, LIMITS)
    arm.apply(np.full(3, 50.0, np.float32))
    assert arm.position().tolist() == [5, 5, 5]
    arm.hold()
    assert list(follower.sent[-1].values()) == [5, 5, 5]


def test_stopping_makes_where_the_arm_is_its_goal() -> None:
    follower = Follower()
    arm = LeRobotArm(follower, SPEC, LIMITS)
    arm.apply(np.full(3, 4.0, np.float32))
    follower.at = dict.fromkeys(JOINTS, 2.5)
    arm.stop()
    assert list(follower.sent[-1].values()) == [2.5, 2.5, 2.5]


@pytest.mark.parametrize("error", [TimeoutError("the newest frame is 501 ms old"), KeyError("elbow_flex.pos")])
def test_stopping_sends_the_last_goal_if_the_robot_cannot_be_read(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Blind(Follower):
        broken = False

        def get_observation(self) -> dict[str, Any]:
            if self.broken:
                raise error
            return super().get_observation()

    follower, clock, policy = Blind(), FakeClock(), Numbered(SPEC)
    loop = ControlLoop(
        LeRobotArm(follower, SPEC, LIMITS), policy, OpenLoop(2), clock=clock, asker=Delayed(policy, clock)
    )
    loop.begin("lift", "s")
    for _ in range(2):
        loop.tick()
    follower.broken = True
    with pytest.raises(type(error)):  # what the loop met; the stop itself does not fail
        loop.tick()
    assert [sent[JOINTS[0]] for sent in follower.sent] == [0, 1, 1]
    assert "stops at its last goal" in caplog.text


def test_stopping_sends_something_even_when_it_is_interrupted() -> None:
    follower = Follower()
    arm = LeRobotArm(follower, SPEC, LIMITS)

    def interrupted() -> dict[str, Any]:
        raise KeyboardInterrupt

    follower.get_observation = interrupted
    with pytest.raises(KeyboardInterrupt):
        arm.stop()
    assert [set(sent.values()) for sent in follower.sent] == [{1.0}]


class Rover(Follower):
    """A base that is told velocities, and a gripper on it."""

    keys = ("gripper.pos", "x.vel", "theta.vel")
    action_features: Mapping[str, Any] = dict.fromkeys(keys, float)
    observation_features: Mapping[str, Any] = action_features

    def __init__(self) -> None:
        super().__init__()
        self.at = dict.fromkeys(self.keys, 0.5)


def spec_of(keys: Sequence[str]) -> PolicySpec:
    quantities = tuple(Quantity(key, "1") for key in keys)
    return replace(SPEC, cameras=(), state=quantities, actions=quantities)


def test_a_base_does_not_roll_on_while_it_holds_or_after_it_stopped() -> None:
    rover, spec, clock = Rover(), spec_of(Rover.keys), FakeClock()
    policy = Numbered(spec)
    arm = LeRobotArm(rover, spec, Limits.none([False] * 3))
    loop = ControlLoop(
        arm, policy, OpenLoop(3), clock=clock, asker=Delayed(policy, clock, [0, NEVER]), stop_after=2 * PERIOD
    )
    assert loop.run("drive", "s", ticks=20).stopped
    assert [tuple(sent.values()) for sent in rover.sent] == [
        *[(0, 0, 0), (1, 1, 1), (2, 2, 2)],  # the policy's
        *[(2, 0, 0), (2, 0, 0)],  # held
        (2, 0, 0),  # stopped
    ]
    assert arm.position().tolist() == [2, 0, 0]


def test_a_base_stands_before_the_first_answer_whatever_it_did_before() -> None:
    rover = Rover()
    LeRobotArm(rover, spec_of(Rover.keys), Limits.none([False] * 3)).hold()
    assert list(rover.sent[0].values()) == [0.5, 0, 0]


class Foreign(Rover):
    """Names that do not say what they are."""

    keys = ("arm.q", "base.vx")
    action_features: Mapping[str, Any] = dict.fromkeys(keys, float)
    observation_features: Mapping[str, Any] = action_features


def test_who_names_actions_otherwise_must_say_which_are_velocities() -> None:
    spec, limits = spec_of(Foreign.keys), Limits.none([False] * 2)
    with pytest.raises(
        InputError, match=r"\['arm.q', 'base.vx'\] end neither in .pos nor in .vel: list the velocities"
    ):
        LeRobotArm(Foreign(), spec, limits)
    with pytest.raises(InputError, match=r"velocities names \['base.vy'\], which are no actions; the actions are"):
        LeRobotArm(Foreign(), spec, limits, velocities=["base.vy"])
    for velocities, held in ((["base.vx"], [0.5, 0]), ((), [0.5, 0.5])):
        robot = Foreign()
        LeRobotArm(robot, spec, limits, velocities=velocities).hold()
        assert list(robot.sent[0].values()) == held


def test_names_are_mapped_and_images_prepared() -> None:
    small = replace(SPEC, cameras=(Camera("base", 2, 3),))
    arm = LeRobotArm(Follower(), small, LIMITS, names={"base": "front"}, prepare=lambda image, camera: image[::2, ::2])
    assert arm.observe().images["base"].shape == (2, 3, 3)


def test_a_robot_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match=r"the robot has no \['wrist'\]; it has \['elbow_flex.pos', 'front'"):
        LeRobotArm(Follower(), replace(SPEC, cameras=(Camera("wrist", 4, 6),)), LIMITS)
    with pytest.raises(InputError, match=r"camera 'front' of 224 x 224, it is \(4, 6, 3\): give `prepare`"):
        LeRobotArm(Follower(), replace(SPEC, cameras=(Camera("front", 224, 224),)), LIMITS)
    with pytest.raises(InputError, match=r"needs goals for \['elbow_flex.pos', 'gripper.pos'\]"):
        LeRobotArm(Follower(), replace(SPEC, actions=SPEC.actions[:1]), LIMITS)
    with pytest.raises(InputError, match="takes goals, not changes"):
        LeRobotArm(Follower(), SPEC, Limits.none([True] * 3))
