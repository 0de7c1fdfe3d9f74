"""What `benchmarks/speed.py` concludes from a row of a profile."""

from typing import Any

import pytest

from benchmarks.speed import judged


def row(low: float, middle: float, high: float, device: str = "cpu", total: float = 10.0) -> dict[str, Any]:
    stages = {"total": {"p50": total}}
    return {
        "device": device,
        "speedup": middle,
        "speedup_ci95": [low, high],
        "stages_ms": stages,
        "floor_ms": 4.0,
    }


@pytest.mark.parametrize(
    ("model", "made", "words"),
    [
        ("tiny", row(2.0, 2.1, 2.2), ["wanted 2.0: reached"]),
        ("tiny", row(1.9, 2.1, 2.2), ["wanted 2.0: undecided"]),
        ("tiny", row(1.4, 1.5, 1.9), ["wanted 2.0: missed"]),
        ("cogact_base", row(1.0, 1.05, 1.09), ["wanted 1.1: missed"]),
        ("cogact_base", row(4.0, 4.5, 5.0, "cuda"), ["wanted 4.0: reached", "wanted at most 2.5: reached"]),
        ("openvla_7b", row(4.0, 4.5, 5.0, "cuda", 11.0), ["wanted 4.0: reached", "wanted at most 2.5: missed"]),
        ("tiny", row(1.0, 1.0, 1.0, "cuda"), ["wanted at most 2.5: reached"]),
    ],
)
def test_only_a_whole_interval_decides(model: str, made: dict[str, Any], words: list[str]) -> None:
    found = judged(model, made)
    assert [line.rpartition("; ")[2] for line, _ in found] == words
    assert [missed for _, missed in found] == ["missed" in word for word in words]
