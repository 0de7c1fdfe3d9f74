"""Auxiliary loss: say where the things are that the instruction is about.

What is at a place is read from the visual tokens, which therefore carry positions early in training; which place is
meant is asked with the cognition feature, which therefore has to understand the instruction where several things could
be meant. Used only while training; the shipped model does not contain it.
"""

import torch
from torch import Tensor, nn

from vla.api import InputError

_POINT_SCALE = 0.1  # [m] that count as 1 in the loss
_DIRECTION_WEIGHT = 0.3
_KEY_WIDTH = 64


class KeypointHead(nn.Module):
    """Each point is a mean of what every visual token says about it, weighted by attention from the cognition feature.

    Args:
        names: of the labels; `<thing>_x`, `<thing>_y`, `<thing>_z` are points [m] and come first, all others are
            numbers in [-1, 1] that belong to the first point.
        width: features of a visual token and of the cognition feature.

    Raises:
        InputError: if the names are not of this form.
    """

    def __init__(self, names: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.points = sum(name.endswith("_x") for name in names)
        self.directions = len(names) - 3 * self.points
        expected = [name[:-2] + axis for name in names[: 3 * self.points : 3] for axis in ("_x", "_y", "_z")]
        if self.points == 0 or list(names[: 3 * self.points]) != expected:
            raise InputError(f"key points must be named <thing>_x, <thing>_y, <thing>_z and come first; got {names}")
        self.queries = nn.Linear(width, self.points * _KEY_WIDTH)
        self.keys = nn.Linear(width, _KEY_WIDTH, bias=False)
        self.values = nn.Linear(width, 3 * self.points + self.directions)

    def loss(self, visual: Tensor, cognition: Tensor, labels: Tensor) -> Tensor:
        """Mean absolute error, points in units of 10 cm.

        Args:
            visual: (batch, tokens, width).
            cognition: (batch, width).
            labels: (batch, labels), relative to typical values.
        """
        queries = self.queries(cognition).unflatten(-1, (self.points, _KEY_WIDTH))
        scores = torch.einsum("btk,bpk->btp", self.keys(visual), queries) * _KEY_WIDTH**-0.5
        weights = scores.float().softmax(dim=1)  # (batch, tokens, points)
        values = self.values(visual).float()  # (batch, tokens, 3 * points + directions)
        split = 3 * self.points
        places = values[..., :split].unflatten(-1, (self.points, 3))  # (batch, tokens, points, 3)
        predicted = torch.einsum("btp,btpc->bpc", weights, places).flatten(1)
        wanted = labels[:, :split] / _POINT_SCALE
        loss = (predicted - wanted).abs().mean()
        if self.directions:
            directions = torch.einsum("bt,btd->bd", weights[..., 0], values[..., split:])
            loss = loss + _DIRECTION_WEIGHT * (directions - labels[:, split:]).abs().mean()
        return loss
