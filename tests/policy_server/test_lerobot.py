"""A lerobot robot, faked by its interface, driven by the control loop."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policy_server.adapters.lerobot import LeRobotArm
from policy_server.control_loop import ControlLoop
from policy_server.robot import Limits
from tests.policy_server.arms import FINE, Delayed, FakeClock, Numbered
from vla.api import Camera, InputError, Quantity
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
    with pytest.raises(InputError, match="takes positions"):
        LeRobotArm(Follower(), SPEC, Limits.none([True] * 3))
