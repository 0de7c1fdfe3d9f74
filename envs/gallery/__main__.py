"""`python -m envs.gallery`: contact sheets of every task and every variant, and a clip of the expert in each task."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.gallery()

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import envs
from cadence_configs.command import DONE, command
from envs import variants
from envs.__main__ import directory, resolve_tasks
from envs.errors import EnvError
from envs.gallery.film import film, write_clip
from envs.gallery.sheet import Section, Tile, contact_sheet
from envs.staging import MIXED
from envs.tasks import find
from envs.variant import SETTINGS

_HEADINGS = {"google_robot": "Google robot", "widowx": "WidowX"}
_SIZES = {"google_robot": (384, 480), "widowx": (360, 480)}  # (height, width) as the cameras' proportions are [pixels]
_AT_WORK = 0.6  # of the expert's time: when the picture on the sheet is taken
_TILE, _QUALITY = 240, 82  # width on the sheets [pixels]; JPEG's, 0..100
_COLUMNS = {"tasks": 7, "variants": 6}  # as many as leave no gap
# Variants are shown with these rather than with other tasks.
_SHOW_VARIANTS = ("google_robot_pick_coke_can", "google_robot_move_near", "google_robot_open_drawer")


@command("gallery", usage_errors=(EnvError,))
def main(config: DictConfig) -> int:
    """Write the pictures and say where they are."""
    options: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    out, tasks = directory(options.pop("out")), resolve_tasks(options.pop("tasks"))
    wants_clips, wants_variants, seed = (options.pop(key) for key in ("clips", "variants", "seed"))
    clips = out / "clips" if wants_clips else None
    (clips or out).mkdir(parents=True, exist_ok=True)
    groups = {robot: [task for task in tasks if find(task).robot.name == robot] for robot in _HEADINGS}
    tiles = {robot: [_tile(task, clips, seed, **options) for task in group] for robot, group in groups.items()}
    _save(tiles, out / "tasks.jpg")
    if wants_variants:
        assets = options["robot_assets"]
        tiles = {robot: list(_variant_tiles(group, assets)) for robot, group in groups.items()}
        _save(tiles, out / "variants.jpg")
    return DONE


def _variant_tiles(tasks: Sequence[str], robot_assets: str | None) -> Iterator[Tile]:
    """Every variant of every setting, with the first task for which SIMPLER has it."""
    for setting in SETTINGS:
        shown_with: dict[str, str] = {}
        for task in (*(task for task in _SHOW_VARIANTS if task in tasks), *tasks):
            for variant in variants.suite(find(task), setting):
                shown_with.setdefault(variant.name, task)
        for name, task in shown_with.items():
            tile = _tile(task, setting=setting, variant=name, robot_assets=robot_assets)
            yield Tile(tile.picture, name, setting.replace("_", " "))


def _tile(task: str, clips: Path | None = None, seed: int | None = None, **staging: Any) -> Tile:
    """The expert at work in a task; writes the film of it if there is a folder for that."""
    env = envs.make(task, image_size=_SIZES[find(task).robot.name], **staging)
    official = seed is None and env.staging.scene != MIXED
    pictures, info = film(env, seed or 0, {"episode_id": env.grid_size // 2} if official else {})
    env.close()
    if clips is not None:
        write_clip(clips / f"{task}.mp4", pictures, env.control_period)
    end = "solved" if info["success_strict"] else "NOT SOLVED"
    print(f"{task}, {info['setting']}, {info['variant']}: {end} after {info['elapsed_steps']} steps")
    title = task.removeprefix(f"{env.robot.name}_")
    return Tile(pictures[round(_AT_WORK * info["elapsed_steps"])], title, info["instruction"])


def _save(tiles: Mapping[str, Sequence[Tile]], path: Path) -> None:
    sections = [Section(_HEADINGS[robot], members) for robot, members in tiles.items() if members]
    contact_sheet(sections, _COLUMNS[path.stem], _TILE).save(path, quality=_QUALITY, optimize=True)
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")
