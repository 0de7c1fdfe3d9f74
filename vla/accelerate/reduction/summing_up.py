"""Some tokens as they are, and the others gathered into a few (VisionZip, arXiv 2412.04467, and DUET-VLM)."""

import torch
from torch import Tensor
from torch.nn import functional

from vla.accelerate.reduction.calls import Features

ADD, MEAN = "add", "mean"
COMBINE = (ADD, MEAN)


def summed_up(found: Features, dominant: int, contextual: int, width: int | None, combine: str) -> Features:
    """Dominant tokens by importance, and contextual ones: anchors with those of the rest that are most like them.

    Args:
        found: with importance and keys.
        dominant, contextual: how many.
        width: how many tokens the contextual ones are made of, for each; None: all that are not dominant.
        combine: "add": anchor plus mean of the others, as published; "mean": mean of all.
    """
    assert found.importance is not None
    order = found.importance.argsort(dim=-1, descending=True, stable=True)
    first, pool = order[:, :dominant], order[:, dominant:]
    if contextual == 0:
        return _in_order(found, _at(found.tokens, first), first, pool[:, :0], pool[:, :0])
    pool = pool.sort(dim=-1).values if width is None else pool[:, : width * contextual]  # DUET's stays in order
    anchors = pool[:, :: max(1, pool.shape[1] // contextual)][:, :contextual]
    gathered, goes_to = _gathered(found, pool, anchors, combine)
    tokens = torch.cat([_at(found.tokens, first), gathered], dim=1)
    return _in_order(found, tokens, torch.cat([first, anchors], dim=1), pool, dominant + goes_to)


def _gathered(found: Features, pool: Tensor, anchors: Tensor, combine: str) -> tuple[Tensor, Tensor]:
    """Contextual tokens (rows, contextual, width), and which of them each of the pool goes to (rows, pool)."""
    assert found.keys is not None
    unit = functional.normalize(found.keys.float(), dim=-1)
    alike = _at(unit, pool) @ _at(unit, anchors).transpose(-1, -2)  # (rows, pool, contextual)
    same = pool[:, :, None] == anchors[:, None]  # an anchor goes to itself
    goes_to = torch.where(same.any(dim=-1), same.float().argmax(dim=-1), alike.argmax(dim=-1))
    member = functional.one_hot(goes_to, anchors.shape[1]).float()
    if combine == ADD:
        member = member * ~same.any(dim=-1, keepdim=True)
    mean = member / member.sum(dim=1, keepdim=True).clamp(min=1)
    summed = mean.transpose(-1, -2) @ _at(found.tokens, pool).float()
    if combine == ADD:
        summed = summed + _at(found.tokens, anchors).float()
    return summed.to(found.tokens.dtype), goes_to


def _in_order(found: Features, tokens: Tensor, stand: Tensor, pool: Tensor, goes_to: Tensor) -> Features:
    """New tokens in the order of their patches, and who owns what.

    Args:
        tokens: (rows, fewer, width).
        stand: (rows, fewer) the old token at whose position each stands.
        pool: (rows, pool) old tokens that were gathered.
        goes_to: (rows, pool) the new token that each of them went into.
    """
    patches, order = _at(found.patches, stand).sort(dim=-1)
    slot = order.argsort(dim=-1)  # of a new token, after ordering
    owner = torch.full_like(found.patches, -1).scatter(1, stand, slot).scatter(1, pool, slot.gather(1, goes_to))
    if found.owner is not None:
        owner = torch.where(found.owner < 0, -1, owner.gather(1, found.owner.clamp(min=0)))
    return Features(_at(tokens, order), patches, owner, None, None)


def _at(of_tokens: Tensor, index: Tensor) -> Tensor:
    """(rows, tokens, ...) at (rows, n) indices."""
    return of_tokens[torch.arange(len(index), device=index.device)[:, None], index]
