"""An evaluation on a Ray cluster: two machines on loopback, one of them killed half-way."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eval.evaluate import pending
from eval.planning import plan
from eval.results import Record, RunFolder
from eval.settings import Settings
from eval.team import open_team
from eval.worlds import grid_size, suite, task_names
from tests.eval.test_command import settings
from vla.api import InputError

EPISODES = 10
MACHINE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'cadence-vla[cluster]'")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]  # Ray's own warnings


@pytest.fixture
def client_port() -> int:
    """A free port for Ray's client server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def until_open(port: int) -> None:
    """Wait for a server that starts in a process of its own."""
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nobody listens on port {port}")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, client_port: int) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
    from ray.cluster_utils import Cluster

    machines = Cluster(initialize_head=True, head_node_args={**MACHINE, "ray_client_server_port": client_port})
    until_open(client_port)
    yield machines
    machines.shutdown()


def asked(**changes: Any) -> Settings:
    return settings(policy="random", video=False, starts="random", episodes=EPISODES, **changes)


def run(chosen: Settings, watch: Any = lambda record: None) -> dict[int, Record]:
    """The stored episodes of a run."""
    episodes = plan(chosen, task_names(), grid_size, suite)
    with RunFolder(Path(chosen.out)) as folder, open_team(chosen, episodes[0]) as team:
        team.begin(episodes[0])
        team.run(pending(episodes, folder.records), folder, watch)
        return {record.episode_id: record for record in folder.records.values()}


def shown(records: dict[int, Record]) -> dict[int, tuple[Any, ...]]:
    return {number: (r.outcome, r.error, r.success_any_step, r.steps, r.seed) for number, r in records.items()}


def test_a_machine_killed_half_way_costs_no_episode(cluster: Any, tmp_path: Path) -> None:
    second = cluster.add_node(**MACHINE)
    seen: list[Record] = []

    def kill_half_way(record: Record) -> None:
        seen.append(record)
        if len(seen) == EPISODES // 2:
            cluster.remove_node(second, allow_graceful=False)

    records = run(asked(cluster=cluster.address, out=str(tmp_path / "cluster")), kill_half_way)
    lines = (tmp_path / "cluster" / "episodes.jsonl").read_text().splitlines()
    assert len(lines) == len(seen) == EPISODES
    assert shown(records) == shown(run(asked(out=str(tmp_path / "alone"))))


def test_each_group_serves_the_policy_itself_also_through_rays_client(
    cluster: Any, client_port: int, tmp_path: Path
) -> None:
    def served(**changes: Any) -> dict[int, Record]:
        patience = {"timeout": 60.0, "threads": 1}  # a policy that answers beside other tests
        return run(settings(policy="served", episodes=2, **patience, **changes))

    records = served(cluster=f"ray://127.0.0.1:{client_port}", out=str(tmp_path / "cluster"))
    assert {record.policy for record in records.values()} == {"tiny"}
    assert all((tmp_path / "cluster" / record.video).stat().st_size for record in records.values())
    assert shown(records) == shown(served(out=str(tmp_path / "alone"), video=False))


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_no_ray_answers_is_refused_soon(
    form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("eval.cluster.ANSWERS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = form.format(deaf.getsockname()[1])
        with pytest.raises(InputError, match=f"{address} does not answer: no Ray is there"):
            run(asked(cluster=address, out=str(tmp_path)))
    with pytest.raises(InputError, match=f"{address} does not answer: .*refused"):
        run(asked(cluster=address, out=str(tmp_path)))
    assert not (tmp_path / "episodes.jsonl").exists()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'cadence-vla\[cluster\]'"):
        run(asked(cluster="ray", out=str(tmp_path)))
