"""What a vision tower remembers of each session, and which patches it reads again."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from vla.accelerate.lean.decoder import Decoder, ReadPrefix
from vla.accelerate.stages import Frame
from vla.api import InputError

_SIZES = 8  # numbers of patches that can be read again: few, so that what is prepared for a shape is used again
MOST_SESSIONS = 64  # the one not heard of for longest is forgotten first: its next image is read whole


class Rules(NamedTuple):
    """When a patch is read again.

    Attributes:
        budget: share of each camera's patches that are read again at most.
        threshold: cosine of a patch's pixels and a 1, so that black ones have one too, with those it was last read
            from, below which it has changed.
        every: steps after which the whole image is read at the latest.
        gripper: change of the gripper's opening since the whole image was read that has it read again.
        relevant: share of the patches that are read again whether or not they changed: those that the instruction
            attended to most in the step before.
    """

    budget: float
    threshold: float
    every: int
    gripper: float
    relevant: float = 0.0

    def check(self, method: str) -> None:
        """Raise `InputError` on a value outside its range."""
        for name, low in (("budget", 0), ("threshold", -1), ("relevant", 0)):
            value = getattr(self, name)
            if not _number(value) or not low <= value <= 1 or (name == "budget" and value == 0):
                raise InputError(f"temporal={method}: {name} must be a share up to 1, got {value!r}")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise InputError(f"temporal={method}: every must be a whole number of at least 1, got {self.every!r}")
        if not _number(self.gripper) or self.gripper < 0:
            raise InputError(f"temporal={method}: gripper must be a number of at least 0, got {self.gripper!r}")


@dataclass
class Remembered:
    """Of one session.

    Attributes:
        tokens: (cameras, patches, width) of its images.
        keys: and values in the tower's blocks, tensors with a row for each camera.
        pixels: (cameras, patches, numbers) that each patch was last read from.
        step, gripper: of the newest observation, and of the one whose images were read whole.
        age: steps since then.
        chosen: (cameras, some) indices of the patches that were read again in the newest one; None: all.
        relevance: (cameras, patches) attention of the instruction in the step before, or None.
        language: what a language model remembers of it.
    """

    tokens: Tensor
    keys: Any
    pixels: Tensor
    step: int
    gripper: float | None
    age: int = 0
    chosen: Tensor | None = None
    relevance: Tensor | None = None
    language: Any = None


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

    def reading(self, language: Decoder, start: int) -> ReadPrefix:
        """See `Memory.reading`: as ever."""
        return language.read

    @property
    def newest(self) -> list[Remembered]:
        """Of the sessions of the newest images, row by row; none if these were of no session."""
        return [self._known[frame.session] for frame in self._frames]

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
        if not self._frames:  # images of no session
            return
        for known, row in zip(self.newest, relevance, strict=True):
            known.relevance = row.view(known.pixels.shape[:2]).clone()  # not a view, as in `_read`

    def _features(self, tower: Any, images: Tensor) -> Tensor:
        """(batch * cameras, channels, height, width) -> (batch * cameras, patches, width)."""
        if self._pixels is None:
            self._frames = ()
            return tower(images)
        shown, self._pixels = _patches(self._pixels, self._side), None  # (batch, cameras, patches, numbers)
        views = images.unflatten(0, shown.shape[:2])  # (batch, cameras, channels, height, width)
        chosen = [self._chosen(frame, now) for frame, now in zip(self._frames, shown, strict=True)]
        for rows in alike_in(None if patches is None else patches.shape[1] for patches in chosen):
            self._read(tower, rows, views, shown, [chosen[row] for row in rows])
        return torch.cat([known.tokens for known in self.newest])

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
        budget, most = max(1, round(rules.budget * patches)), int(needed.sum(dim=1).max())
        if most > budget:
            return None
        step = max(1, round(budget / _SIZES))
        count = min(budget, step * max(1, math.ceil(most / step)))
        return urgent.topk(count, dim=1).indices.sort(dim=1).values

    def _read(self, tower: Any, rows: list[int], views: Tensor, shown: Tensor, chosen: list[Tensor | None]) -> None:
        """Read images of several sessions, as many patches of each, and remember.

        Each session keeps tensors of its own: a view would keep the whole batch's in memory.
        """
        frames = [self._frames[row] for row in rows]
        known = [self._known.get(frame.session) for frame in frames]
        keys = patches = None
        if chosen[0] is not None:
            patches = torch.cat([some for some in chosen if some is not None])  # (rows * cameras, some)
            keys = pytree.tree_map(lambda *each: torch.cat(each), *[each.keys for each in known if each is not None])
        made = tower.again(views[rows].flatten(0, 1), patches, keys)  # tokens, keys
        cameras = views.shape[1]
        for place, (row, frame, before) in enumerate(zip(rows, frames, known, strict=True)):
            mine = slice(place * cameras, (place + 1) * cameras)
            part = made if len(rows) == 1 else pytree.tree_map(lambda tensor, mine=mine: tensor[mine].clone(), made)
            some = chosen[place]
            if some is None or before is None:
                of_now = (shown[row].clone(), frame.step, frame.gripper)
                self._known[frame.session] = Remembered(part[0], part[1], *of_now)
            else:
                before.tokens = put(before.tokens, some, part[0])
                before.pixels = put(before.pixels, some, shown[row].gather(1, _columns(some, shown.shape[-1])))
                before.keys, before.step, before.age, before.chosen = part[1], frame.step, before.age + 1, some
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
    batch, cameras, channels, height, width = pixels.shape
    lines = pixels.float().movedim(2, -1)  # (batch, cameras, height, width, channels)
    cut = lines.reshape(batch, cameras, height // side, side, width // side, side * channels).transpose(3, 4)
    return cut.reshape(batch, cameras, -1, side * side * channels)


def alike_in(what: Iterable[Hashable]) -> list[list[int]]:
    """Indices of the same values."""
    groups: dict[Hashable, list[int]] = {}
    for index, value in enumerate(what):
        groups.setdefault(value, []).append(index)
    return list(groups.values())


def put(kept: Tensor, at: Tensor, fresh: Tensor) -> Tensor:
    """(rows, tokens, width) with (rows, some, width) at (rows, some) indices."""
    return kept.scatter(1, _columns(at, kept.shape[-1]), fresh)


def _columns(at: Tensor, width: int) -> Tensor:
    return at[..., None].expand(-1, -1, width)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
