"""How many visual tokens each language layer needs, measured: PrefixKV's search (arXiv 2412.03409).

A layer keeps the fewest tokens that carry a share of its attention; one share for all layers is searched for so that
they keep a given share of all tokens together. `cadence-calibrate` stores what it finds on demonstrations, and the
budget `{measured: <share>}` of the selector `fastv` takes it from there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vla.accelerate.execution.lean import Lean
from vla.accelerate.lean.decoder import Tokens
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.probe import TEXT
from vla.accelerate.stages import TokenReduction
from vla.api import InputError, Observation
from vla.calibration.stored import OF_TOKENS
from vla.policy import VlaPolicy

_HALVINGS = 60


def prefix_tables(attention: Sequence[Tensor]) -> dict[str, list[float]]:
    """The share of visual tokens that each language layer keeps at every budget of a calibration, mean over frames.

    Args:
        attention: of each frame, as `attention_by_layer` gives it.
    """
    return {
        budget: torch.tensor([prefix_table(scores, float(budget)) for scores in attention]).mean(dim=0).tolist()
        for budget in OF_TOKENS
    }


def prefix_table(scores: Tensor, keep: float) -> list[float]:
    """The share of tokens that each layer keeps; with a larger budget no layer keeps less.

    Args:
        scores: (layers, tokens) attention that each token gets, not negative.
        keep: share of all layers' tokens that is kept; the table's mean, unless a layer would have less than one token.

    Raises:
        InputError: if the share is not above 0 and up to 1.
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep must be a share above 0 and up to 1, got {keep!r}")
    carried = scores.double().sort(dim=1, descending=True).values.cumsum(dim=1)
    carried = carried / carried[:, -1:]
    tokens, wanted = scores.shape[1], (1 - keep) * scores.numel()
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if float(_dropped(carried, middle).sum()) < wanted else (middle, high)
    return (1 - _between(_dropped(carried, high), _dropped(carried, low), wanted) / tokens).tolist()


def attention_by_layer(policy: VlaPolicy) -> Callable[[Observation], Tensor]:
    """What the text looks at in every language layer of a policy: observation -> (layers, visual tokens) float32.

    Args:
        policy: its model has two layers or more; the techniques of its recipe stay as they are.
    """
    listening = Listening()
    tokens, lean = (*policy.recipe.plugs["tokens"], listening), Lean(graphs=False)  # a recording would not be heard
    plugs = {**policy.recipe.plugs, "tokens": tokens, "execution": (lean,)}
    listened = policy.with_recipe(replace(policy.recipe, plugs=plugs))

    def attention(observation: Observation) -> Tensor:
        listened.infer(observation)
        return torch.stack([listening.heard[layer] for layer in sorted(listening.heard)])

    return attention


@dataclass(frozen=True)
class Listening(TokenReduction):
    """Takes no token out, and notes the attention of all layers of the newest answer.

    Attributes:
        heard: language layer -> (visual tokens,) of the first session.
    """

    heard: dict[int, Tensor] = field(default_factory=dict)

    def calls(self, layout: Layout) -> list[Call]:
        return [
            Call(Point.SEQUENCE, layer, lambda now, layer=layer: Bound(now, lambda seen: self._note(layer, now, seen)))
            for layer in range(1, layout.depth)
        ]

    def _note(self, layer: int, now: Layout, sequence: Tokens) -> Tokens:
        """Note the layer before, and in front of the last layer that one too."""
        sight, probe = sequence.sight, sequence.probe
        assert sight is not None
        assert probe is not None
        columns = slice(sight.start, sight.end)
        asked = {layer - 1: probe}
        if layer == now.depth - 1:
            asked[layer] = probe.next(sequence.hidden)
        for number, each in asked.items():
            self.heard[number] = each.attention(TEXT, sight.end, columns, rope=True, apart=False)[0].cpu()
        return sequence


def _dropped(carried: Tensor, share: float) -> Tensor:
    """(layers,) tokens beyond those that carry this share."""
    level = torch.full_like(carried[:, :1], share)
    return (carried.shape[1] - (torch.searchsorted(carried, level)[:, 0] + 1)).clamp(min=0)


def _between(fewer: Tensor, more: Tensor, wanted: float) -> Tensor:
    """(layers,) so many dropped in all: what is missing at the threshold's last jump is shared in proportion."""
    fewer, more = fewer.double(), more.double()
    if fewer.sum() > wanted:  # tokens without any attention: even the whole of it leaves them out
        fewer, more = torch.zeros_like(fewer), fewer
    jump = (more - fewer).sum()
    return fewer if jump == 0 else fewer + (more - fewer) * ((wanted - fewer.sum()) / jump).clamp(max=1)
