"""What a point of success costs, from runs whose outcomes are known."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from benchmarks.latency import main
from eval.latency_curve import Point, curve, words
from eval.results import Record
from eval.summary import results
from tests.eval.records import broken, record


def run(successes: int, n: int = 20, task: str = "toy") -> list[Record]:
    return [record(number, success=number < successes, task=task) for number in range(n)]


def point(latency_ms: float, records: list[Record], loop: str = "wait") -> Point:
    return Point(loop, latency_ms, results(records, {}))


def line(*successes: int, loop: str = "wait", step: float = 100.0) -> list[Point]:
    return [point(step * number, run(count), loop) for number, count in enumerate(successes)]


def test_the_cost_is_the_slope_and_its_inverse() -> None:
    cost = curve(line(20, 16, 12, 8, 4), [], {})["loops"]["wait"]["cost"]
    assert cost["points_per_100_ms"] == pytest.approx(-20)
    assert cost["ms_per_point"] == pytest.approx(5)
    low, high = cost["ms_per_point_ci95"]
    assert low < 5 < high
    assert cost["half_ms"] == pytest.approx(250)


def test_an_interval_has_width_where_nothing_varied() -> None:
    low, high = curve(line(20, 20, 0, 0), [], {})["loops"]["wait"]["cost"]["ci95"]
    assert high - low > 5


def test_no_cost_is_claimed_where_none_was_found() -> None:
    loop = curve(line(12, 13, 12, 13), [], {})["loops"]["wait"]
    assert loop["cost"]["ms_per_point"] is None
    assert "no cost of latency was found" in words("wait", loop)


def test_loops_are_told_apart_and_points_ordered() -> None:
    content = curve([*line(20, 0)[::-1], *line(20, 20, loop="asynchronous")], [], {})
    assert list(content["loops"]) == ["wait", "asynchronous"] or list(content["loops"]) == ["asynchronous", "wait"]
    assert [point["latency_ms"] for point in content["loops"]["wait"]["points"]] == [0, 100]
    assert content["words"][list(content["loops"]).index("wait")].startswith("wait: a point of success costs 1 ms")


def test_marks_lie_on_the_curve_and_nowhere_beyond_it() -> None:
    marks = [{"recipe": name, "latency_ms": ms, "source": "p"} for name, ms in (("fast", 50.0), ("slow", 500.0))]
    inside, beyond = curve(line(20, 10), marks, {})["marks"]
    assert inside["success"] == {"wait": pytest.approx(0.75)}
    assert beyond["success"] == {"wait": None}


def test_errors_are_neither_success_nor_failure() -> None:
    points = [point(0.0, [*run(10, 10), broken(11)]), point(100.0, [broken(0)])]
    loop = curve(points, [], {})["loops"]["wait"]
    assert [(each["n"], each["success_rate"], each["errors"]) for each in loop["points"]] == [
        (10, 1.0, 1),
        (0, None, 1),
    ]
    assert loop["cost"] is None


def test_tasks_weigh_equally() -> None:
    records = [*run(10, 10, "a"), *run(0, 30, "b")]
    (only,) = curve([point(0.0, records)], [], {})["loops"]["wait"]["points"]
    assert only["success_rate"] == pytest.approx(0.5)


def test_the_sweep_runs_every_point_and_draws_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = ["policy=expert", "tasks=[conveyor_google_robot]", "variants=base", "episodes=2", "video=false"]
    assert main(["--out", str(tmp_path), "--latencies", "0", "5000", "--loops", "wait", "--", *keys]) == 0
    content = json.loads((tmp_path / "latency.json").read_text())
    assert [point["successes"] for point in content["loops"]["wait"]["points"]] == [2, 0]
    assert content["words"][0] in capfd.readouterr().out
    assert "Success against latency" in (tmp_path / "report.html").read_text()


def test_a_point_that_ended_before_its_first_episode_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.latency.subprocess.run", lambda command, check: CompletedProcess(command, 1))
    assert main(["--out", str(tmp_path), "--latencies", "50", "--loops", "wait"]) == 1
    assert "wait, 50 ms has no results" in capsys.readouterr().err


def test_a_sweep_with_an_unknown_key_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    assert main(["--out", str(tmp_path / "sweep"), "--latencies", "0", "--loops", "wait", "--", "speed=fast"]) == 2
    assert not (tmp_path / "sweep").exists()


@pytest.mark.parametrize("text", [None, "{", '{"rows": [{"recipe": "fast"}]}'])
def test_a_profile_that_cannot_be_read_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    profile = tmp_path / "profile.json"
    if text is not None:
        profile.write_text(text)
    out = tmp_path / "sweep"
    assert main(["--out", str(out), "--profile", str(profile), "--latencies", "0", "--loops", "wait"]) == 2
    assert f"--profile {profile}" in capsys.readouterr().err
    assert not out.exists()
