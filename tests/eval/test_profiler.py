"""Laws of the profiler: what it counts can be computed by hand, and what it writes follows the format."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from eval.profiler import ceilings, cost, latency
from eval.profiler.__main__ import main
from eval.profiler.profile import profile
from eval.profiler.report import tables
from eval.profiler.settings import Settings
from tests.vla.small import observation, save_small, small_config
from vla.api import InputError
from vla.policy import VlaPolicy, load_policy

TINY_WORK = ceilings.Sizes(side=32, rows=64, columns=64)
CPU = torch.device("cpu")
ROW_KEYS = {
    "model", "checkpoint", "device", "dtype", "recipe", "stages_ms", "stages_of_total", "gflops", "stages_gflops",
    "parameters", "weight_bytes", "peak_bytes", "floor_ms", "speedup", "speedup_range",
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
        monkeypatch.setattr("eval.profiler.ceilings.SIZES", {"cpu": TINY_WORK})
        monkeypatch.setattr(sys, "argv", ["cadence-profile", f"checkpoint={checkpoint}", "repeats=2", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return command


def settings(checkpoint: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "model": "tiny", "accel": "none", "checkpoint": str(checkpoint), "init": "trained", "device": "cpu",
        "dtype": "float32", "threads": None, "instruction": "put carrot on plate", "warm_up": 1, "repeats": 2,
        "out": "out",
    }  # fmt: skip
    return Settings.read(values | changes)


def transformer_flops(tokens: int, width: int, depth: int, mlp: int) -> int:
    """Operations of pre-norm layers: four square projections, scores and mixture, an MLP of `mlp` weights."""
    return depth * (2 * tokens * (4 * width**2 + mlp) + 4 * tokens**2 * width)


def expected_flops(words: int) -> dict[str, int]:
    """Every matrix product and convolution of one answer of the small model, ten steps without guidance."""
    c = small_config()
    patches = c.visual_tokens
    patching = 2 * patches * 3 * c.patch_size**2 * c.vision_width
    projector = 2 * patches * (c.vision_width * c.language_width + c.language_width**2)
    vision = transformer_flops(1 + patches, c.vision_width, c.vision_depth, 8 * c.vision_width**2)
    sequence = 1 + patches + 1 + words + 1
    language = transformer_flops(
        sequence, c.language_width, c.language_depth, 3 * c.language_width * c.language_mlp_width
    )
    state = 2 * c.state_dim * c.language_width
    dit = transformer_flops(1 + c.horizon, c.head_width, c.head_depth, 8 * c.head_width**2)
    embedding = 2 * (256 * c.head_width + c.head_width**2 + c.language_width * c.head_width)
    ends = 2 * (2 * c.horizon + 1) * c.action_dim * c.head_width
    return {
        "encode": patching + vision + projector,
        "prefill": language + state,
        "head": 10 * (dit + embedding + ends),
    }


def test_operations_are_what_the_shapes_say(policy: VlaPolicy) -> None:
    counted = cost.count_flops(policy, observation())
    assert counted == expected_flops(words=19)


def test_guidance_doubles_the_head_and_nothing_else(checkpoint: Path, policy: VlaPolicy) -> None:
    plain = cost.count_flops(policy, observation())
    guided = cost.count_flops(load_policy(checkpoint=checkpoint, recipe="none"), observation())
    assert (guided["encode"], guided["prefill"]) == (plain["encode"], plain["prefill"])
    assert 1.8 * plain["head"] < guided["head"] <= 2 * plain["head"]


def test_watching_leaves_no_trace(policy: VlaPolicy) -> None:
    before, spans = policy.infer(observation()).actions, policy.spans
    cost.count_flops(policy, observation())
    latency.staged(policy, observation())
    latency.end_to_end(policy, observation())
    assert policy.spans is spans
    np.testing.assert_array_equal(policy.infer(observation()).actions, before)


def test_every_policy_is_measured_as_often_and_in_turns(policy: VlaPolicy) -> None:
    order: list[str] = []

    class Noted:
        device = CPU
        spans = policy.spans

        def __init__(self, name: str) -> None:
            self.name = name

        def infer(self, seen: Any) -> Any:
            order.append(self.name)
            return policy.infer(seen)

    samples = latency.measure([Noted("a"), Noted("b")], observation(), warm_up=1, repeats=2)  # type: ignore[list-item]
    assert [set(taken.stages) for taken in samples] == [set(latency.STAGES)] * 2
    assert [len(values) for taken in samples for values in (*taken.stages.values(), taken.total)] == [2] * 8
    assert "".join(order) == "ab" + "aabb" + "bbaa"


def test_speedup_is_relative_to_the_same_round() -> None:
    assert latency.speedup([2.0, 20.0, 6.0], [1.0, 10.0, 3.0]) == {"speedup": 2.0, "speedup_range": [2.0, 2.0]}


def test_the_floor_is_the_slower_of_reading_and_computing() -> None:
    device = ceilings.Ceilings(bytes_per_second=1e9, flops_per_second={torch.float32: 1e9, torch.bfloat16: 4e9})
    assert device.floor_ms(10_000_000, {torch.float32: 1_000_000}) == pytest.approx(10)
    assert device.floor_ms(1_000_000, {torch.float32: 3_000_000, torch.bfloat16: 8_000_000}) == pytest.approx(5)


def test_peak_memory_sees_what_is_freed_again() -> None:
    cost.forget_peak_memory(CPU)
    before = cost.memory_in_use(CPU)
    torch.ones(30_000_000)
    assert cost.peak_memory(CPU) >= before + 100_000_000


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_profile_holds_everything_the_format_asks_for(checkpoint: Path, dtype: str) -> None:
    content = profile(
        settings(checkpoint, accel=["none", "unguided"], dtype=dtype), ["cadence-profile"], sizes=TINY_WORK
    )
    assert {"version", "command", "machine", "packages", "git", "threads", "device", "ceilings"} <= set(content["meta"])
    assert [row["recipe"] for row in content["rows"]] == ["none", "unguided"]
    for row in content["rows"]:
        assert set(row) == ROW_KEYS
        assert set(row["stages_ms"]) == {"encode", "prefill", "head", "total"}
        assert all(0 < ms["p50"] <= ms["p90"] <= ms["p99"] for ms in row["stages_ms"].values())
        assert row["gflops"] == pytest.approx(sum(row["stages_gflops"].values()))
        assert row["floor_ms"] > 0
        assert row["weight_bytes"] >= row["parameters"] * (4 if dtype == "float32" else 2)
        assert row["speedup_range"][0] <= row["speedup"] <= row["speedup_range"][1]
    assert content["rows"][0]["speedup"] == 1
    json.dumps(content)


def test_the_tables_show_every_stage_and_recipe(checkpoint: Path) -> None:
    content = profile(settings(checkpoint, accel=["none", "unguided"]), ["cadence-profile"], sizes=TINY_WORK)
    console = Console(width=100, record=True, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        console.print(tables(content["rows"], content["meta"]))
    for word in ("encode", "prefill", "head", "total", "p50", "p90", "p99", "GFLOPs", "parameters", "unguided"):
        assert word in shown.get()


def test_the_command_writes_profile_json(run: Run, tmp_path: Path) -> None:
    assert run("accel=[unguided]", "out=here") == 0
    content = json.loads((tmp_path / "here" / "profile.json").read_text())
    assert content["rows"][0]["recipe"] == "unguided"
    assert content["rows"][0]["dtype"] == "float32"


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("checkpoint=null model=huge", "unknown model 'huge'; allowed"),
        ("modle=tiny", "modle"),
        ("+colour=red", "unknown key colour; allowed: model"),
        ("accel=fastest", "unknown recipe accel='fastest'; allowed: none"),
        ("accel=[none,none]", "accel names none more than once"),
        ("accel=[]", "accel must name"),
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


def test_settings_are_checked_when_built(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="warm_up"):
        settings(checkpoint, warm_up=0)
