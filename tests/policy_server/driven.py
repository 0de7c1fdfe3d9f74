"""A control loop whose ticks the test makes; it waits for the policy's thread and for nothing else."""

import numpy as np

from policy_server.asking import Background
from policy_server.control_loop import Command, ControlLoop
from policy_server.robot import Sensed
from tests.policies import SPEC
from tests.policy_server.arms import Arm, FakeClock
from vla.api import Policy
from vla.chunking import Chunking, OpenLoop

PATIENCE = 20.0


class Seeing(Arm):
    """An arm with the cameras and the period of SPEC."""

    def __init__(self) -> None:
        super().__init__(period=SPEC.period)

    def observe(self) -> Sensed:
        images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in SPEC.cameras}
        return Sensed(images, super().observe().state)


class Driven:
    """Executes one row of each chunk, so that every action needs an answer, unless told to chunk otherwise."""

    def __init__(self, policy: Policy, instruction: str = "lift", chunking: Chunking | None = None) -> None:
        self.arm, self.clock = Seeing(), FakeClock()
        self.asker = Background(policy)
        patience = {"stop_after": 1000.0, "max_age": 1000.0}
        chunking = chunking or OpenLoop(1)
        self.loop = ControlLoop(self.arm, policy, chunking, clock=self.clock, asker=self.asker, **patience)
        self.loop.begin(instruction, "s")

    def tick(self) -> Command:
        self.clock.advance(SPEC.period)
        return self.loop.tick()

    def settle(self) -> None:
        """Wait until no question is under way whose answer is missing."""
        assert not self.asker.busy or self.asker.wait(PATIENCE)

    def next_action(self, ticks: int = 50) -> None:
        """Tick until an action was executed, each time after the policy's thread has answered."""
        for _ in range(ticks):
            if self.tick() is Command.ACTION:
                return
            self.settle()
        raise AssertionError(f"no action in {ticks} ticks: {self.loop.report}")

    def next_error(self, ticks: int = 50) -> None:
        """Tick until the policy failed once more, holding meanwhile."""
        before = self.loop.report.interventions["policy_error"]
        for _ in range(ticks):
            assert self.tick() is Command.HOLD
            self.settle()
            if self.loop.report.interventions["policy_error"] > before:
                return
        raise AssertionError(f"no error in {ticks} ticks: {self.loop.report}")
