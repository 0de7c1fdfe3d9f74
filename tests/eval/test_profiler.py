"""Laws of the profiler: recipes are measured alike, what it writes follows the format, and bad input is refused."""

import itertools
import json
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eval.profiler import ceilings, cost, latency, memory
from eval.profiler.__main__ import main
from eval.profiler.ceilings import Effort
from eval.profiler.profile import prepare
from eval.profiler.subjects import load
from tests.eval.profiles import LITTLE, settings
from tests.vla.small import observation, save_small
from vla import recipe as recipes
from vla.accelerate.techniques import SLOTS, methods
from vla.api import Observation
from vla.policy import VlaPolicy, load_policy

CPU = torch.device("cpu")
ROW_KEYS = {
    "model", "checkpoint", "device", "dtype", "recipe", "stages_ms", "stages_of_total", "first_answer_ms", "gflops",
    "stages_gflops", "gflops_by_dtype", "parameters", "weight_bytes", "read_bytes", "peak_bytes", "floor_ms",
    "speedup", "speedup_ci95", "difference",
}  # fmt: skip
META_KEYS = {
    "version", "command", "machine", "packages", "git", "device", "threads", "instruction", "warm_up", "repeats",
    "rounds", "yardstick_ms", "ceilings", "method", "cautions",
}  # fmt: skip

Run = Callable[..., int]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("profiler") / "checkpoint")


