"""The doctor names what is wrong and what to type, and never claims that a broken machine is fine."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from eval import doctor


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that stands for the shipped policy's."""
    monkeypatch.setattr(doctor, "shipped_checkpoint", lambda: tmp_path)
    return tmp_path


def pretend_installed(monkeypatch: pytest.MonkeyPatch, packages: set[str]) -> None:
    monkeypatch.setattr(doctor, "is_installed", packages.__contains__)


def pretend_rendering(monkeypatch: pytest.MonkeyPatch, *results: tuple[str, str]) -> None:
    answers = iter(results)
    monkeypatch.setattr(doctor, "render_once", lambda: next(answers))


def test_this_machine_renders() -> None:
    renderer, error = doctor.render_once()
    assert renderer
    assert not error


def test_a_broken_gl_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    finding = doctor.rendering_finding()
    assert finding.is_broken
    assert "nonsense" in finding.text
    assert finding.remedy


def test_a_base_install_is_fine_and_says_how_to_get_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, set())
    findings = list(doctor.examine())
    assert not any(finding.is_broken for finding in findings)
    assert "pip install 'cadence-vla[sim]'" in "\n".join(map(doctor.line, findings))


@pytest.mark.parametrize("display", [{}, {"DISPLAY": ":0"}, {"MUJOCO_GL": "osmesa"}, {"MUJOCO_GL": ""}])
def test_it_draws_as_the_environments_do(monkeypatch: pytest.MonkeyPatch, display: dict[str, str]) -> None:
    for name in ("DISPLAY", "MUJOCO_GL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in display.items():
        monkeypatch.setenv(name, value)
    ask = "import os, envs; print(os.environ.get('MUJOCO_GL', ''))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert doctor.gl_backend() == done.stdout.strip()


EXTRAS = {"sim": ("gymnasium", "mujoco"), "data": ("pyarrow", "rich"), "eval": ("jinja2", "rich"), "server": ("torch",)}


def test_half_an_extra_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, {"gymnasium"})
    finding = doctor.packages_finding("sim", EXTRAS)
    assert finding.is_broken
    assert "missing mujoco" in finding.text


def test_what_another_extra_brings_does_not_make_one_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, {"torch", "jinja2", "pyarrow", "rich"})  # torch itself asks for jinja2
    finding = doctor.packages_finding("eval", {**EXTRAS, "eval": (*EXTRAS["eval"], "scipy")})
    assert finding.text.startswith("missing scipy; found jinja2")
    assert "cadence-vla[eval]" in finding.remedy
    assert not finding.is_broken


def test_packages_are_read_from_the_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=1.26", 'hydra-core>=1.3; extra == "data"', "PyYAML; extra == 'data'", 'torch; extra == "server"']
    monkeypatch.setattr(doctor, "requires", lambda _: lines)
    assert list(doctor.requirements("any", "data")) == ["hydra-core", "pyyaml"]
    assert list(doctor.requirements("any")) == ["numpy"]


@pytest.mark.parametrize("extra", doctor.EXTRAS)
def test_every_extra_is_in_the_metadata(extra: str) -> None:
    assert list(doctor.requirements(doctor.DISTRIBUTION, extra))


def test_the_remedy_of_a_slow_machine_does_not_make_it_broken() -> None:
    finding = doctor.Finding("rendering", "llvmpipe", "install the driver", needed=False)
    assert not finding.is_broken
    assert doctor.line(finding).startswith("note")


def test_a_missing_policy_is_broken(checkpoint: Path) -> None:
    finding = doctor.checkpoint_finding()
    assert finding.is_broken
    assert str(checkpoint) in finding.text


def test_a_damaged_policy_is_broken(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"not tensors")
    assert "damaged" in doctor.checkpoint_finding().text


def test_a_sound_policy_is_fine(checkpoint: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, checkpoint / "model.safetensors")
    assert not doctor.checkpoint_finding().is_broken


def test_working_gl_installs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_rendering(monkeypatch, ("llvmpipe", ""))
    assert doctor.install_gl() == doctor.FINE


def test_without_root_the_line_to_type_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend_rendering(monkeypatch, ("", "no libEGL"))
    monkeypatch.setattr(doctor, "is_root", lambda: False)
    monkeypatch.setattr(doctor, "gl_install_line", lambda: "apt-get install -y libegl1")
    assert doctor.install_gl() == doctor.CANNOT_INSTALL
    assert "sudo sh -c 'apt-get install -y libegl1'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error_afterwards", "status"), [("", doctor.FINE), ("still no libEGL", doctor.CANNOT_INSTALL)]
)
def test_root_runs_the_install_line_once_and_looks_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error_afterwards: str, status: int
) -> None:
    pretend_rendering(monkeypatch, ("", "no libEGL"), ("", error_afterwards))
    monkeypatch.setattr(doctor, "is_root", lambda: True)
    monkeypatch.setattr(doctor, "gl_install_line", lambda: f"echo run >> {tmp_path}/log")
    assert doctor.install_gl() == status
    assert (tmp_path / "log").read_text() == "run\n"


def test_the_command_prints_one_line_for_each_part() -> None:
    done = subprocess.run([sys.executable, "-m", "eval.doctor"], capture_output=True, text=True, check=False)
    assert done.returncode in {doctor.FINE, doctor.BROKEN}
    for subject in (
        "python",
        "machine",
        "[server]",
        "[sim]",
        "[data]",
        "[eval]",
        "device",
        "rendering",
        "shipped policy",
    ):
        assert f" {subject} " in done.stdout
