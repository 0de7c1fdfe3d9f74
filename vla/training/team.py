"""Processes that train one model together: each learns from its share of a batch, and all take the same step.

Processes of one thread each wait for each other once a step, threads of one process after every operation.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed


class LostMember(RuntimeError):
    """Another process of the team ended before the training did."""


@dataclass(frozen=True)
class Team:
    """One process's view of the team; alone it does nothing.

    Attributes:
        number: of this process; 0 writes the files.
        size: processes.
        meeting: file that all of them find each other by.
    """

    number: int = 0
    size: int = 1
    meeting: Path = Path("meeting")

    @property
    def leads(self) -> bool:
        return self.number == 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Wait for the others, and leave them at the end."""
        if self.size == 1:
            yield
            return
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        distributed.init_process_group(
            "gloo", f"file://{self.meeting.resolve()}", rank=self.number, world_size=self.size
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def average(self, parameters: Iterable[Tensor]) -> None:
        """Replace gradients by their mean over the team.

        Raises:
            LostMember: if another process has ended.
        """
        if self.size == 1:
            return
        gradients = [each.grad for each in parameters if each.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        try:
            distributed.all_reduce(together)
        except RuntimeError as error:
            raise LostMember(f"a process of the {self.size} that train together has ended: {error}") from error
        together /= self.size
        for gradient, mean in zip(gradients, together.split([each.numel() for each in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


@contextmanager
def helped(team: Team, work: Callable[[Any, int], None], options: Any) -> Iterator[None]:
    """Let the other members do `work(options, number)`, a function of a module, in processes of their own meanwhile."""
    team.meeting.unlink(missing_ok=True)  # of a run that was killed
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=work, args=(options, each), daemon=True) for each in range(1, team.size)]
    try:
        for other in others:
            other.start()
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()
        team.meeting.unlink(missing_ok=True)
