"""Pictures of which visual tokens a recipe keeps: what the policy looks at, camera by camera."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.profiler.latency import random_observation
from eval.rollout import Episode, observe
from eval.worlds import make_world, task_names
from vla.accelerate.reduction.layout import layout_of
from vla.accelerate.reduction.watching import Kept, watching
from vla.api import InputError, Observation, PolicySpec
from vla.policy import VlaPolicy

Picture = NDArray[np.uint8]
_TILE_WIDTH = 336  # [pixels]
_SHADE = 0.2  # brightness that is left to patches without a token
_COLUMNS = 4


def check_source(source: str) -> None:
    """Refuse what is neither a task nor a file.

    Raises:
        InputError: saying what is allowed.
    """
    if source not in task_names() and not Path(source).is_file():
        raise InputError(f"kept={source} is neither a picture file nor a task; tasks: {', '.join(task_names())}")


def observation_of(source: str, spec: PolicySpec, instruction: str) -> Observation:
    """What a policy is shown.

    Args:
        source: a task, whose first official start is shown and whose instruction is given; or a picture file, which
            every camera shows.
        spec: of the policy.
        instruction: that goes with a picture.

    Raises:
        InputError: if the file cannot be read, or the policy reads another camera than the task's robot has.
    """
    if source in task_names():
        episode = Episode(source, 0)
        world = make_world(episode, spec.cameras, film=False)
        try:
            raw, info = world.reset(seed=episode.seed, options=episode.options)
            return observe(raw, info["instruction"], episode.session, 0)
        finally:
            world.close()
    images = {camera.name: _read(source, camera.height, camera.width) for camera in spec.cameras}
    return replace(random_observation(spec, instruction), images=images)


def write_kept(policy: VlaPolicy, observation: Observation, folder: str) -> str:
    """Answer once, and draw what each method left of each camera's image; returns the file."""
    from envs.gallery.sheet import Section, Tile, contact_sheet

    with policy.plainly(), watching() as kept:
        policy.infer(observation)
    layout = layout_of(policy.model)
    views = _views(policy, observation)
    sections = []
    for number, (camera, view) in enumerate(zip(policy.spec.cameras, views, strict=True)):
        tiles = [Tile(view, "as the policy sees it", f"{layout.patches} patches")]
        for each in kept:
            patches = _of_camera(each, number)
            words = f"{len(patches)} of {layout.patches} tokens"
            tiles.append(Tile(shaded(view, patches, layout.grid), each.method, words))
        sections.append(Section(f"{policy.recipe.name}: {camera.name}", tiles))
    path = Path(folder) / f"kept_{policy.recipe.name}.png"
    contact_sheet(sections, min(_COLUMNS, 1 + max(1, len(kept))), _TILE_WIDTH).save(path)
    return str(path)


def shaded(view: Picture, patches: NDArray[np.int64], grid: tuple[int, int]) -> Picture:
    """The image with every patch dark that has no token.

    Args:
        view: (height, width, 3).
        patches: indices of those that have one, row by row.
        grid: rows and columns of patches.
    """
    bright = np.full(grid[0] * grid[1], _SHADE)
    bright[patches] = 1
    height, width = view.shape[:2]
    rows, columns = np.arange(height) * grid[0] // height, np.arange(width) * grid[1] // width
    return (view * bright.reshape(grid)[rows[:, None], columns][..., None]).astype(np.uint8)


def _of_camera(kept: Kept, number: int) -> NDArray[np.int64]:
    first = sum(kept.layout.counts[:number])
    return kept.patches[0, first : first + kept.layout.counts[number]].cpu().numpy()


def _views(policy: VlaPolicy, observation: Observation) -> list[Picture]:
    """Each camera's image as the model reads it, (height, width, 3); of two towers, what the first one reads."""
    pixels = policy.processing.pixels(policy.processing.images(observation))[0]  # (cameras, channels, height, width)
    return list((pixels[:, :3].movedim(1, -1).clamp(0, 1).numpy() * 255).round().astype(np.uint8))


def _read(source: str, height: int, width: int) -> Picture:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as image:
            return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"kept={source} cannot be read as a picture ({error}); PNG and JPEG files will do") from error
