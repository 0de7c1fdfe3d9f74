"""What a profile looks like: tables, a page that needs no network, and words of caution."""

import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eval.profiler.method import cautions
from eval.profiler.profile import prepare
from eval.profiler.report import tables, write_page
from tests.eval.profiles import LITTLE, settings
from tests.vla.small import save_small

META = {
    "yardstick_ms": {"p50": 1.0, "p90": 1.05, "p99": 2.0},
    "rounds": 5,
    "repeats": 5,
    "ceilings": {"flops_per_second": {"float32": 1e9, "bfloat16": 4e9}},
}


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    checkpoint = save_small(tmp_path_factory.mktemp("profiler") / "checkpoint")
    return prepare(settings(checkpoint, accel=["none", "unguided"]), ["cadence-profile", "<&>"], LITTLE).measure()


def row(**changes: Any) -> dict[str, Any]:
    return {"recipe": "fast", "stages_of_total": 1.02, "floor_ms": 3.0, "stages_ms": {"total": {"p50": 10.0}}} | changes


def test_the_tables_show_every_stage_and_recipe(content: dict[str, Any]) -> None:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(tables(content))
    for word in ("encode", "prefill", "head", "total", "p50", "p90", "p99", "GFLOPs", "parameters", "unguided"):
        assert word in shown.get()


def test_the_page_is_one_file_with_a_picture_that_needs_no_network(content: dict[str, Any], tmp_path: Path) -> None:
    write_page(tmp_path / "profile.html", content)
    page = (tmp_path / "profile.html").read_text()
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)|url\(([^)]*)\)""", page)
    assert all(source.startswith(("data:", "#")) for pair in sources for source in pair if source)
    assert "<script" not in page
    assert "&lt;&amp;&gt;" in page
    (picture,) = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    for word in ("encode, p50", "prefill, p50", "head, p50", "total, p50", "total, p99", "floor", "unguided"):
        assert word in picture


@pytest.mark.parametrize(
    ("changed_row", "changed_meta", "caution"),
    [
        ({}, {}, None),
        ({"stages_of_total": 0.94}, {}, "fast: the stages add up to 94 % of the total, more than 5 % off"),
        ({"stages_of_total": 1.06}, {}, "106 %"),
        ({"floor_ms": 11.0}, {}, "fast: 10.00 ms are below the floor of 11.00 ms"),
        ({}, {"yardstick_ms": {"p50": 1.0, "p90": 1.5, "p99": 2.0}}, "the machine was not quiet"),
        ({}, {"rounds": 3}, "unfinished: 3 of 5 rounds"),
        ({}, {"ceilings": {"flops_per_second": {"float32": 4e9, "bfloat16": 1e9}}}, "this device emulates them"),
        ({}, {"ceilings": {"flops_per_second": {"float32": 4e9}}}, None),
    ],
)
def test_what_is_not_as_it_should_be_is_said(
    changed_row: dict[str, Any], changed_meta: dict[str, Any], caution: str | None
) -> None:
    found = cautions([row(**changed_row)], META | changed_meta)
    assert len(found) == (caution is not None)
    assert all(str(caution) in said for said in found)
