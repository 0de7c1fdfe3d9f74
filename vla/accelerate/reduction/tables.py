"""How many visual tokens each language layer needs, measured: PrefixKV's search (arXiv 2412.03409).

A layer keeps the fewest tokens that carry a share of its attention; one share for all layers is searched for so that
they keep a given share of all tokens together. The table is a budget: `{table: [...]}` of the selector `fastv`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vla.accelerate.lean.decoder import Tokens
from vla.accelerate.reduction.calls import Bound, Call, Point
from vla.accelerate.reduction.layout import Layout
from vla.accelerate.reduction.probe import TEXT
from vla.accelerate.stages import TokenReduction
from vla.api import InputError, Observation
from vla.policy import VlaPolicy

_HALVINGS = 60


def measured_table(policy: VlaPolicy, observations: Sequence[Observation], keep: float) -> list[float]:
    """The share of visual tokens that each language layer keeps, mean over observations.

    Args:
        policy: whose recipe runs `lean`; its other techniques stay as they are.
        observations: demonstration frames.
        keep: share of all layers' tokens that is kept on average.

    Raises:
        InputError: if there is no observation, or the share is not above 0 and up to 1.
    """
    if not observations:
        raise InputError("a table needs at least one observation to measure attention on")
    tables = [prefix_table(attention_by_layer(policy, seen), keep) for seen in observations]
    return torch.tensor(tables).mean(dim=0).tolist()


def prefix_table(scores: Tensor, keep: float) -> list[float]:
    """The share of tokens that each layer keeps.

    Args:
        scores: (layers, tokens) attention that each token gets, not negative.
        keep: share of all that is kept.

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
    dropped = _dropped(carried, (low + high) / 2).double()
    dropped = dropped * wanted / dropped.sum().clamp(min=1)
    return (1 - dropped / tokens).clamp(min=1 / tokens).tolist()


def attention_by_layer(policy: VlaPolicy, observation: Observation) -> Tensor:
    """What the text looks at in every language layer, (layers, visual tokens) float32."""
    listening = Listening()
    plugs = {**policy.recipe.plugs, "tokens": (*policy.recipe.plugs["tokens"], listening)}
    policy.with_recipe(replace(policy.recipe, plugs=plugs)).infer(observation)
    return torch.stack([listening.heard[layer] for layer in sorted(listening.heard)])


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
