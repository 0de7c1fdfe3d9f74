"""What a selector is shown, camera by camera, and taking tokens out of a sequence so that nothing else changes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor

from vla.accelerate.lean.decoder import Tokens
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.watching import note

Choose = Callable[["Seen", int], Tensor]


class Seen:
    """The visual tokens of neighbouring cameras that have the same number of them; each camera is a row of its own.

    Attributes:
        tokens: (rows, n, width) hidden states; rows are session by session, within a session camera by camera.
        patches: (rows, n) int64 index of each token's patch in its camera.
        grid: rows and columns of patches of a camera.
        cameras: how many of them.
    """

    def __init__(self, sequence: Tokens, first: int, cameras: int, count: int) -> None:
        assert sequence.sight is not None
        self._sequence, self._sight = sequence, sequence.sight
        self._inside = slice(first, first + cameras * count)
        self.cameras, self._count = cameras, count
        start = self._sight.start + first
        self._columns = slice(start, start + cameras * count)
        self.tokens = self._rows(sequence.hidden[:, self._columns])
        self.patches = self._rows(self._sight.patches[:, self._inside])
        self.grid = self._sight.layout.grid

    @property
    def features(self) -> Tensor:
        """(rows, n, vision_width) of the tokens before the projector."""
        assert self._sight.features is not None
        return self._rows(self._sight.features[:, self._inside])

    @property
    def words(self) -> tuple[Tensor, Tensor]:
        """Embeddings of the instruction's words (rows, words, width), and which are no padding (rows, words)."""
        before, after = self._sight.words
        span = slice(self._sight.end + before, self._sequence.hidden.shape[1] - after)
        embedded, spoken = self._sequence.hidden[:, span], self._sequence.attended[:, span]
        return embedded.repeat_interleave(self.cameras, 0), spoken.repeat_interleave(self.cameras, 0)

    def attention(self, rows: str, *, rope: bool, apart: bool, layer: str = "previous") -> Tensor:
        """What the context looks at in the layer before, or would in the next one, (rows, n) float32.

        See `vla.accelerate.reduction.probe.Probe.attention`; `apart` counts each camera for itself.
        """
        probe = self._sequence.probe
        assert probe is not None
        if layer == "next":
            probe = probe.next(self._sequence.hidden)
        end = self._sight.end
        if not apart:
            return self._rows(probe.attention(rows, end, self._columns, rope=rope, apart=False))
        starts = range(self._columns.start, self._columns.stop, self._count)
        each = [probe.attention(rows, end, slice(s, s + self._count), rope=rope, apart=True) for s in starts]
        return torch.stack(each, dim=1).flatten(0, 1)

    def _rows(self, of_cameras: Tensor) -> Tensor:
        return of_cameras.unflatten(1, (self.cameras, self._count)).flatten(0, 1)


def keep(name: str, choose: Choose, counts: Sequence[int], sequence: Tokens) -> Tokens:
    """The sequence with only so many visual tokens of each camera; all others stay, and positions too.

    Args:
        name: of the method.
        choose: (what is seen, n) -> (rows, n) indices of the tokens that stay, ascending.
        counts: for each camera.
    """
    assert sequence.sight is not None
    parts = []
    for first, cameras, now, left in alike(sequence.sight.layout.counts, counts):
        chosen = choose(Seen(sequence, first, cameras, now), left).unflatten(0, (-1, cameras))
        starts = first + now * torch.arange(cameras, device=chosen.device)[:, None]
        parts.append((chosen + starts).flatten(1))  # (batch, cameras * left)
    return taken(name, sequence, torch.cat(parts, dim=1), sequence.sight.layout.left(tuple(counts)))


def taken(name: str, sequence: Tokens, inside: Tensor, layout: Layout) -> Tokens:
    """The sequence with only the visual tokens at (batch, kept) indices among them."""
    sight = sequence.sight
    assert sight is not None
    batch, total = sequence.attended.shape
    every = torch.arange(total, device=inside.device).expand(batch, -1)
    index = torch.cat([every[:, : sight.start], sight.start + inside, every[:, sight.end :]], dim=1)
    left = sight.kept(inside, layout)
    note(name, layout, left.patches)
    return replace(sequence.kept(index), sight=left)


def alike(now: Sequence[int], left: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Neighbouring cameras with the same numbers: first token, how many cameras, tokens of each now and afterwards."""
    first = 0
    for (before, after), group in groupby(zip(now, left, strict=True)):
        cameras = len(list(group))
        yield first, cameras, before, after
        first += cameras * before


def top(scores: Tensor, count: int) -> Tensor:
    """(rows, count) indices of the highest scores, ascending; of equal ones, the first."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[..., :count].sort(dim=-1).values
