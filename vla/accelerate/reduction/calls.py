"""Where a token technique acts, and what it is given there."""

from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

from torch import Tensor

from vla.accelerate.reduction.layout import Layout


class Point(IntEnum):
    """Points of a model at which visual tokens can change, in the order in which an answer passes them."""

    ENCODER = 0  # inside blocks of the vision tower: a `vla.accelerate.reduction.merging.Merger`
    FEATURES = 1  # between vision tower and projector: `Features` -> `Features`
    POSITIONS = 2  # what position each token has in the language model: a `Place`
    SEQUENCE = 3  # after the projector (layer 0) or in front of a language layer: `Tokens` -> `Tokens`


class Features(NamedTuple):
    """Patches of single images between vision tower and projector.

    Attributes:
        tokens: (rows, tokens, width); a row is one image of one camera.
        patches: (rows, tokens) int64: index of the patch at whose position a token stands, ascending.
        owner: (rows, patches) int64: the token that a patch went into, -1 for none; None where each is its own.
        importance: (rows, tokens) float32: how much attention a token gets in the tower's last block; None if nobody
            asked.
        keys: (rows, tokens, dim) of that block, mean over heads, or None.
    """

    tokens: Tensor
    patches: Tensor
    owner: Tensor | None
    importance: Tensor | None
    keys: Tensor | None


class Bound(NamedTuple):
    """A technique at one point of one model.

    Attributes:
        layout: of the visual tokens from there on.
        act: what runs there, as `Point` says; None: nothing has to.
    """

    layout: Layout
    act: Any


class Call(NamedTuple):
    """One point at which a technique acts.

    Attributes:
        point, layer: where; the layer is a language layer and counts only at `SEQUENCE`.
        bind: for the layout that the tokens have there; raises `InputError` if that does not do.
    """

    point: Point
    layer: int
    bind: Callable[[Layout], Bound]


class Place(NamedTuple):
    """A position policy.

    Attributes:
        groups: into how many groups the rotary frequencies are parted, each with positions of its own.
        positions: (patches (rows, tokens), owner (rows, patches of a camera) or None) -> (rows, tokens, groups) int64:
            the patches at whose positions the groups of a token stand.
    """

    groups: int
    positions: Callable[[Tensor, Tensor | None], Tensor]
