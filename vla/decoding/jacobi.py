"""Jacobi decoding: guess all words, read them at once, take what the model says instead, until nothing changes.

A fixed point of greedy decoding, reached without training in at most as many passes (PD-VLA, arXiv 2503.02310). The
first guess is the chunk that the session was answered before, moved on by the time in between: robots go on doing what
they do.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from vla.accelerate.stages import Decoding
from vla.decoding.decoder import Decoder, Pen, Relaxed, verified
from vla.decoding.limits import check_block, check_relax

MOST_SESSIONS = 1024  # the one not heard of for longest is forgotten first; a word takes 8 bytes


@dataclass(frozen=True)
class Jacobi(Decoding):
    """Fixed point of greedy decoding.

    Args:
        block: words read at once; None: all that are left.
        warm: whether to begin with the session's chunk before; else with actions in the middle of their range.
        relax: bins that a guess may be off; above 0 decoding is no longer exact.

    Raises:
        InputError: on a value outside its range.
    """

    block: int | None = None
    warm: bool = True
    relax: int = 0
    IDENTITY: ClassVar[None] = None  # the same words, but read several at once: rounding may differ

    def __post_init__(self) -> None:
        super().__post_init__()
        check_relax("jacobi", self.relax)

    def unfit(self, model: Any) -> str | None:
        return super().unfit(model) or check_block(self.block, model)

    def decoder(self) -> Decoder:
        return JacobiDecoder(self)


class JacobiDecoder(Decoder):
    """Remembers each session's last chunk.

    Args:
        how: options.
    """

    def __init__(self, how: Jacobi) -> None:
        super().__init__(self._write_and_remember, how.cache, remembers=how.warm)
        self._how = how
        self._frames: Sequence[Any] = ()
        self._known: OrderedDict[str, tuple[int, Tensor]] = OrderedDict()  # session -> step, (words,) of its chunk

    def begin(self, frames: Sequence[Any]) -> None:
        """See `Decoder.begin`."""
        self._frames = frames

    def forget(self, session: str) -> None:
        """See `Decoder.forget`."""
        self._known.pop(session, None)

    def _write_and_remember(self, pen: Pen, count: int) -> Tensor:
        first = pen.following()
        frames, self._frames = self._frames, ()
        words = self._write_from(pen, first, self._guess(pen, frames, first, count))
        if self._how.warm:
            for frame, row in zip(frames, words.cpu(), strict=False):  # no frames: nobody said whose words these are
                self._known[frame.session] = (frame.step, row)
                self._known.move_to_end(frame.session)
                if len(self._known) > MOST_SESSIONS:
                    self._known.popitem(last=False)
        return words

    def _write_from(self, pen: Pen, known: Tensor, guess: Tensor) -> Tensor:
        """(batch, words) from the first word (batch, 1) and a guess (batch, words) of all."""
        count = guess.shape[1]
        while (done := known.shape[1]) < count:
            guesses = min(count - done, self._how.block or count) - 1
            draft = guess[:, done : done + guesses]
            words, rest = verified(pen, known[:, -1:], draft, Relaxed(self._how.relax))
            known = torch.cat([known, words], dim=1)
            guess[:, known.shape[1] : known.shape[1] + rest.shape[1]] = rest
        return known

    def _guess(self, pen: Pen, frames: Sequence[Any], first: Tensor, count: int) -> Tensor:
        """(batch, count) int64."""
        rows = [self._moved_on(frame, pen.numbers) for frame in frames] or [None] * len(first)
        middle = torch.full((count,), pen.middle)
        return torch.stack([middle if row is None else row for row in rows]).to(first.device)

    def _moved_on(self, frame: Any, numbers: int) -> Tensor | None:
        """The session's chunk from this step on, its last action repeated at the end; None if it is of no use.

        The same step asked again is measured, not controlled: its own answer would be no guess.
        """
        if frame.session not in self._known:
            return None
        step, words = self._known[frame.session]
        passed = frame.step - step
        if not 0 < passed < len(words) // numbers:
            return None
        return torch.cat([words[passed * numbers :], words[-numbers:].repeat(passed)])


TECHNIQUE = Jacobi
