"""The terminal view: it shows what a server says, also while the policy runs and while nobody answers."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from policy_server.client import RemotePolicy
from policy_server.server import PolicyServer
from policy_server.tally import Tally
from policy_server.top.__main__ import main
from policy_server.top.screen import clean, duration, mebibytes, milliseconds, screen, silence
from policy_server.top.watch import watch
from tests.policies import SPEC, Digest, Gated, observation
from tests.policy_server.sockets import Raw, infer

PATIENCE = 20.0


@pytest.fixture
def text() -> Callable[[RenderableType], str]:
    def rendered(shown: RenderableType) -> str:
        console = Console(width=200, record=True, file=None, quiet=False)
        with console.capture() as capture:
            console.print(shown)
        return capture.get()

    return rendered


def test_the_view_works_while_the_policy_runs(
    raw: Raw, gated: Gated, server: PolicyServer, text: Callable[[RenderableType], str]
) -> None:
    gated.gate.release()
    raw.ask(infer(1, session="[bold]arm[/bold]"))  # no markup: what a robot calls itself is shown as it is
    assert gated.begun.acquire(timeout=PATIENCE)
    raw.send(infer(2, session="other"))
    assert gated.begun.acquire(timeout=PATIENCE)
    look = next(watch(partial(RemotePolicy, server.endpoint, timeout=PATIENCE)))
    shown = text(look.shown)
    assert look.answered
    assert server.endpoint in shown
    assert "digest · recipe none · c0ffee" in shown
    assert "[bold]arm[/bold]" in shown
    assert "wire_decode" in shown


def test_the_view_comes_back_with_the_server(text: Callable[[RenderableType], str]) -> None:
    with PolicyServer(Digest()) as server:
        screens = watch(partial(RemotePolicy, server.endpoint, timeout=0.3))
        assert "digest" in text(next(screens).shown)
    away = next(screens)
    assert "no answer from a policy server" in text(away.shown)
    assert not away.answered
    with PolicyServer(Digest(), server.endpoint), RemotePolicy(server.endpoint, timeout=PATIENCE) as robot:
        robot.infer(observation(session="back again"))
        screens.close()
        assert "back again" in text(next(watch(partial(RemotePolicy, server.endpoint, timeout=PATIENCE))).shown)


def test_figures_are_short() -> None:
    assert duration(3725.9) == "1:02:05"
    assert (mebibytes(3 * 2**20), mebibytes(None)) == ("3 MiB", "-")
    assert (milliseconds(0.01234), milliseconds(1234.5), milliseconds(None)) == ("0.0123 ms", "1234 ms", "-")


HOSTILE = "\ud800\x1b]0;title\x07\x1b[2J\x9b31m\u202e\r\nlast"


def hostile_metrics() -> dict[str, Any]:
    """What a server could say that lets strangers through, or is one."""
    tally = Tally()
    tally.answered(HOSTILE, {"server": 1.0, HOSTILE: 2.0}, None, 0.0)
    tally.counted(HOSTILE)
    return tally.snapshot().body([{"name": HOSTILE, HOSTILE: 3, "failed": HOSTILE}])


def test_whatever_a_server_says_is_shown_and_not_obeyed(text: Callable[[RenderableType], str]) -> None:
    spec = replace(SPEC, model=HOSTILE, recipe=HOSTILE, checkpoint=HOSTILE)
    shown = text(screen("tcp://somewhere", spec, hostile_metrics(), 1.0)) + text(silence("it", OSError(HOSTILE)))
    assert {each for each in shown if not each.isprintable()} <= {"\n"}
    assert shown.encode()
    assert shown.count(clean(HOSTILE)) >= 3
    assert r"\ud800\x1b]0;title\x07" in clean(HOSTILE)


@pytest.mark.parametrize("width", [40, 80])
def test_nothing_is_cut_off_in_a_narrow_terminal(width: int) -> None:
    tally = Tally()
    for outcome in ("malformed", "version", "spec", "input", "superseded", "expired", "overloaded", "stopping"):
        tally.counted(outcome)
    name = "a robot in the third hall/episode 17 of the long evaluation"
    tally.answered(name, {"server": 1.0}, None, 0.0)
    console = Console(width=width)
    with console.capture() as capture:
        console.print(screen("tcp://127.0.0.1:5555", SPEC, tally.snapshot().body(), 1.0))
    shown = "".join(capture.get().split())
    assert "…" not in shown
    for whole in ("GPUinuse/peak", "answers/s", "overloaded", "stopping", "answeredlate", "p99[ms]"):
        assert whole in shown


@pytest.fixture
def top(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs the command in this process; returns its exit status."""

    def command(*arguments: str) -> int:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["cadence-top", "timeout=0.3", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        return end.value.code

    return command


def test_the_exit_status_says_whether_the_server_answered(
    top: Callable[..., int], digest_server: PolicyServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert top(f"endpoint={digest_server.endpoint}", "count=2", "every=0.001", f"timeout={PATIENCE}") == 0
    assert "digest" in capsys.readouterr().out
    with PolicyServer(Digest()) as gone:
        endpoint = gone.endpoint
    assert top(f"endpoint={endpoint}", "count=1") == 1
    assert "no answer from a policy server" in capsys.readouterr().out.replace("\n", " ")


def test_the_connection_is_closed_when_the_view_ends(
    top: Callable[..., int], digest_server: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []
    monkeypatch.setattr("policy_server.top.watch.RemotePolicy.close", lambda self: closed.append(self.endpoint))
    monkeypatch.setattr("policy_server.top.__main__.Live.update", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        top(f"endpoint={digest_server.endpoint}", f"timeout={PATIENCE}")
    assert closed == [digest_server.endpoint]
