"""Numbers and pages made of stored episodes."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eval import report as report_module
from eval.charts import wrapped
from eval.machine import describe
from eval.report import gallery, write_report
from eval.results import Record
from eval.statistics import wilson
from eval.summary import latency, latency_table, results, success_table
from tests.eval.records import broken, record

RECORDS = [record(0), record(1, success=False), record(2), broken(3), broken(4, outcome="timeout"), record(0, task="b")]
HOSTILE = '<script>alert("x")</script> & co'


def content(records: list[Record]) -> dict[str, Any]:
    return results(records, describe(["/bin/cadence-eval", "tasks=[toy]", "out=a b"], "llvmpipe"))


def text(page: object) -> str:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(page)
    return console.export_text()


def test_rates_count_scored_episodes_only() -> None:
    b, toy = content(RECORDS)["tasks"]
    assert (toy["task"], toy["n"], toy["successes"], toy["errors"]) == ("toy", 3, 2, 2)
    assert toy["success_rate"] == pytest.approx(2 / 3)
    assert toy["ci95"] == list(wilson(2, 3))
    assert (b["n"], b["success_rate"]) == (1, 1.0)


def test_measures_are_counted_apart() -> None:
    mixed = [record(0, success_strict=False), record(1, success_last_step=False, success_strict=False)]
    (task,) = content(mixed)["tasks"]
    assert (task["successes"], task["any_step"]["successes"], task["strict"]["successes"]) == (1, 2, 0)


def test_the_mean_weighs_tasks_equally_and_leaves_out_those_without_scored_episodes() -> None:
    assert content([*RECORDS, broken(0, task="c")])["mean_success"] == pytest.approx((2 / 3 + 1) / 2)


def test_the_interval_of_the_mean_has_the_width_of_as_many_episodes_as_the_mean_is_worth() -> None:
    same = [record(start, variant=variant) for start in range(24) for variant in ("base", "dark")]
    once = [record(start, task="b") for start in range(24)]
    assert content([*same, *once])["mean_ci95"] == pytest.approx(wilson(48, 48))  # a variant that changes nothing


def test_a_run_of_errors_alone_has_no_rate() -> None:
    everything = content([broken(0)])
    (task,) = everything["tasks"]
    assert (task["n"], task["success_rate"], task["ci95"], everything["mean_success"]) == (0, None, None, None)


def test_variants_are_counted_apart() -> None:
    (task,) = content([record(0), record(0, success=False, variant="lighting_bright")])["tasks"]
    assert {name: rate["success_rate"] for name, rate in task["per_variant"].items()} == {
        "base": 1.0,
        "lighting_bright": 0.0,
    }


def test_latencies_pool_samples_not_percentiles() -> None:
    assert latency({"round_trip": [1.0, 1.0, 1.0, 9.0]}) == {
        "p50": 1.0,
        "p99": 9.0,
        "stages": {"round_trip": {"p50": 1.0, "p99": 9.0}},
    }
    assert latency({}) == {"p50": None, "p99": None, "stages": {}}


def test_meta_says_how_to_make_it_again() -> None:
    meta = content(RECORDS)["meta"]
    assert list(meta) == ["version", "command", "machine", "gl_renderer", "packages", "git"]
    assert meta["command"] == "cadence-eval 'tasks=[toy]' 'out=a b'"


def test_the_tables_show_counts_rates_intervals_and_stages() -> None:
    everything = content(RECORDS)
    tasks, shown = everything["tasks"], text(success_table(everything))
    low, high = wilson(2, 3)
    assert f"2/3 = 66.7% [{100 * low:.1f}, {100 * high:.1f}]" in shown
    assert re.search(r"mean over 2 tasks\W+last step\W+n = 4: 83\.3% \[", shown)
    assert "success at the last step (SIMPLER)" in shown
    assert "macro average" in shown
    assert re.search(r"toy\W+round_trip\W+2\.00\W+3\.00", text(latency_table(tasks)))
    assert "[ms]" in text(latency_table(tasks))


def filmed(folder: Path) -> list[Record]:
    """Records with a (pretended) video each; the last one's file is missing."""
    items = [record(0), record(1, success=False), broken(2)]
    items = [record(9, video="videos/gone.mp4")] + [
        type(item)(**{**item.__dict__, "video": f"videos/{item.episode_id}.mp4"}) for item in items
    ]
    (folder / "videos").mkdir()
    for item in items[1:]:
        (folder / item.video).write_bytes(b"film %d" % item.episode_id)
    return items


def test_the_gallery_shows_what_went_wrong_first(tmp_path: Path) -> None:
    shown = list(gallery(tmp_path, filmed(tmp_path)))
    assert [item.episode_id for item, _ in shown] == [2, 1, 0]
    assert [base64.b64decode(source.partition(",")[2]) for _, source in shown] == [b"film 2", b"film 1", b"film 0"]


def test_videos_beyond_the_limit_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_module, "EMBEDDED_BYTES", 12)
    sources = [source for _, source in gallery(tmp_path, filmed(tmp_path))]
    assert [source.startswith("data:") for source in sources] == [True, True, False]
    assert sources[2] == "videos/0.mp4"


class Page(HTMLParser):
    """Remembers which elements a page has, what they refer to, and whether they nest."""

    VOID = ("meta", "link", "br", "img", "path", "use", "wbr")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.references: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_report_is_one_whole_page_that_needs_nothing_else(tmp_path: Path) -> None:
    records = [*filmed(tmp_path), *RECORDS[3:]]
    page = Page(write_report(tmp_path, content(records), records).read_text())
    assert page.open == []
    assert page.seen.count("video") == 3
    assert page.seen.count("svg") == 3
    assert "script" not in page.seen
    assert all(reference.startswith(("data:", "#")) for reference in page.references)


def test_text_from_outside_cannot_become_markup(tmp_path: Path) -> None:
    records = [broken(0, error=HOSTILE, task=HOSTILE, policy=HOSTILE), record(1, task=HOSTILE)]
    page = Page(write_report(tmp_path, content(records), records).read_text())
    assert "script" not in page.seen


@pytest.mark.parametrize("tasks", [("toy",), ("toy", "b")])
def test_paired_differences_have_a_mean_where_there_are_several_tasks(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    row = {"n": 2, "difference": 1.0, "discordant": {"run_only": 2, "baseline_only": 0}, "p_value": 0.5}
    rows = [{**row, "task": task, "ci95": [-0.315, 1.0]} for task in tasks]
    paired = {**row, "ci95": [0.07, 1.0], "baseline": "runs/hold", "tasks": rows}
    page = write_report(tmp_path, {**content(RECORDS), "paired": paired}, RECORDS).read_text()
    assert page.count("-31.5, 100.0") == len(tasks)
    assert page.count("mean over tasks") == len(tasks) - 1


@pytest.mark.parametrize("records", [[], [broken(0)], [record(0)]])
def test_a_report_of_any_run_can_be_written(tmp_path: Path, records: list[Record]) -> None:
    assert Page(write_report(tmp_path, content(records), records).read_text()).open == []


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("mean over tasks", ["mean over tasks"]),
        ("mean over all the tasks there are", ["mean over all the", "tasks there are"]),
        ("google_robot_pick_horizontal_coke_can", ["google_robot_pick_", "horizontal_coke_can"]),
        ("my $ suite.py:push", [r"my \$ suite.py:push"]),
    ],
)
def test_long_names_are_broken_between_words(name: str, lines: list[str]) -> None:
    assert wrapped(name).split("\n") == lines