@pytest.fixture(scope="module")
def policy(checkpoint: Path) -> VlaPolicy:
    return load_policy(checkpoint=checkpoint, recipe="unguided")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: Path) -> Run:
    """Runs the command in this process on a small checkpoint; returns its exit status."""

    def command(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("eval.profiler.ceilings.EFFORT", {"cpu": LITTLE})
        monkeypatch.setattr(sys, "argv", ["cadence-profile", f"checkpoint={checkpoint}", "repeats=2", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return command


def test_watching_leaves_no_trace(policy: VlaPolicy) -> None:
    before, spans = policy.infer(observation()).actions, policy.spans
    cost.count(policy, observation())
    latency.staged(policy, observation())
    latency.end_to_end(policy, observation())
    assert policy.spans is spans
    np.testing.assert_array_equal(policy.infer(observation()).actions, before)


def test_every_policy_is_measured_as_often_and_in_turns(policy: VlaPolicy) -> None:
    order: list[str] = []

    class Noted:
        device = CPU
        spans = policy.spans
        stages = policy.stages

        def __init__(self, name: str) -> None:
            self.name = name

        def reset(self, session: str) -> None:
            pass

        def infer(self, seen: Any) -> Any:
            order.append(self.name)
            return policy.infer(seen)

    rounds: list[int] = []
    samples = latency.measure(
        [Noted("a"), Noted("b")],  # type: ignore[list-item]
        observation(),
        warm_up=1,
        repeats=2,
        yardstick=lambda: order.append("|"),
        on_round=lambda so_far: rounds.append(len(so_far[0].total)),
    )
    assert [set(taken.stages) for taken in samples] == [set(latency.STAGES)] * 2
    assert [len(values) for taken in samples for values in (*taken.stages.values(), taken.total)] == [2] * 8
    assert "".join(order) == "ab" + "|aabb" + "|bbaa"
    assert rounds == [1, 2]


def test_parts_of_traced_stages_are_measured_in_the_plain_ones() -> None:
    fast = load_policy(recipe="fast")
    seen = latency.random_observation(fast.spec, "put the spoon on the towel")
    fast.infer(seen)
    assert "select" not in fast.infer(seen).timing  # nobody can look inside
    (taken,) = latency.measure([fast], seen, warm_up=1, repeats=2, yardstick=lambda: None)
    assert [len(values) for values in (taken.parts["select"], taken.stages["encode"], taken.total)] == [2, 2, 2]


def test_a_fifth_of_the_image_is_new_in_each_answer() -> None:
    shown = [latency.later(observation(), number) for number in range(12)]
    assert [each.step for each in shown] == list(range(12))
    for before, now in itertools.pairwise(shown):
        for name, image in now.images.items():
            rows = np.flatnonzero((image != before.images[name]).any(axis=(1, 2)))
            assert 0 < np.ptp(rows) + 1 <= -(-len(image) // 5)
    assert len({each.images["3rd_view_camera"].tobytes() for each in shown}) == len(shown)


def test_speedup_is_relative_to_the_same_round() -> None:
    faster, (low, high) = latency.speedup([2.0, 20.0, 6.0], [1.0, 10.0, 3.0])
    assert (faster, low, high) == (2, 2, 2)


def test_the_interval_of_a_speedup_narrows_with_more_rounds() -> None:
    def interval(rounds: int) -> tuple[float, float]:
        random = np.random.default_rng(0)
        faster, (low, high) = latency.speedup(list(random.normal(20, 1, rounds)), list(random.normal(10, 1, rounds)))
        assert low <= faster <= high
        return low, high

    few, many = interval(10), interval(400)
    assert many[1] - many[0] < few[1] - few[0]
    assert many[0] < 2 < many[1]


def test_the_floor_is_the_slower_of_reading_and_computing() -> None:
    device = ceilings.Ceilings(bytes_per_second=1e9, flops_per_second={torch.float32: 1e9, torch.bfloat16: 4e9})
    assert device.floor_ms(10_000_000, {torch.float32: 1_000_000}) == pytest.approx(10)
    assert device.floor_ms(1_000_000, {torch.float32: 3_000_000, torch.bfloat16: 8_000_000}) == pytest.approx(5)


def test_the_better_of_two_measurements_is_the_ceiling() -> None:
    before = ceilings.Ceilings(2e9, {torch.float32: 5e9}, bytes_read=7)
    after = ceilings.Ceilings(3e9, {torch.float32: 4e9}, bytes_read=7)
    assert before.best(after) == ceilings.Ceilings(3e9, {torch.float32: 5e9}, bytes_read=7)


def test_ceilings_are_measured_in_every_dtype_with_as_many_bytes_as_asked_for_within_bounds() -> None:
    effort = Effort(sides=(16, 32), least_bytes=2**14, most_bytes=2**18, seconds=0)
    found = {size: ceilings.measure_ceilings(CPU, {torch.float32}, size, effort) for size in (1, 2**16, 2**30)}
    assert [device.bytes_read for device in found.values()] == [2**14, 2**16, 2**18]
    for device in found.values():
        assert device.bytes_per_second > 0
        assert device.flops_per_second[torch.float32] > 0


def test_peak_memory_sees_what_is_freed_again() -> None:
    memory.forget_peak_memory(CPU)
    before = memory.memory_in_use(CPU)
    with mmap.mmap(-1, 120_000_000) as pages:  # new ones, where an allocator may have old ones left
        pages.write(bytes(1) * 120_000_000)
    assert memory.peak_memory(CPU) >= before + 100_000_000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_profile_holds_everything_the_format_asks_for(checkpoint: Path, dtype: str) -> None:
    content = prepare(settings(checkpoint, accel=["none", "unguided"], dtype=dtype), ["x"], LITTLE).measure()
    assert set(content["meta"]) == META_KEYS
    assert [row["recipe"] for row in content["rows"]] == ["none", "unguided"]
    for row in content["rows"]:
        assert set(row) == ROW_KEYS
        assert set(row["stages_ms"]) == {"encode", "prefill", "head", "total"}
        assert all(0 < ms["p50"] <= ms["p90"] <= ms["p99"] for ms in row["stages_ms"].values())
        assert row["gflops"] == pytest.approx(sum(row["stages_gflops"].values()))
        assert row["gflops"] == pytest.approx(sum(row["gflops_by_dtype"].values()))
        assert row["floor_ms"] > 0
        assert row["weight_bytes"] >= row["parameters"] * (4 if dtype == "float32" else 2)
        assert row["peak_bytes"] > row["weight_bytes"]
        assert row["speedup_ci95"][0] <= row["speedup"] <= row["speedup_ci95"][1]
    first, second = content["rows"]
    assert (first["speedup"], first["difference"]) == (1, 0)
    assert second["difference"] > 0
    assert content["meta"]["rounds"] == 2
    json.dumps(content)


def test_a_recipe_of_one_s_own_is_measured_though_one_of_that_name_ships(checkpoint: Path, tmp_path: Path) -> None:
    own = tmp_path / "fast.yaml"
    own.write_text("denoising_steps: 2\nguidance_scale: 1.0\n")
    subjects, _ = load(settings(checkpoint, accel=[str(own)]))
    assert [(each.policy.recipe.name, each.policy.recipe.denoising_steps) for each in subjects] == [("fast", 2)]


def test_the_command_writes_profile_json(run: Run, tmp_path: Path) -> None:
    assert run("accel=[unguided]", "out=here") == 0
    content = json.loads((tmp_path / "here" / "profile.json").read_text())
    assert content["rows"][0]["recipe"] == "unguided"
    assert content["rows"][0]["dtype"] == "float32"
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["profile.html", "profile.json"]


@pytest.mark.parametrize("argument", ["--trace", "trace=true"])
def test_the_command_writes_a_trace_of_every_recipe(run: Run, tmp_path: Path, argument: str) -> None:
    assert run("accel=[none,unguided]", argument, "out=here") == 0
    for recipe in ("none", "unguided"):
        events = json.loads((tmp_path / "here" / f"trace_{recipe}.json").read_text())["traceEvents"]
        assert {"encode", "prefill", "head", "total", "aten::addmm"} <= {event["name"] for event in events}


def test_the_command_lists_the_recipes(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("accel=list", "out=here") == 0
    shown, *slots = capsys.readouterr().out.split("\n\n")
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines] == recipes.names()
    assert all(len(line.split()) > 1 for line in lines)
    for slot, listed in zip(SLOTS, slots, strict=True):
        name, *each = listed.splitlines()
        assert name.startswith(slot)
        assert [line.split()[0] for line in each] == methods(slot)
        assert all(len(line.split()) > 2 for line in each)
    assert not (tmp_path / "here").exists()


def test_what_was_measured_before_a_crash_is_kept(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[float] = []

    def end_to_end(policy: VlaPolicy, seen: Observation) -> float:
        rounds.append(1.0)
        if len(rounds) == 4:
            raise RuntimeError("the device is gone")
        return rounds[-1]

    monkeypatch.setattr("eval.profiler.__main__.STORED_EVERY", 0)
    monkeypatch.setattr("eval.profiler.latency.end_to_end", end_to_end)
    with pytest.raises(RuntimeError, match="the device is gone"):
        run("accel=[none]", "repeats=9", "out=here")
    content = json.loads((tmp_path / "here" / "profile.json").read_text())
    assert (content["meta"]["rounds"], content["meta"]["repeats"]) == (3, 9)
    assert any("unfinished: 3 of 9" in caution for caution in content["meta"]["cautions"])


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("checkpoint=null model=huge", "unknown model 'huge'; allowed"),
        ("modle=tiny", "modle"),
        ("+colour=red", "unknown key colour; allowed: model"),
        ("accel=fastest", "unknown recipe accel='fastest'; allowed: none"),
        ("accel=[none,none]", "accel names none more than once"),
        ("accel=[]", "accel must name"),
        ("accel=[none,list]", "accel=list stands alone"),
        ("checkpoint=null model=cogact_base", "no weights ship for cogact_base"),
        ("trace=perhaps", "trace must be true or false"),
        ("dataset=bridge_orig", "dataset"),
        ("checkpoint=/nowhere", "/nowhere"),
        ("device=tpu", "device='tpu' is not there"),
        ("dtype=int8", "dtype 'int8'; allowed"),
        ("repeats=1", "repeats must be a whole number of at least 2"),
        ("threads=many", "threads must be"),
        ("init=3", "init must be one name"),
        ("out=/dev/null/folder", "cannot be written"),
    ],
)
def test_bad_input_is_refused(run: Run, capsys: pytest.CaptureFixture[str], argument: str, complaint: str) -> None:
    assert run(*argument.split()) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert "Traceback" not in error
