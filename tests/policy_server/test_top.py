"""The terminal view: it shows what a server says, also while the policy runs and while nobody answers."""

from collections.abc import Callable
from functools import partial

import pytest
from rich.console import Console, RenderableType

from policy_server.client import RemotePolicy
from policy_server.server import PolicyServer
from policy_server.top.screen import duration, mebibytes, milliseconds
from policy_server.top.watch import watch
from tests.policies import Gated, observation
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
    shown = text(next(watch(partial(RemotePolicy, server.endpoint, timeout=PATIENCE))))
    assert server.endpoint in shown
    assert "digest · recipe none · c0ffee" in shown
    assert "[bold]arm[/bold]" in shown
    assert "wire_decode" in shown


def test_the_view_comes_back_with_the_server(text: Callable[[RenderableType], str]) -> None:
    from tests.policies import Digest

    with PolicyServer(Digest()) as server:
        screens = watch(partial(RemotePolicy, server.endpoint, timeout=0.3))
        assert "digest" in text(next(screens))
    assert "no answer from a policy server" in text(next(screens))
    with PolicyServer(Digest(), server.endpoint), RemotePolicy(server.endpoint, timeout=PATIENCE) as robot:
        robot.infer(observation(session="back again"))
        screens.close()
        assert "back again" in text(next(watch(partial(RemotePolicy, server.endpoint, timeout=PATIENCE))))


def test_figures_are_short() -> None:
    assert duration(3725.9) == "1:02:05"
    assert (mebibytes(3 * 2**20), mebibytes(None)) == ("3 MiB", "-")
    assert (milliseconds(0.01234), milliseconds(1234.5), milliseconds(None)) == ("0.0123 ms", "1234 ms", "-")
