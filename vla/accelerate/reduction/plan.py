"""The token techniques of one recipe in one model: what runs at which point, in the order of the points."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.lean.decoder import Reduce, Sight, Tokens, sequence
from vla.accelerate.reduction.calls import Bound, Call, Features, Place, Point
from vla.accelerate.reduction.layout import Layout, Visual
from vla.accelerate.reduction.merging import SELECT
from vla.accelerate.reduction.watching import note
from vla.accelerate.stages import TokenReduction
from vla.api import InputError
from vla.timing import part

_ALONE = {
    Point.ENCODER: "inside the vision tower",
    Point.FEATURES: "between vision tower and projector",
    Point.POSITIONS: "on positions",
}
_EXCLUDE = (
    "tokens: {} and {} exclude each other: after a budget by mass every session has another number of tokens, of which "
    "no method can take out a known number; give a number or a share, or put the budget by mass last"
)

_READ_ON = (
    "tokens: proportional: true and {} exclude each other in this model: what follows the prefix reads all layers by "
    "one mask, whatever visual tokens each has; leave out one of them"
)


class Plan:
    """What the techniques of a recipe do in a model.

    Args:
        techniques: in the recipe's order, which decides between those at the same point.
        layout: of all visual tokens of the model.

    Attributes:
        merger: what merges inside the vision tower; None: nothing does.
        statistics: whether the tower's last block is to be watched.
        before: language layer -> what is done to the tokens in front of it; 0: after the projector.

    Raises:
        InputError: if one does not fit the model, or what the ones before it leave, or two exclude each other.
    """

    def __init__(self, techniques: Sequence[TokenReduction], layout: Layout) -> None:
        calls = [(call, technique) for technique in techniques for call in technique.calls(layout)]
        _check_alone(calls)
        self._full, self._some = layout, bool(techniques)
        self._keeps_features = any(technique.features for technique in techniques)
        self._counted = any(technique.counted for technique in techniques)
        self.merger: Any = None
        self._resample: Callable[[Features], Features] | None = None
        self._place: Place | None = None
        self.before: dict[int, list[Reduce]] = {}
        uneven: TokenReduction | None = None
        for call, technique in sorted(calls, key=lambda pair: (pair[0].point, pair[0].layer)):
            bound = call.bind(layout)
            takes = call.point == Point.SEQUENCE and (technique.dynamic or bound.layout != layout)
            if takes and uneven is not None:
                raise InputError(_EXCLUDE.format(uneven.method, technique.method))
            if takes and call.layer > 0 and self._counted and self.merger is not None and layout.read_on:
                raise InputError(_READ_ON.format(technique.method))
            uneven = technique if takes and technique.dynamic else uneven
            self._add(call, bound)
            layout = bound.layout
            if call.point <= Point.FEATURES:
                self._encoded, self._encoder_method = layout, technique.method
        self.statistics = self._resample is not None and any(technique.statistics for technique in techniques)

    _encoder_method: str | None = None

    @property
    def of_encoder(self) -> bool:
        """Whether `encode` gives more than the tokens of all patches."""
        return self._keeps_features or self.merger is not None or self._resample is not None

    def visual(self, found: Features, projected: Callable[[Tensor], Tensor], cameras: int) -> Visual:
        """What `encode` gives: the features of single images, resampled, projected, and session by session."""
        if self._resample is not None:
            with part(SELECT):
                found = self._resample(found)
        features = found.tokens if self._keeps_features else None

        def together(of_images: Tensor) -> Tensor:
            return of_images.unflatten(0, (-1, cameras)).flatten(1, 2)

        visual = Visual(
            together(projected(found.tokens)),
            together(found.patches),
            None if found.owner is None else together(found.owner),
            None if features is None else together(features),
            together(_log_sizes(found)) if self._counted and found.owner is not None else None,
        )
        if self._encoder_method is not None:
            note(self._encoder_method, self._encoded, visual.patches)
        return visual

    def tokens_of(self, visual: Tensor | Visual) -> Tensor:
        """(batch, tokens, width)."""
        return visual.tokens if isinstance(visual, Visual) else visual

    def begin(
        self, visual: Tensor | Visual, embeddings: Tensor, attended: Tensor, start: int, words: tuple[int, int]
    ) -> Tokens:
        """The sequence that the language model reads, every token at the position it would have if all were there.

        Args:
            visual: as `encode` gave it.
            embeddings, attended: of the sequence with these visual tokens.
            start, words: as `Sight` says.
        """
        tokens = sequence(embeddings, attended)
        if not self._some:
            return tokens
        batch, cameras = len(embeddings), len(self._full.counts)
        if isinstance(visual, Visual):
            patches, owner, features = visual.patches, visual.owner, visual.features
        else:
            every = torch.arange(self._full.patches, device=embeddings.device)
            patches, owner, features = every.repeat(cameras).expand(batch, -1), None, None
        layout = self._full.left((patches.shape[1] // cameras,) * cameras)
        sight = Sight(start, layout, patches, features, words)
        positions = self._positions(tokens.positions, sight, owner)
        bias = visual.bias if isinstance(visual, Visual) else None
        if bias is not None:
            bias = functional.pad(bias, (start, embeddings.shape[1] - start - bias.shape[1]))
        return Tokens(tokens.hidden, positions, attended, tokens.padded, sight, bias=bias)

    def _positions(self, packed: Tensor, sight: Sight, owner: Tensor | None) -> Tensor:
        """(batch, tokens) or (batch, tokens, groups): `packed` as if no visual token were missing."""
        layout, patches = sight.layout, sight.patches
        cameras, count = len(layout.counts), layout.counts[0]
        after = packed[:, sight.end :] + cameras * (layout.patches - count)
        first = sight.start + layout.patches * torch.arange(cameras, device=packed.device).repeat_interleave(count)
        if self._place is None:
            return torch.cat([packed[:, : sight.start], first + patches, after], dim=1)
        rows = patches.unflatten(1, (cameras, count)).flatten(0, 1)
        owners = None if owner is None else owner.unflatten(1, (cameras, -1)).flatten(0, 1)
        with part(SELECT):
            chosen = self._place.positions(rows, owners)  # (batch * cameras, count, groups)
        inside = first[:, None] + chosen.unflatten(0, (-1, cameras)).flatten(1, 2)
        spread = (-1, -1, self._place.groups)
        ends = [packed[:, : sight.start, None].expand(spread), after[:, :, None].expand(spread)]
        return torch.cat([ends[0], inside, ends[1]], dim=1)

    def _add(self, call: Call, bound: Bound) -> None:
        if bound.act is None:
            return
        if call.point == Point.ENCODER:
            self.merger = bound.act
        elif call.point == Point.FEATURES:
            self._resample = bound.act
        elif call.point == Point.POSITIONS:
            self._place = bound.act
        else:
            self.before.setdefault(call.layer, []).append(_timed(bound.act))


def _log_sizes(found: Features) -> Tensor:
    """Logarithm of how many patches went into each token, (rows, tokens); of a token without any as of one."""
    assert found.owner is not None
    none = torch.zeros(found.tokens.shape[:2], device=found.owner.device)
    sizes = none.scatter_add(1, found.owner.clamp(min=0), (found.owner >= 0).float())
    return sizes.clamp(min=1).log().to(found.tokens.dtype)


def _timed(act: Callable[[Tokens], Tokens]) -> Reduce:
    def run(layer: int, tokens: Tokens) -> Tokens:
        with part(SELECT):
            return act(tokens)

    return run


def _check_alone(calls: Sequence[tuple[Call, TokenReduction]]) -> None:
    for point, where in _ALONE.items():
        names = [technique.method for call, technique in calls if call.point == point]
        if len(names) > 1:
            raise InputError(f"tokens: {' and '.join(names)} exclude each other: both act {where}; name one of them")
