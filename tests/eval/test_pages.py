"""The pages in a real browser: nothing from the network, no errors, videos play, charts draw, nothing overflows."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.latency_curve import FILE, Point, curve
from eval.machine import describe
from eval.observers import Video
from eval.profiler.profile import prepare
from eval.profiler.report import write_page
from eval.report import write_report
from eval.results import Record
from eval.rollout import Episode
from eval.summary import results
from tests.eval.profiles import LITTLE, settings
from tests.eval.records import broken, record
from tests.vla.small import save_small
from vla.api import Observation

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (400, 1400)
LONG = "google_robot_place_apple_in_closed_top_drawer"

if BROWSER is None:
    pytest.skip("there is no chromium on this machine (apt-get install chromium)", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright's Python package is not installed")


def film(folder: Path, item: Record) -> Record:
    """The record with a short real video."""
    episode = Episode(item.task, item.episode_id)
    video = Video(folder / "videos", episode, period=0.2)
    for number in range(6):
        image = np.full((64, 64, 3), 40 * number, np.uint8)
        image[10 * number : 10 * number + 8] = (200, 80, 40)
        video(Observation({"front": image}, "lift", step=number))
    return replace(item, video=f"videos/{video.finish(item)}")


def records_of(task: str, seed: int) -> list[Record]:
    draws = np.random.default_rng(seed)
    variants = ("base", "lighting_darker", "distractors_more", "camera_higher")
    return [
        record(number, success=bool(draws.random() < 0.8 - 0.2 * place), task=task, variant=variant)
        for place, variant in enumerate(variants)
        for number in range(12)
    ]


def paired(tasks: list[str]) -> dict[str, Any]:
    """What `results.json` holds with a baseline."""
    row = {"n": 48, "discordant": {"run_only": 7, "baseline_only": 2}, "p_value": 0.18, "difference": 0.1}
    rows = [{**row, "task": task, "ci95": [-0.02, 0.22]} for task in tasks]
    return {**row, "ci95": [0.01, 0.2], "baseline": "runs/baseline", "tasks": rows}


def sweep(seed: int = 0) -> dict[str, Any]:
    draws = np.random.default_rng(seed)
    points = [
        Point(
            loop, ms, results([record(n, success=bool(draws.random() < 0.9 - loss * ms / 1000)) for n in range(24)], {})
        )
        for loop, loss in (("wait", 0.9), ("asynchronous", 0.5), ("real_time_chunking", 0.3))
        for ms in (0.0, 100.0, 200.0, 400.0, 800.0)
    ]
    marks = [{"recipe": name, "latency_ms": ms, "source": "profile.json"} for name, ms in (("none", 212), ("fast", 38))]
    return curve(points, marks, {})


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report with everything that one can have, and a profile."""
    folder = tmp_path_factory.mktemp("pages")
    tasks = [LONG, "widowx_spoon_on_towel", "conveyor_widowx"]
    records = [item for number, task in enumerate(tasks) for item in records_of(task, number)]
    records[:4] = [film(folder, item) for item in records[:4]]
    records += [broken(90, task=LONG, error="RuntimeError: " + "a_very_long_word_" * 12)]
    meta = describe(["cadence-eval", *[f"out={'x' * 90}"]], "llvmpipe")
    again = [broken(0, task=LONG, error="x" * 90)]
    content = results(records, meta, {"camera_higher"}, retried=again)
    (folder / FILE).write_text(json.dumps(sweep()))
    report = write_report(folder, {**content, "paired": paired(tasks)}, records)
    checkpoint = save_small(folder / "checkpoint")
    made = prepare(settings(checkpoint, accel=["none", "unguided"]), ["cadence-profile"], LITTLE).measure()
    write_page(folder / "profile.html", made)
    return {"report": report, "profile": folder / "profile.html"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=["report", "profile"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_shows_everything_and_complains_of_nothing(
    pages: dict[str, Path], browser: Any, name: str, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    charts = page.evaluate("[...document.querySelectorAll('svg')].map(e => [e.getBBox().width, e.clientWidth])")
    assert len(charts) == {"report": 6, "profile": 1}[name]
    assert all(drawn > 100 and shown > 100 for drawn, shown in charts)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert outside(page) == []
    dark = sum(map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))) < 200
    assert dark == (scheme == "dark")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert said == []
    page.close()


def outside(page: Any) -> list[str]:
    """Elements that stick out of the window, but for those inside what scrolls by itself."""
    return page.evaluate(
        """[...document.querySelectorAll('body *')]
           .filter(e => !e.closest('.wide > *') && !e.closest('svg > *'))
           .filter(e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1)
           .map(e => e.outerHTML.slice(0, 80))"""
    )


def test_text_of_charts_can_be_selected(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    assert "success [%] with 95% interval" in page.evaluate("document.querySelector('svg').textContent")
    page.close()


def test_videos_play(pages: dict[str, Path], browser: Any) -> None:
    page = browser.new_page()
    page.goto(pages["report"].as_uri())
    played = page.evaluate(
        """Promise.all([...document.querySelectorAll('video')].map(video => new Promise((done, failed) => {
             video.onerror = () => failed(video.error.message);
             video.ontimeupdate = () => video.currentTime > 0.3 && done([video.videoWidth, video.duration]);
             video.play().catch(failed);
           })))"""
    )
    assert len(played) == 4
    assert all(wide == 64 and seconds == pytest.approx(1.2, abs=0.05) for wide, seconds in played)
    page.close()
