"""What a vision tower remembers of each session, and which patches it reads again."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vla.accelerate.stages import Frame

MOST_SESSIONS = 64  # the one not heard of for longest is forgotten first: its next image is read whole


class Rules(NamedTuple):
    """When a patch is read again: the options of `vla.accelerate.temporal.static_patches.StaticPatches`."""

    budget: float
    threshold: float
    relevant: float
    every: int
    gripper: float


@dataclass
class Remembered:
    """Of one session.

    Attributes:
        kept: what the tower made of its images, a `vla.accelerate.lean.vision.Kept` with a row for each camera.
        pixels: (cameras, patches, numbers) that each patch was last read from.
        step, gripper: of the newest observation, and of the one whose images were read whole.
        age: steps since then.
        relevance: (cameras, patches) attention of the instruction in the step before, or None.
    """

    kept: Any
    pixels: Tensor
    step: int
    gripper: float | None
    age: int
    relevance: Tensor | None = None


class Sessions:
    """A `vla.accelerate.stages.Memory` of what a vision tower made of images.

    Args:
        rules: when a patch is read again.
        side: of a patch [px].
    """

    def __init__(self, rules: Rules, side: int) -> None:
        self._rules, self._side = rules, side
        self._known: OrderedDict[str, Remembered] = OrderedDict()
        self._frames: Sequence[Frame] = ()
        self._pixels: Tensor | None = None

    def around(self, tower: Any) -> Callable[[Tensor], Tensor]:
        """See `Memory.around`."""
        return partial(self._features, tower)

    def begin(self, frames: Sequence[Frame], pixels: Tensor) -> None:
        """See `Memory.begin`."""
        self._frames, self._pixels = frames, pixels

    def forget(self, session: str) -> None:
        """See `Memory.forget`."""
        self._known.pop(session, None)

    def note(self, relevance: Tensor) -> None:
        """Take note of the instructions' attention to the visual tokens of the newest images.

        Args:
            relevance: (batch, cameras * patches).
        """
        for frame, row in zip(self._frames, relevance, strict=True):
            if (known := self._known.get(frame.session)) is not None:
                known.relevance = row.view(known.pixels.shape[:2]).clone()  # not a view, as in `_read`

    def _features(self, tower: Any, images: Tensor) -> Tensor:
        """(batch * cameras, channels, height, width) -> (batch * cameras, patches, width)."""
        if self._pixels is None:
            return tower(images)
        shown, self._pixels = _patches(self._pixels, self._side), None  # (batch, cameras, patches, numbers)
        views = images.unflatten(0, shown.shape[:2])  # (batch, cameras, channels, height, width)
        chosen = [self._chosen(frame, now) for frame, now in zip(self._frames, shown, strict=True)]
        again = [row for row, patches in enumerate(chosen) if patches is not None]
        whole = [row for row, patches in enumerate(chosen) if patches is None]
        for rows in filter(None, (again, whole)):
            self._read(tower, rows, views, shown, [chosen[row] for row in rows])
        known = [self._known[frame.session].kept.features for frame in self._frames]
        return torch.cat([torch.cat(features, dim=-1) for features in known])

    def _chosen(self, frame: Frame, now: Tensor) -> Tensor | None:
        """(cameras, some) indices of the patches to read again; None: all."""
        known, rules = self._known.get(frame.session), self._rules
        if known is None or frame.step < known.step or known.age + 1 >= rules.every or _moved(frame, known, rules):
            return None
        alike = _alike(now, known.pixels)  # (cameras, patches)
        urgent = 1 - alike
        needed = alike < rules.threshold
        patches = alike.shape[1]
        if known.relevance is not None:
            watched = known.relevance.topk(round(rules.relevant * patches), dim=1).indices
            needed = needed.scatter(1, watched, True)
            urgent = urgent.scatter_add(1, watched, torch.full_like(urgent[:, :1], 3.0).expand_as(watched))
        budget = max(1, round(rules.budget * patches))
        if int(needed.sum(dim=1).max()) > budget:
            return None
        return urgent.topk(budget, dim=1).indices.sort(dim=1).values

    def _read(self, tower: Any, rows: list[int], views: Tensor, shown: Tensor, chosen: list[Tensor | None]) -> None:
        """Read images of several sessions, all of them whole or all in part, and remember.

        Each session keeps tensors of its own: a view would keep the whole batch's in memory.
        """
        frames = [self._frames[row] for row in rows]
        known = [self._known.get(frame.session) for frame in frames]
        kept = patches = None
        if chosen[0] is not None:
            patches = torch.cat([some for some in chosen if some is not None])  # (rows * cameras, some)
            kept = _joined([each.kept for each in known if each is not None])
        made = tower.again(views[rows].flatten(0, 1), patches, kept)
        cameras = views.shape[1]
        for place, (row, frame, before) in enumerate(zip(rows, frames, known, strict=True)):
            mine = slice(place * cameras, (place + 1) * cameras)
            part = made if len(rows) == 1 else pytree.tree_map(lambda tensor, mine=mine: tensor[mine].clone(), made)
            some = chosen[place]
            if some is None or before is None:
                self._known[frame.session] = Remembered(part, shown[row].clone(), frame.step, frame.gripper, 0)
            else:
                at = some[..., None].expand(-1, -1, shown.shape[-1])
                before.pixels = before.pixels.scatter(1, at, shown[row].gather(1, at))
                before.kept, before.step, before.age = part, frame.step, before.age + 1
            self._known.move_to_end(frame.session)
            if len(self._known) > max(MOST_SESSIONS, len(self._frames)):
                self._known.popitem(last=False)


def _alike(now: Tensor, then: Tensor) -> Tensor:
    """(cameras, patches) cosine of (cameras, patches, numbers), each with a 1 more.

    The 1 makes black patches comparable: equal ones are alike, and so are those that differ by a camera's noise.
    """
    together, lengths = (now * then).sum(dim=-1) + 1, (now.square().sum(dim=-1) + 1) * (then.square().sum(dim=-1) + 1)
    return together / lengths.sqrt()


def _moved(frame: Frame, known: Remembered, rules: Rules) -> bool:
    """Whether the gripper opened or closed since the whole image was read."""
    if frame.gripper is None or known.gripper is None:
        return False
    return abs(frame.gripper - known.gripper) > rules.gripper


def _patches(pixels: Tensor, side: int) -> Tensor:
    """(batch, cameras, channels, height, width) -> (batch, cameras, patches, numbers) float32, row by row."""
    cut = pixels.float().unfold(-2, side, side).unfold(-2, side, side)  # (..., channels, rows, columns, side, side)
    return cut.movedim(2, -3).flatten(2, 3).flatten(3)


def _joined(kept: Sequence[Any]) -> Any:
    """What several sessions have, as one batch."""
    return pytree.tree_map(lambda *tensors: torch.cat(tensors), *kept)
