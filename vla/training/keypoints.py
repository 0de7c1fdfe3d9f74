"""Auxiliary loss: say where the things are that the instruction is about.

What is at a place is read from the visual tokens, which therefore carry positions early in training; which place is
meant is asked with the cognition feature, which therefore has to understand the instruction where several things could
be meant. Used only while training; the shipped model does not contain it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla.api import InputError

_POINT_SCALE = 0.1  # [m] that count as 1 in the loss
_DIRECTION_WEIGHT = 0.3
_PLACE_WEIGHT = 0.1
_BLUR = 0.6  # [tokens] how far a right place spreads: neighbouring tokens are nearly right
_KEY_WIDTH = 64


def is_place(name: str) -> bool:
    """Whether a label says where in the image a thing is."""
    return name.endswith(("_u", "_v"))


class KeypointHead(nn.Module):
    """Each point is a mean of what every visual token says about it, weighted by attention from the cognition feature.

    Where the labels say which place in the image a point has, attention is taught to go there.

    Args:
        names: of the labels; `<thing>_x`, `<thing>_y`, `<thing>_z` are points [m] and come first, and `<thing>_u`,
            `<thing>_v`, if there are any, are their places in the first camera's image, from -1 at its left and upper
            edge to 1, and come last; all others are numbers in [-1, 1] that belong to the first point.
        width: features of a visual token and of the cognition feature.
        cameras: whose visual tokens follow each other.

    Raises:
        InputError: if the names are not of this form.
    """

    def __init__(self, names: tuple[str, ...], width: int, cameras: int = 1) -> None:
        super().__init__()
        self.points = sum(name.endswith("_x") for name in names)
        self.places = sum(map(is_place, names))
        self.directions = len(names) - 3 * self.points - self.places
        self.cameras = cameras
        things = [name[:-2] for name in names[: 3 * self.points : 3]]
        points = [thing + axis for thing in things for axis in ("_x", "_y", "_z")]
        places = [thing + axis for thing in things for axis in ("_u", "_v")]
        begins, ends = list(names[: len(points)]), list(names[len(names) - self.places :])
        if not points or begins != points or ends not in (places, []):
            raise InputError(
                "key points must be named <thing>_x, <thing>_y, <thing>_z and come first, <thing>_u and <thing>_v of "
                f"all of them last or not at all; got {names}"
            )
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
            wanted = labels[:, split : split + self.directions]
            loss = loss + _DIRECTION_WEIGHT * (directions - wanted).abs().mean()
        if self.places:
            loss = loss + _PLACE_WEIGHT * self._misplaced(scores, labels[:, -self.places :])
        return loss

    def _misplaced(self, scores: Tensor, places: Tensor) -> Tensor:
        """How far attention is from where the points are, in nats above the least that is possible.

        Args:
            scores: (batch, tokens, points) before the softmax.
            places: (batch, 2 * points) labels.
        """
        side = math.isqrt(scores.shape[1] // self.cameras)
        cells = (torch.arange(side, device=scores.device) + 0.5) / side * 2 - 1  # their centres
        distance = (places.unflatten(-1, (self.points, 2))[..., None] - cells) * side / 2  # (batch, points, 2, side)
        column, row = (-(distance / _BLUR).square() / 2).unbind(2)
        wanted = (row[..., :, None] + column[..., None, :]).flatten(2).softmax(dim=-1)  # (batch, points, side * side)
        said = scores.float().log_softmax(dim=1)[:, : side * side].transpose(1, 2)
        inside = (places.unflatten(-1, (self.points, 2)).abs() <= 1).all(dim=-1)  # (batch, points)
        apart = functional.kl_div(said, wanted, reduction="none").sum(dim=-1)
        return (apart * inside).mean()
