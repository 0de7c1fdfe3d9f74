"""Pictures of kept tokens, and how choosing them shows in a profile."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.profiler.kept import check_source, observation_of, shaded, write_kept
from eval.profiler.latency import measure, random_observation
from eval.profiler.report import latency_cells
from tests.vla.family_members import GUIDED, member
from vla.api import InputError
from vla.policy import VlaPolicy

TOKENS = [{"method": "tome", "budget": 12}, {"method": "fastv", "layer": 1, "budget": 5}]


@pytest.fixture(scope="module")
def policy() -> VlaPolicy:
    return member("pi0", {**GUIDED, "execution": "lean", "tokens": TOKENS}, image_size=56)


def test_patches_without_a_token_are_dark() -> None:
    view = np.full((8, 12, 3), 200, np.uint8)
    picture = shaded(view, np.array([0, 5]), (2, 3))
    assert (picture[:4, :4] == 200).all()
    assert (picture[4:, 8:] == 200).all()
    assert (picture[4:, :8] == 40).all()


def test_every_camera_and_method_has_its_picture(policy: VlaPolicy, tmp_path: Path) -> None:
    file = tmp_path / "scene.png"
    Image.new("RGB", (30, 20), (255, 0, 0)).save(file)
    seen = observation_of(str(file), policy.spec, "open drawer")
    assert set(seen.images) == {camera.name for camera in policy.spec.cameras}
    assert all((image[..., 0] == 255).all() for image in seen.images.values())
    path = Path(write_kept(policy, seen, str(tmp_path)))
    assert path.name == "kept_custom.png"
    with Image.open(path) as sheet:
        assert sheet.width > 3 * 336  # what the policy sees, and what each method left
        assert sheet.height > 2 * 336  # a row for each camera


def test_what_cannot_be_shown_is_refused(policy: VlaPolicy, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"kept=nowhere is neither a picture file nor a task; tasks: .*widowx"):
        check_source("nowhere")
    damaged = tmp_path / "damaged.png"
    damaged.write_text("no picture")
    with pytest.raises(InputError, match=r"damaged.png cannot be read as a picture .* PNG and JPEG files will do"):
        observation_of(str(damaged), policy.spec, "open drawer")


def test_choosing_tokens_has_a_line_of_its_own_and_counts_once(policy: VlaPolicy) -> None:
    seen = random_observation(policy.spec, "open drawer")
    (samples,) = measure([policy], seen, warm_up=1, repeats=2, yardstick=lambda: None)
    assert len(samples.parts["select"]) == 2
    assert set(samples.stages) == {"encode", "prefill", "head"}
    row = {
        "recipe": "custom",
        "stages_ms": samples.percentiles(),
        "stages_gflops": dict.fromkeys(samples.stages, 1.0),
        "gflops": 3.0,
    }
    named = [line[1] for line in latency_cells([row])]
    assert named == ["stage", "encode", "prefill", "head", "of these: select", "total"]


def test_the_command_refuses_it_before_it_measures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.profiler.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cadence-profile", "accel=[random]", "kept=nowhere", "out=here"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert "neither a picture file nor a task" in capsys.readouterr().err
