"""The gallery writes sheets and clips that can be looked at; the viewer says at once when it has no display."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import envs
from envs.gallery.film import film, write_clip
from envs.gallery.sheet import Section, Tile, contact_sheet

TASK = "widowx_spoon_on_towel"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a module of ours where there is no display."""
    blind = {**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    return subprocess.run([sys.executable, "-m", *command], env=blind, capture_output=True, text=True, check=False)


def tile(shade: int, height: int = 30, width: int = 40) -> Tile:
    return Tile(np.full((height, width, 3), shade, np.uint8), f"tile {shade}", "a caption that is too long for it")


def test_a_sheet_holds_every_tile_in_rows() -> None:
    sheet = contact_sheet([Section("two rows", [tile(shade) for shade in (0, 50, 100)])], columns=2, tile_width=80)
    pixels = np.asarray(sheet)
    rows, columns = (44 + 30, 44 + 100 + 30), (10 + 40, 10 + 90 + 40)  # the middles of the tiles, which are 80 x 60
    assert [pixels[rows[row], columns[column], 0] for row, column in ((0, 0), (0, 1), (1, 0))] == [0, 50, 100]
    assert (pixels[rows[1], columns[1]] == 255).all()


def test_sections_stand_below_each_other_with_the_proportions_of_their_pictures() -> None:
    one, other = Section("flat", [tile(0, 20, 40)]), Section("square", [tile(0, 40, 40)])
    heights = [contact_sheet(sections, 1, 40).height for sections in ([one], [other], [one, other])]
    assert heights[1] - heights[0] == 20
    assert heights[2] == heights[0] + heights[1]


def test_words_stay_within_their_tile() -> None:
    pixels = np.asarray(contact_sheet([Section("", [tile(255), tile(255)])], columns=2, tile_width=60))
    assert (pixels[:, 70:80] == 255).all()  # between the two tiles


def test_a_film_shows_the_expert_from_the_start_until_it_is_done() -> None:
    env = envs.make(TASK, image_size=(24, 32))
    pictures, info = film(env, seed=None, options={"episode_id": 3})
    assert info["success_strict"]
    assert len(pictures) == info["elapsed_steps"] + 1 < env.max_episode_steps
    assert not np.array_equal(pictures[0], pictures[-1])
    env.close()


def test_a_clip_plays_at_the_robot_s_rate_and_stays_on_its_end(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(4)]
    write_clip(tmp_path / "clip.mp4", pictures, period=0.2)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.average_rate, stream.height, stream.width) == (5, 24, 32)
        assert len(list(container.decode(stream))) == 4 + 5


def test_the_command_writes_a_sheet_and_a_clip(tmp_path: Path) -> None:
    done = run("envs.gallery", f"tasks={TASK}", f"out={tmp_path}", "variants=false")
    assert done.returncode == 0, done.stderr
    assert f"{TASK}, visual_matching, base: solved" in done.stdout
    with Image.open(tmp_path / "tasks.jpg") as sheet:
        assert sheet.width > sheet.height > 180
    assert (tmp_path / "clips" / f"{TASK}.mp4").stat().st_size > 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a display")
def test_the_viewer_says_at_once_that_there_is_no_display() -> None:
    done = run("envs.view", f"task={TASK}", "expert=true")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no display")
    assert done.stderr.count("\n") == 1


def test_the_viewer_refuses_an_unknown_task() -> None:
    done = run("envs.view", "task=nothing")
    assert done.returncode == 2
    assert TASK in done.stderr
