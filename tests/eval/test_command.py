"""`cadence-eval` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from eval import machine
from eval.__main__ import main
from eval.evaluate import key_of, pending
from eval.planning import plan, resolve
from eval.results import RunFolder
from eval.rollout import Episode
from eval.settings import Settings
from eval.summary import results
from vla.api import InputError
from vla.overrides import argument

TASK = "widowx_spoon_on_towel"
KNOWN = ("google_robot_open_drawer", "widowx_carrot_on_plate", TASK)
FAST = ("policy=random", "video=false", "starts=random", "episodes=3")
KILLED_AFTER_ONE = """
import os, signal
from eval.__main__ import main
from eval.results import RunFolder

add = RunFolder.add
RunFolder.add = lambda folder, record: (add(folder, record), os.kill(os.getpid(), signal.SIGKILL))
main()
"""
TIMES = ("wall_seconds", "latency_ms")
DEFAULTS: dict[str, Any] = {
    "tasks": [TASK],
    "policy": "served",
    "setting": "visual_matching",
    "variants": None,
    "scene": "official",
    "overlay": None,
    "robot_assets": None,
    "starts": "grid",
    "episodes": None,
    "seed": 0,
    "execute": None,
    "out": "runs",
    "video": True,
    "timeout": 10.0,
    "codec": "raw",
    "quality": 95,
    "resize": False,
    "keys": None,
    "server_key": None,
    "endpoint": None,
    "model": "tiny",
    "accel": "none",
    "checkpoint": None,
    "dataset": None,
    "init": "trained",
    "device": "cpu",
    "dtype": "float32",
    "threads": None,
    "workers": 1,
    "max_batch": None,
    "max_wait_ms": 0,
    "cluster": None,
    "replicas": None,
    "baseline": None,
}

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs the command in this process; returns its exit status."""

    def command(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["cadence-eval", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return command


def outcomes(out: Path) -> list[dict[str, Any]]:
    """Stored episodes by number, without how long they took."""
    lines = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    lines.sort(key=lambda line: line["episode_id"])
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def test_a_killed_and_continued_run_equals_one_never_interrupted(run: Run, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED_AFTER_ONE, *FAST, f"out={tmp_path / 'two'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    killed = tmp_path / "two" / "episodes.jsonl"
    assert killed.read_bytes().count(b"\n") == 1
    with killed.open("ab") as file:
        file.write(b'{"task": "widowx_sp')  # what a kill inside a write leaves
    assert run(*FAST, f"out={tmp_path / 'two'}") == 0
    assert run(*FAST, f"out={tmp_path / 'one'}") == 0
    assert outcomes(tmp_path / "two") == outcomes(tmp_path / "one")
    assert len(outcomes(tmp_path / "two")) == 3


def test_results_are_those_of_the_stored_lines(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*FAST, "out=a") == 0
    shown = capsys.readouterr().out
    content = json.loads((tmp_path / "a" / "results.json").read_text())
    with RunFolder(tmp_path / "a") as folder:
        assert content == results(folder.records.values(), content["meta"])
    assert "0/3 = 0.0% [0.0, 56.1]" in shown
    assert (tmp_path / "a" / "report.html").stat().st_size > 0
    assert content["meta"]["command"].endswith("out=a")


def test_a_finished_run_is_not_repeated_and_another_is_refused(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*FAST[:3], "episodes=1", "out=a") == 0
    before = (tmp_path / "a" / "episodes.jsonl").read_bytes()
    with monkeypatch.context() as nothing_starts:
        nothing_starts.setattr("eval.sources.open_source", None)
        assert run(*FAST[:3], "episodes=1", "out=a") == 0
    content = json.loads((tmp_path / "a" / "results.json").read_text())
    (software,) = json.loads((tmp_path / "a" / "run.json").read_text())["notes"]["software"]
    assert content["meta"]["gl_renderer"] == software["gl_renderer"]
    assert run(*FAST[:3], "episodes=1", "out=a", "seed=5") == 2
    assert "seed=0, this one has seed=5" in capsys.readouterr().err
    assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == before


def test_a_folder_holds_the_run_of_one_set_of_tasks(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("policy=hold", "video=false", "episodes=1", "out=a") == 0
    before = (tmp_path / "a" / "episodes.jsonl").read_bytes()
    assert run("policy=hold", "video=false", "episodes=1", "out=a", "tasks=[widowx_stack_cube]") == 2
    assert "tasks=['widowx_spoon_on_towel'], this one has tasks=['widowx_stack_cube']" in capsys.readouterr().err
    assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == before


def test_software_that_changes_within_a_run_is_said_and_stays_in_its_results(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> dict[str, Any]:
        return json.loads((tmp_path / "a" / "results.json").read_text())

    more = ("policy=hold", *FAST[1:3], "out=a")
    assert run(*more, "episodes=1") == 0
    assert run(*more, "episodes=2") == 0
    assert content()["meta"]["mixed"] == []
    old = content()["meta"]["packages"]["mujoco"]
    now = machine.version
    monkeypatch.setattr(machine, "version", lambda package: "9.9" if package == "mujoco" else now(package))
    assert run(*more, "episodes=2") == 0  # nothing is left to run: a new report is no new software
    assert (content()["meta"]["mixed"], content()["meta"]["packages"]["mujoco"]) == ([], old)
    capsys.readouterr()
    assert run(*more, "episodes=3") == 0
    assert f"begun with other software, results will say so: mujoco {old}, then 9.9" in capsys.readouterr().out
    assert (content()["meta"]["mixed"], content()["meta"]["packages"]["mujoco"]) == ([f"mujoco {old}, then 9.9"], "9.9")
    for file in ("results.md", "report.html"):
        assert f"software changed during this run: mujoco {old}, then 9.9" in (tmp_path / "a" / file).read_text()


def test_a_run_is_compared_with_a_baseline_on_the_same_starts(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("policy=hold", *FAST[1:], "out=hold") == 0
    assert run("policy=expert", *FAST[1:3], "episodes=2", "out=expert", "baseline=hold", "margin=0.2") == 0
    shown, table = capsys.readouterr().out, (tmp_path / "expert" / "results.md").read_text()
    title = "this run minus hold [percentage points]; non-inferior at a margin of 20"
    assert title in " ".join(shown.split())
    assert title in table
    assert "- p: exact McNemar" in table
    paired = json.loads((tmp_path / "expert" / "results.json").read_text())["paired"]
    assert (paired["baseline"], paired["n"], paired["difference"]) == ("hold", 2, 1.0)
    assert paired["non_inferiority"]["margin"] == paired["margin"] == 0.2
    assert paired["discordant"] == {"run_only": 2, "baseline_only": 0}
    assert paired["ci95"][0] <= paired["difference"] <= paired["ci95"][1]
    assert run("policy=expert", *FAST[1:3], "episodes=4", "out=more", "baseline=hold") == 2
    assert "does not share the starts" in capsys.readouterr().err
    assert not (tmp_path / "more").exists()


def test_a_baseline_that_cannot_be_paired_is_refused_before_the_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("policy=hold", *FAST[1:], "out=hold") == 0
    before = (tmp_path / "hold" / "results.json").read_bytes()
    refused = {
        ("starts=random", "episodes=1", "out=new"): "at least 2 starts of each task",
        ("starts=random", "episodes=3", "out=hold"): "is out itself",
        ("starts=grid", "episodes=3", "out=new"): "starts=random, not grid",
        ("starts=random", "episodes=3", "scene=mixed", "out=new"): "scene=official, not mixed",
        ("starts=random", "episodes=3", "seed=4", "out=new"): "seed=0, not 4",
    }
    for arguments, complaint in refused.items():
        assert run("policy=expert", "video=false", "baseline=hold", *arguments) == 2
        assert complaint in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "hold" / "results.json").read_bytes() == before


def test_recipes_on_a_single_start_are_refused_before_the_first_runs(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("policy=local", "video=false", "accel=[none,unguided]", "episodes=1", "out=new") == 2
    assert "at least 2 starts" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_that_cannot_be_compared_has_its_results(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("other starts")

    assert run("policy=hold", *FAST[1:], "out=hold") == 0
    monkeypatch.setattr("eval.baseline.check_starts", refuse)
    assert run("policy=hold", *FAST[1:], "out=new", "baseline=hold") == 2
    assert json.loads((tmp_path / "new" / "results.json").read_text())["tasks"][0]["n"] == 3


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("tasks=[nonsense]", ("nonsense", TASK)),
        ("policy=nonsense", ("nonsense", "expert")),
        ("setting=nonsense", ("nonsense", "variant_aggregation", "visual_matching")),
        ("variants=[nonsense]", ("nonsense", "base")),
        ("scene=mixed", ("starts=random",)),
        ("overlay=nonsense.png", ("nonsense.png",)),
        ("robot_assets=nonsense", ("nonsense",)),
        ("starts=nonsense", ("nonsense", "grid")),
        ("episodes=0", ("episodes", "0")),
        ("episodes=25", ("25", "24", "starts=random")),
        ("seed=x", ("seed", "x")),
        ("nonsense=1", ("nonsense",)),
        ("+nonsense=1", ("nonsense", "tasks")),
        ("out=/dev/null/run", ("/dev/null/run",)),
        ("timeout=0", ("timeout", "0")),
        ("timeout=inf", ("timeout", "inf")),
        ("codec=gif", ("gif", "raw", "png", "jpeg")),
        ("codec=png", ("policy=served", "hold")),
        ("quality=0", ("quality", "100")),
        ("resize=1", ("resize", "true")),
        ("keys=arm.key_secret", ("server_key",)),
        ("accel=[a,b]", ("accel",)),
        ("tasks=null", ("tasks", "None")),
        ("tasks=5", ("tasks", "5")),
        ("tasks=[[a]]", ("tasks", "a")),
        ("out=null", ("out", "None")),
        ("out=5", ("out", "5")),
        ("model=[a]", ("model", "a")),
        ("device=3", ("device", "3")),
        ("checkpoint=5", ("checkpoint", "5")),
        ("endpoint=5555", ("endpoint", "5555")),
        ("endpoint=tcp://127.0.0.1:1", ("policy=remote",)),
        ("workers=0", ("workers", "0")),
        ("workers=two", ("workers", "two")),
        ("max_batch=0", ("max_batch", "0")),
        ("max_batch=2", ("policy=served", "hold")),
        ("max_wait_ms=-1", ("max_wait_ms", "-1")),
        ("cluster=nonsense", ("nonsense", "ray://host:port")),
        ("cluster=ray://127.0.0.1:1", ("127.0.0.1:1", "does not answer")),
        ("replicas=2", ("replicas", "cluster=ray")),
        ("baseline=nonsense", ("there is no run nonsense",)),
        ("baseline=5", ("baseline", "5")),
        ("margin=0", ("margin", "between 0 and 1", "0")),
        ("margin=[1]", ("margin", "between 0 and 1", "[1]")),
    ],
)
def test_bad_input_is_one_clear_message_and_status_2(
    run: Run, capsys: pytest.CaptureFixture[str], argument: str, names: tuple[str, ...]
) -> None:
    assert run("policy=hold", "video=false", argument) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in names), message
    assert "Traceback" not in message


def test_a_remote_server_that_does_not_answer_is_named(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy=remote") == 2
    assert "endpoint=" in capsys.readouterr().err
    assert run("policy=remote", "endpoint=tcp://127.0.0.1:1", "timeout=0.1") == 2
    assert "127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("broken", [{"MUJOCO_GL": "nonsense"}, {"MUJOCO_GL": "egl", "MUJOCO_EGL_DEVICE_ID": "99"}])
def test_no_opengl_is_said_clearly(tmp_path: Path, broken: dict[str, str]) -> None:
    command = [sys.executable, "-m", "eval", "policy=hold", "episodes=1", f"out={tmp_path}"]
    done = subprocess.run(command, env={**os.environ, **broken}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "MUJOCO_GL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text", ["runs/a=b", "a(1)", "[x]", "~/x", "a,b", "1e5", "null", "", "a b", "it's", r"a\b", "a\\", r"\'", "${x}"]
)
def test_any_text_reaches_the_server_as_it_is(text: str) -> None:
    override = OverridesParser.create().parse_override(argument("checkpoint", text))
    assert not override.is_sweep_override()
    assert OmegaConf.to_container(OmegaConf.create({"a": override.value()}), resolve=True) == {"a": text}


def settings(**changes: Any) -> Settings:
    return Settings.read({**DEFAULTS, **changes})


def planned(suite: Sequence[str] = ("base",), **changes: Any) -> list[Episode]:
    return plan(settings(**changes), KNOWN, lambda task: 24, lambda task, setting: suite)


def test_the_default_is_every_official_start() -> None:
    episodes = planned()
    assert [episode.episode_id for episode in episodes] == list(range(24))
    assert {episode.task for episode in episodes} == {TASK}


def test_every_variant_of_the_setting_has_the_same_starts() -> None:
    episodes = planned(("base", "darker"), setting="variant_aggregation", starts="random", episodes=3)
    assert [episode.variant for episode in episodes] == ["base"] * 3 + ["darker"] * 3
    assert [episode.seed for episode in episodes[:3]] == [episode.seed for episode in episodes[3:]]
    assert len({episode.session for episode in episodes}) == 6


def test_more_episodes_extend_a_run() -> None:
    few, many = (planned(starts="random", episodes=n) for n in (5, 50))
    assert many[:5] == few
    assert pending(many, {}) == many
    assert len({key_of(episode) for episode in many}) == 50


@pytest.mark.parametrize(
    ("names", "tasks"),
    [
        (["all"], KNOWN),
        (["widowx"], KNOWN[1:]),
        (["google_robot"], KNOWN[:1]),
        ([TASK, "widowx"], (TASK, "widowx_carrot_on_plate")),
    ],
)
def test_groups_stand_for_their_tasks_once(names: list[str], tasks: tuple[str, ...]) -> None:
    assert tuple(resolve(names, KNOWN)) == tasks


@pytest.mark.parametrize("names", [[], [""], ["widowx_spoon"], ["WidowX"]])
def test_a_name_that_covers_no_task_is_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="allowed: google_robot_open_drawer"):
        resolve(names, KNOWN)


@pytest.mark.parametrize(("policy", "rows"), [("served", 2), ("local", 2), ("expert", 1), ("hold", 1)])
def test_policies_without_a_model_answer_one_action_at_a_time(policy: str, rows: int) -> None:
    assert settings(policy=policy).rows == rows
    assert settings(policy=policy).identity()["execute"] == rows


@pytest.mark.parametrize(
    ("keys", "images"),
    [
        ({}, "raw"),
        ({"codec": "png", "resize": True}, "png, of the size that the policy reads"),
        ({"codec": "jpeg", "quality": 80, "policy": "remote"}, "jpeg, quality 80"),
        ({"policy": "local"}, ""),
    ],
)
def test_how_images_reached_the_policy_is_part_of_what_a_run_is(keys: dict[str, Any], images: str) -> None:
    chosen = settings(**keys)
    assert chosen.images == images
    assert chosen.identity().get("images", "") == images
    assert chosen.connection()["codec"].name == keys.get("codec", "raw")
