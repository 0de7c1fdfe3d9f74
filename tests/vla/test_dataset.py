"""The reader: exact values, whole episodes, padded chunks; and every damage is named by file and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envs.demonstrations import Demonstration
from envs.lerobot_dataset import ACTION, KEYPOINTS, STATE, Schema
from envs.lerobot_video import write_video
from envs.shards import assemble, read_shard, write_shard
from vla.api import InputError
from vla.training.dataset import Demonstrations
from vla.training.video_cache import open_shrunken

CAMERA, LENGTHS = "eye", (3, 1, 6, 4)
VIDEO = f"videos/observation.images.{CAMERA}/chunk-000/file-000.mp4"
DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
ACTIONS = [("dx", "m"), ("gripper", "1")]
SCHEMA = Schema("robot", 5, {CAMERA: (16, 32)}, {STATE: [("x", "m")], ACTION: ACTIONS, KEYPOINTS: [("a_x", "m")] * 2})


def demonstration(number: int, length: int, rng: np.random.Generator) -> Demonstration:
    vectors = {key: rng.normal(size=(length, len(names))).astype(np.float32) for key, names in SCHEMA.vectors.items()}
    images = {CAMERA: rng.integers(0, 256, (length, 16, 32, 3), dtype=np.uint8)}
    return Demonstration(number, 100_000 + number, "base", images, vectors, [f"task {number % 2}"] * length)


@pytest.fixture
def happened() -> list[Demonstration]:
    rng = np.random.default_rng(0)
    return [demonstration(number, length, rng) for number, length in enumerate(LENGTHS)]


@pytest.fixture
def root(tmp_path: Path, happened: list[Demonstration]) -> Path:
    shards = []
    for number, part in enumerate((happened[:2], happened[2:])):
        write_shard(tmp_path / f"shard-{number}", "task", number, 2, SCHEMA, part)
        shards.append(read_shard(tmp_path / f"shard-{number}"))
    assemble(tmp_path / "dataset", shards, episodes=len(LENGTHS))
    return tmp_path / "dataset"


def opened(root: Path, **options: Any) -> Demonstrations:
    return Demonstrations.open(root, **{"cameras": [CAMERA], "horizon": 4} | options)


def test_reads_exactly_what_was_written(root: Path, happened: list[Demonstration]) -> None:
    read = opened(root)
    for key, values in ((STATE, read.states), (ACTION, read.actions), (KEYPOINTS, read.keypoints)):
        assert np.array_equal(values, np.concatenate([each.vectors[key] for each in happened]))
    assert np.array_equal(read.images, np.concatenate([each.images[CAMERA] for each in happened]))
    assert read.episode_ends.tolist() == np.cumsum(LENGTHS).tolist()
    instructions = [each for one in happened for each in one.instructions]
    assert [read.instructions[task] for task in read.task_index] == instructions
    assert [(quantity.name, quantity.unit) for quantity in read.action_quantities] == ACTIONS
    assert read.period == pytest.approx(0.2)


def test_one_number_is_stored_as_lerobot_reads_it_and_a_list_of_one_is_read_too(
    root: Path, happened: list[Demonstration]
) -> None:
    assert pq.read_schema(root / DATA).field(STATE).type == pa.float32()
    assert pq.read_schema(root / DATA).field(ACTION).type == pa.list_(pa.float32(), len(ACTIONS))
    table = pq.read_table(root / DATA)
    lists = pa.FixedSizeListArray.from_arrays(table[STATE].combine_chunks(), 1)
    pq.write_table(table.set_column(table.column_names.index(STATE), STATE, lists), root / DATA)
    assert np.array_equal(opened(root).states, np.concatenate([each.vectors[STATE] for each in happened]))


def test_a_chunk_is_what_followed_then_rest_with_the_gripper_as_it_was(root: Path) -> None:
    read = opened(root, horizon=5)
    starts = np.concatenate([[0], read.episode_ends[:-1]])
    chunks = read.chunk(np.arange(len(read)))
    assert chunks.shape == (len(read), 5, 2)
    for frame in range(len(read)):
        episode = int(np.searchsorted(starts, frame, side="right")) - 1
        known = read.actions[frame : read.episode_ends[episode]][:5]
        rest = np.tile(known[-1] * np.array([0, 1], np.float32), (5 - len(known), 1))
        assert np.array_equal(chunks[frame], np.concatenate([known, rest]))


def test_a_split_keeps_episodes_whole(root: Path) -> None:
    read = opened(root)
    training, validation = read.split(0.3)
    assert sorted([*training, *validation]) == list(range(len(read)))
    assert len(validation) > 0
    assert not set(read.episode_index[training]) & set(read.episode_index[validation])
    assert len(read.split(0.0)[1]) == 0
    with pytest.raises(InputError, match="fraction"):
        read.split(1.0)


def test_statistics_are_of_all_frames(root: Path) -> None:
    read = opened(root)
    found = read.action_statistics
    assert np.allclose(found.mean, read.actions.mean(0), atol=1e-6)
    assert np.allclose(found.q99, np.quantile(read.actions, 0.99, axis=0), atol=1e-6)
    stored = json.loads((root / "meta/stats.json").read_text())[ACTION]
    assert np.allclose(stored["q01"], found.q01, atol=1e-6)


def test_videos_are_decoded_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(root, cache_dir=tmp_path / "cache").images
    with monkeypatch.context() as patch:
        patch.setattr("av.open", lambda *_: pytest.fail("decoded again"))
        assert np.array_equal(opened(root, cache_dir=tmp_path / "cache").images, first)


def test_images_are_shrunken_once_to_the_mean_of_their_squares(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    squares = images.astype(np.float64).reshape(5, 4, 2, 4, 2, 3)
    shrunken = open_shrunken(np.load(tmp_path / "images.npy", mmap_mode="r"), 4)
    np.testing.assert_array_equal(shrunken, np.floor(squares.mean(axis=(2, 4))))
    np.testing.assert_array_equal(open_shrunken(images, 4), shrunken)
    kept = tmp_path / "images-4px.npy"
    before = kept.stat().st_mtime_ns
    open_shrunken(np.load(tmp_path / "images.npy", mmap_mode="r"), 4)
    assert kept.stat().st_mtime_ns == before


def test_a_cache_of_other_images_is_not_used(root: Path, happened: list[Demonstration]) -> None:
    before = np.array(opened(root).images)
    write_video(root / VIDEO, [255 - each.images[CAMERA] for each in happened[:2]], 5)
    after = opened(root).images
    assert np.array_equal(after[:4], 255 - before[:4])
    assert np.array_equal(after[4:], before[4:])


def test_an_unknown_camera_and_an_empty_chunk_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"no video 'observation.images.nose'; it has .*eye"):
        opened(root, cameras=["nose"])
    with pytest.raises(InputError, match="horizon"):
        opened(root, horizon=0)


def edit_info(root: Path, **changes: Any) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_column(path: Path, name: str, change: Callable[[list[Any]], list[Any]]) -> None:
    table = pq.read_table(path)
    column = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)


def drop_column(path: Path, name: str) -> None:
    pq.write_table(pq.read_table(path).drop_columns([name]), path)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no dataset": (lambda root: (root / "meta/info.json").unlink(), r"not a LeRobotDataset: .*info.json is missing"),
    "info not JSON": (lambda root: (root / "meta/info.json").write_text("{"), r"info.json is not JSON"),
    "version": (lambda root: edit_info(root, codebase_version="v2.1"), r"codebase_version is 'v2.1'; allowed: 'v3.0'"),
    "no action": (lambda root: drop_column(root / DATA, ACTION), r"file-000.parquet lacks \['action'\]"),
    "not a number": (
        lambda root: edit_column(root / DATA, ACTION, lambda rows: [*rows[:2], [float("nan"), 0.0], *rows[3:]]),
        r"file-000.parquet: action holds a value that is not finite in row 2",
    ),
    "empty episode": (
        lambda root: edit_column(root / EPISODES, "length", lambda rows: [rows[0], 0, *rows[2:]]),
        r"episode 1 is empty",
    ),
    "other lengths": (
        lambda root: edit_column(root / EPISODES, "length", lambda rows: [rows[0] - 1, rows[1] + 1, *rows[2:]]),
        r"episode_index does not follow the lengths",
    ),
    "missing episode field": (lambda root: drop_column(root / EPISODES, "length"), r"lacks \['length'\]"),
    "mixed fps": (
        lambda root: write_video(root / VIDEO, [np.zeros((4, 16, 32, 3), np.uint8)], 10),
        r"file-000.mp4 has 10 frames/s, meta/info.json says fps 5",
    ),
    "declared fps": (lambda root: edit_info(root, fps=10), r"info.json: fps is 10, but of observation.images.eye"),
    "short video": (
        lambda root: write_video(root / VIDEO, [np.zeros((2, 16, 32, 3), np.uint8)], 5),
        r"file-000.mp4 has 2 frames; meta/episodes needs 4",
    ),
    "small video": (
        lambda root: write_video(root / VIDEO, [np.zeros((4, 16, 16, 3), np.uint8)], 5),
        r"file-000.mp4 is 16 x 16, meta/info.json says 16 x 32",
    ),
    "no video": (lambda root: (root / VIDEO).unlink(), r"file-000.mp4 is missing"),
    "damaged video": (lambda root: (root / VIDEO).write_bytes(b"not a video"), r"file-000.mp4 is damaged"),
    "damaged data": (lambda root: (root / DATA).write_bytes(b"not parquet"), r"file-000.parquet is damaged"),
    "no tasks": (lambda root: (root / "meta/tasks.parquet").unlink(), r"tasks.parquet is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_named(root: Path, damage: tuple[Callable[[Path], Any], str]) -> None:
    change, message = damage
    change(root)
    with pytest.raises(InputError, match=message):
        opened(root)


def test_an_unusable_cache_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another cache_dir"):
        opened(root, cache_dir=tmp_path / "file")
