"""What a language model remembers of each session: keys and values of visual tokens that did not change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from vla.accelerate.lean.decoder import Decoder, KeyValues, ReadPrefix, Reduce, Tokens
from vla.accelerate.temporal.sessions import Remembered, Sessions, alike_in


@dataclass
class Heard:
    """Of one session.

    Attributes:
        keys: and values of its visual tokens, (visual tokens, layers, 2, kv_heads, dim).
        words: (tokens, width), what else tokens saw that see all; None where they see only what is before them.
        age: of the images that they are of, as `Remembered.age`.
    """

    keys: Tensor
    words: Tensor | None
    age: int


class ReadingSessions(Sessions):
    """Sessions of which a language model remembers the visual tokens, too."""

    def reading(self, language: Decoder, start: int) -> ReadPrefix:
        """See `Memory.reading`."""
        return partial(self._prefix, language, start)

    def _prefix(
        self, language: Decoder, start: int, tokens: Tokens, used: int, before: Mapping[int, Sequence[Reduce]] | None
    ) -> tuple[Tokens, KeyValues]:
        """As `Decoder.read`; keys and values of tokens that were not read again come first."""
        known = self.newest
        if not known:  # of no session
            return language.read(tokens, used, before)
        visual = slice(start, start + known[0].tokens.shape[:2].numel())
        words = [None if language.causal else _words(tokens, row, visual) for row in range(len(known))]
        counts = list(map(_to_read, known, words))
        groups, parts = alike_in(counts), []
        for rows in groups:
            if counts[rows[0]] is None:
                read, cache = language.read(_rows(tokens, rows), used, before)
                for place, row in enumerate(rows):
                    known[row].language = Heard(_of_tokens(cache, place, visual), words[row], known[row].age)
                parts.append((read, cache))
            else:
                parts.append(_again(language, visual, _rows(tokens, rows), used, [known[row] for row in rows]))
        return parts[0] if len(parts) == 1 else _joined(parts, [row for rows in groups for row in rows])


def _to_read(known: Remembered, words: Tensor | None) -> int | None:
    """How many tokens of each camera are to be read; None: all, as what they were is not known any more."""
    heard: Heard | None = known.language
    if known.chosen is None or heard is None or known.age - heard.age not in (0, 1):
        return None
    if words is not None and (heard.words is None or not torch.equal(words, heard.words)):
        return None
    return known.chosen.shape[1]


def _again(
    language: Decoder, visual: slice, tokens: Tokens, used: int, known: Sequence[Remembered]
) -> tuple[Tokens, KeyValues]:
    """Read all but static visual tokens, and remember."""
    chosen = torch.stack([_in_all_cameras(each) for each in known])  # (batch, some) of the visual tokens
    visible = torch.ones(len(known), visual.stop - visual.start, dtype=torch.bool, device=chosen.device)
    static = visible.scatter(1, chosen, False).nonzero()[:, 1].view(len(known), -1)
    past = torch.stack([each.language.keys[some] for each, some in zip(known, static, strict=True)])
    past = past.permute(2, 3, 0, 4, 1, 5)  # (layers, 2, batch, kv_heads, static, dim)
    every = torch.arange(tokens.hidden.shape[1], device=chosen.device).expand(len(known), -1)
    fresh = tokens.kept(torch.cat([every[:, : visual.start], visual.start + chosen, every[:, visual.stop :]], dim=1))
    order = torch.cat([tokens.positions.gather(1, visual.start + static), fresh.positions], dim=1)
    attended = torch.cat([torch.ones_like(static, dtype=torch.bool), fresh.attended], dim=1)
    mask = fresh.positions[:, None, :, None] >= order[:, None, None, :] if language.causal else None
    if tokens.padded:
        seen = attended[:, None, None]
        mask = seen if mask is None else mask & seen
    layers = [(key, value) for key, value in past]
    hidden, cache = language.go_on(fresh.hidden, language.turn(fresh.positions), mask, layers, used)
    first = static.shape[1] + visual.start
    for place, each in enumerate(known):
        each.language.keys[chosen[place]] = _of_tokens(cache, place, slice(first, first + chosen.shape[1]))
        each.language.age = each.age
    return replace(tokens, hidden=hidden, positions=order, attended=attended), cache


def _of_tokens(cache: KeyValues, row: int, tokens: slice) -> Tensor:
    """(tokens, layers, 2, kv_heads, dim), in memory of its own."""
    both = torch.stack([torch.stack([key[row, :, tokens], value[row, :, tokens]]) for key, value in cache])
    return both.permute(3, 0, 1, 2, 4).contiguous()


def _in_all_cameras(known: Remembered) -> Tensor:
    """(some,) indices among the visual tokens of all cameras of those that were read again."""
    assert known.chosen is not None
    cameras, patches = known.tokens.shape[:2]
    return (known.chosen + patches * torch.arange(cameras, device=known.chosen.device)[:, None]).flatten()


def _words(tokens: Tokens, row: int, visual: slice) -> Tensor:
    """What a row has beside its visual tokens and padding."""
    hidden, attended = tokens.hidden[row], tokens.attended[row].clone()
    attended[visual] = False
    return hidden[attended]


def _rows(tokens: Tokens, rows: Sequence[int]) -> Tokens:
    if len(rows) == len(tokens.hidden):
        return tokens
    at = torch.tensor(rows, device=tokens.hidden.device)
    return replace(
        tokens, hidden=tokens.hidden[at], positions=tokens.positions[at], attended=tokens.attended[at], sight=None
    )


def _joined(parts: Sequence[tuple[Tokens, KeyValues]], rows: Sequence[int]) -> tuple[Tokens, KeyValues]:
    """Parts of a batch, whose rows are `rows` one after the other, as the batch."""
    back = torch.tensor(rows, device=parts[0][0].hidden.device).argsort()

    def together(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(tensors))[back]

    reads, caches = zip(*parts, strict=True)
    joined = replace(
        reads[0],
        hidden=together([read.hidden for read in reads]),
        positions=together([read.positions for read in reads]),
        attended=together([read.attended for read in reads]),
    )
    layers = zip(*caches, strict=True)
    return joined, [(together([key for key, _ in layer]), together([value for _, value in layer])) for layer in layers]
