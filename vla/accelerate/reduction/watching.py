"""Looking over a selector's shoulder: which tokens it kept, for pictures and tests; costs nothing when nobody looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from torch import Tensor

from vla.accelerate.reduction.layout import Layout


class Kept(NamedTuple):
    """What one method left.

    Attributes:
        method: its name.
        layout: of the tokens from there on.
        patches: (batch, tokens) int64 index of each token's patch in its camera.
    """

    method: str
    layout: Layout
    patches: Tensor


_watcher: ContextVar[list[Kept] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching() -> Iterator[list[Kept]]:
    """Collects what every method left meanwhile, in the order in which they acted."""
    kept: list[Kept] = []
    before = _watcher.set(kept)
    try:
        yield kept
    finally:
        _watcher.reset(before)


def note(method: str, layout: Layout, patches: Tensor) -> None:
    """Tell whoever looks."""
    if (kept := _watcher.get()) is not None:
        kept.append(Kept(method, layout, patches))
