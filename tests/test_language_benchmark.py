"""The benchmark of seeing and reading: wrong options are said in a line, before anything is written."""

import sys
from pathlib import Path

import pytest

from benchmarks.language import main


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("tasks=[nosuch]", "unknown tasks ['nosuch']; allowed: widowx_spoon_on_towel"),
        ("conditions=nosuch", "unknown conditions ['nosuch']; allowed: official"),
        ("accel=nosuch", "unknown recipe accel='nosuch'; allowed: none"),
        ("model=nosuch", "unknown model 'nosuch'; allowed: tiny"),
        ("nokey=1", "unknown options ['nokey']; allowed: out"),
        ("episodes=0", "episodes must be at least 1, got 0"),
        ("tasks=[widowx_spoon_on_towel", "the options cannot be read"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_written(
    option: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["language", f"out={out}", option])
    assert main() == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
