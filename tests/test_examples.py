"""The examples run as they are, over TCP."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from policy_server.control_loop import ControlLoop
from policy_server.server import PolicyServer
from tests.policy_server.arms import Delayed, FakeClock, Numbered
from vla.api import ActionChunk, Camera, Observation, PolicySpec, Quantity

EXAMPLES = Path(__file__).parent.parent / "examples"
WIDOWX = PolicySpec(
    cameras=(Camera("3rd_view_camera", 224, 224),),
    state=tuple(Quantity(name, "1") for name in "abcdefg"),
    actions=tuple(Quantity(name, "1") for name in "abcdefg"),
    horizon=16,
    period=0.2,
    model="still",
)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_robot_client_is_short_and_drives_its_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert len((EXAMPLES / "robot_client.py").read_text().splitlines()) < 80
    with PolicyServer(Numbered(WIDOWX)) as server:
        assert example("robot_client").main([server.endpoint, "lift", "--seconds", "1"]) == 0
    assert "5 periods: " in capsys.readouterr().out


@pytest.mark.parametrize("faults", [[], ["--faults"]])
def test_the_simulated_arm_is_driven_over_tcp(faults: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert example("simulated_arm").main(["--seconds", "1", *faults]) == 0
    assert "50 periods: " in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["open_loop", "ensemble", "rtc"])
def test_the_simulated_arm_reaches_what_it_is_told_in_every_mode(mode: str) -> None:
    module, clock = example("simulated_arm"), FakeClock()
    policy = module.Reach(latency=0)
    arm = module.SimulatedArm(policy.spec)
    asker = Delayed(policy, clock, [3], arm.period)
    ControlLoop(arm, policy, module.MODES[mode](), clock=clock, asker=asker).run("reach 0.3 -0.2 0.25", "s", 400)
    np.testing.assert_allclose(arm.at[:3], [0.3, -0.2, 0.25], atol=0.02)


def test_the_simulated_arm_takes_any_policy() -> None:
    arm = example("simulated_arm").SimulatedArm(WIDOWX)
    sensed = arm.observe()
    assert sensed.state is not None
    observation = Observation(sensed.images, "lift", sensed.state)
    WIDOWX.check(observation)
    assert isinstance(Numbered(WIDOWX).infer(observation), ActionChunk)
