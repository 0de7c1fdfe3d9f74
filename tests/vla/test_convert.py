"""`cadence-convert`: published checkpoints in, native ones out, acting the same."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from tests.vla import published as tiny
from tests.vla.test_published import BRIDGE, observation
from vla.api import Camera, InputError
from vla.checkpoints import memory, native
from vla.checkpoints.__main__ import with_keys
from vla.checkpoints.convert import convert
from vla.policy import load_policy

PARTS = tiny.random_parts()
PROJECTION = "projector.fc2.weight"
UNSET = dict.fromkeys(("dataset", "dtype", "camera", "height", "width", "period", "rotation"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_cogact(tmp_path_factory.mktemp("convert") / "a=b's run", PARTS)


@pytest.fixture(scope="module")
def openvla(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_openvla(tmp_path_factory.mktemp("convert") / "model", tiny.hugging_face_names(PARTS))


def options(checkpoint: Path, out: Path, **given: Any) -> dict[str, Any]:
    return {"checkpoint": str(checkpoint), "out": str(out), **UNSET, **given}


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vla.checkpoints", *map(str, words)], capture_output=True, text=True, timeout=100
    )


def test_the_command_takes_two_directories(run: Path, tmp_path: Path) -> None:
    done = command(run, tmp_path / "out", f"dataset={BRIDGE}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "cogact, 10.6 M parameters in float32" in done.stdout
    ours, theirs = load_policy(checkpoint=tmp_path / "out"), load_policy(checkpoint=run, dataset=BRIDGE)
    np.testing.assert_array_equal(ours.infer(observation()).actions, theirs.infer(observation()).actions)


def test_the_command_says_what_is_wrong_and_leaves_nothing(run: Path, tmp_path: Path) -> None:
    done = command(run, tmp_path / "out")
    assert done.returncode == 2
    assert f"dataset=<key>: {BRIDGE}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_weights_stay_in_the_dtype_they_are_in(openvla: Path, tmp_path: Path) -> None:
    written = convert(options(openvla, tmp_path / "out", dataset=BRIDGE))
    assert (tmp_path / "out" / native.WEIGHTS).stat().st_size < 2.1 * written.parameters
    ours, theirs = load_policy(checkpoint=tmp_path / "out"), load_policy(checkpoint=openvla, dataset=BRIDGE)
    np.testing.assert_array_equal(ours.infer(observation()).actions, theirs.infer(observation()).actions)


def test_in_bfloat16_the_diffusion_head_stays_exact(run: Path, tmp_path: Path) -> None:
    convert(options(run, tmp_path / "out", dataset=BRIDGE, dtype="bf16"))
    ours, theirs = load_policy(checkpoint=tmp_path / "out"), load_policy(checkpoint=run, dataset=BRIDGE)
    heads = [{n: t for n, t in p.model.state_dict().items() if n.startswith("head.")} for p in (ours, theirs)]
    assert all((tensor == heads[1][name]).all() for name, tensor in heads[0].items())


def test_a_robot_nobody_knows_can_be_described(tmp_path: Path) -> None:
    source = tiny.write_cogact(tmp_path / "run", PARTS, {"my_robot": tiny.STATISTICS[BRIDGE]})
    described = {"camera": "front", "height": 240, "width": 320, "period": 0.1, "rotation": "vector"}
    convert(options(source, tmp_path / "out", **described))
    processing = native.load(tmp_path / "out").processing
    assert processing.cameras == (Camera("front", 240, 320),)
    assert (processing.period, processing.rotation) == (0.1, "vector")


def test_several_cameras_are_a_list(openvla: Path, tmp_path: Path) -> None:
    assert (with_keys(["camera=[top,wrist]"])) == ["camera=[top,wrist]"]
    (parsed,) = OverridesParser.create().parse_overrides(["camera=[top,wrist]"])
    assert (parsed.value(), parsed.is_sweep_override()) == (["top", "wrist"], False)
    with pytest.raises(InputError, match=r"reads one camera, camera= names 2: \['top', 'wrist'\]"):
        convert(options(openvla, tmp_path / "out", dataset=BRIDGE, camera=["top", "wrist"]))
    convert(options(openvla, tmp_path / "out", dataset=BRIDGE, camera=["top"]))
    assert native.load(tmp_path / "out").processing.cameras == (Camera("top", 480, 640),)


def test_weights_in_several_dtypes_become_what_holds_all_exactly(openvla: Path, tmp_path: Path) -> None:
    mixed = Path(shutil.copytree(openvla, tmp_path / "mixed"))
    tiny.edit_shard(mixed, lambda tensors: tensors.update({name: t.float() for name, t in tensors.items()}))
    written = convert(options(mixed, tmp_path / "out", dataset=BRIDGE))
    assert written.dtype == torch.float32
    ours, theirs = load_policy(checkpoint=tmp_path / "out"), load_policy(checkpoint=mixed, dataset=BRIDGE)
    np.testing.assert_array_equal(ours.infer(observation()).actions, theirs.infer(observation()).actions)


def test_what_is_cast_needs_memory_and_what_is_written_disk(
    openvla: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 30_000_000)
    with pytest.raises(InputError, match=r"needs 0\.0 GB of memory to store it in float32, cpu has 0\.0 GB free"):
        convert(options(openvla, tmp_path / "fp32", dataset=BRIDGE, dtype="fp32"))
    convert(options(openvla, tmp_path / "bf16", dataset=BRIDGE, dtype="bf16"))  # as it is stored: nothing is cast
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(InputError, match=rf"deep/out needs 0\.0 GB of disk, {tmp_path} has 0\.0 GB free"):
        convert(options(openvla, tmp_path / "deep" / "out", dataset=BRIDGE))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bf16"]


def test_numbers_too_large_for_float16_are_refused(openvla: Path, tmp_path: Path) -> None:
    large = Path(shutil.copytree(openvla, tmp_path / "large"))
    tiny.edit_shard(large, lambda tensors: tensors[PROJECTION].view(-1)[:1].fill_(1e5))
    with pytest.raises(InputError, match=r"\['projector\.2\.weight'\] hold values beyond 6\.55e\+04"):
        convert(options(large, tmp_path / "out", dataset=BRIDGE, dtype="float16"))


def test_what_is_there_is_never_overwritten(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        convert(options(run, tmp_path, dataset=BRIDGE))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"checkpoint": 3}, "checkpoint must be"),
        ({"dataset": ["a", "b"]}, "dataset must be"),
        ({"camera": 3}, "camera must be one name or a list"),
        ({"camera": ["a", "a"]}, "camera must be one name or a list of different names"),
        ({"dtype": "int8"}, "int8.*allowed: float32"),
        ({"height": 0}, "height must be"),
        ({"width": True}, "width must be"),
        ({"period": "fast"}, "period must be"),
        ({"rotation": "quaternion"}, "rotation must be 'vector' or 'euler'"),
        ({"checkpoint": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_options_are_refused_by_name(run: Path, tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        convert({**options(run, tmp_path / "out", dataset=BRIDGE), **given})


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1))
def test_any_path_arrives_as_it_is(path: str) -> None:
    words = with_keys([f"/{path}", f"./{path}", "dtype=bf16", "--help"])
    assert words[2:] == ["dtype=bf16", "--help"]
    first, second = OverridesParser.create().parse_overrides(words[:2])
    assert (first.get_key_element(), second.get_key_element()) == ("checkpoint", "out")
    assert str(first.value()).replace("\\${", "${") == f"/{path}"
    assert str(second.value()).replace("\\${", "${") == f"./{path}"
