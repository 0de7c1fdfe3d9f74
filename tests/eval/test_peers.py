"""Other projects' policy servers are scored, in the words of the dialects that their real clients speak."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from eval.peers import PeerError, PeerPolicy
from eval.sources import open_source
from eval.worlds import robot_spec
from policy_server.dialect import build, load, read_names
from policy_server.dialects.openpi import OpenPi
from policy_server.server import PolicyServer
from tests.eval.test_command import settings
from vla.api import ActionChunk, ActionError, Camera, InputError, Observation, PolicySpec

TASK = "widowx_spoon_on_towel"
SPEC = robot_spec(TASK, "digest", 4)
PATIENCE = 20.0
GENERATIONS = ("n1.5", "n1.6", "n1.7")


class Digest:
    """Its answer changes with everything it sees."""

    def __init__(self, spec: PolicySpec = SPEC) -> None:
        self.spec = spec
        self.forgotten = 0

    def infer(self, observation: Observation) -> ActionChunk:
        self.spec.check(observation)
        assert observation.state is not None
        image = observation.images["3rd_view_camera"]
        words = sum(map(ord, observation.instruction)) / 1e4
        columns = observation.state + words + image.astype(float).mean() / 255 + float(image[0, 0, 0]) / 100
        rows = np.arange(self.spec.horizon, dtype=np.float32)[:, None]
        return ActionChunk((rows + columns).astype(np.float32), self.spec.period)

    def reset(self, session: str) -> None:
        self.forgotten += 1


def seen(seed: int = 0) -> Observation:
    draws = np.random.default_rng(seed)
    image = draws.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    return Observation({"3rd_view_camera": image}, "put it there", draws.normal(size=7).astype(np.float32))


def written(folder: Path, **changes: Any) -> str:
    """The shipped GR00T set-up with changes."""
    shipped = Path(__file__).parents[2] / "configs" / "dialects" / "gr00t_widowx.yaml"
    path = folder / "setup.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(shipped.read_text()), **changes}))
    return str(path)


@pytest.fixture
def gr00t() -> Iterator[PolicyServer]:
    with PolicyServer(Digest(), dialects=[load("gr00t_widowx", SPEC)]) as running:
        yield running


@pytest.fixture
def openpi() -> Iterator[OpenPi]:
    values = {"dialect": "openpi", "endpoint": "ws://127.0.0.1:0", "cameras": {"3rd_view_camera": "observation/image"}}
    dialect = build(values, SPEC)
    assert isinstance(dialect, OpenPi)
    with PolicyServer(Digest(), dialects=[dialect]):
        yield dialect


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_gr00t_server_answers_what_its_policy_does(gr00t: PolicyServer, tmp_path: Path, generation: str) -> None:
    policy = PeerPolicy(gr00t.endpoint, written(tmp_path, assume=generation), replace(SPEC, horizon=2), PATIENCE)
    for number in range(2):
        got = policy.infer(seen(number)).actions
        np.testing.assert_allclose(got, Digest().infer(seen(number)).actions, rtol=1e-6)
    policy.reset("next")
    assert policy.spec.model == "gr00t"
    assert generation == "n1.5" or policy.spec.horizon == SPEC.horizon
    policy.close()


def test_an_openpi_server_answers_what_its_policy_does(openpi: OpenPi) -> None:
    policy = PeerPolicy(openpi.endpoint, "openpi_widowx", replace(SPEC, horizon=2), PATIENCE)
    for number in range(2):
        got = policy.infer(seen(number)).actions
        np.testing.assert_allclose(got, Digest().infer(seen(number)).actions, rtol=1e-6)
        policy.reset("next")
    assert policy.spec.horizon == SPEC.horizon
    policy.close()


def test_numbers_come_and_go_in_the_units_that_the_set_up_says(tmp_path: Path) -> None:
    units = {"state": {"x": 100, "gripper": [0.5, 0.5]}, "actions": {"dx": 100, "gripper": [-0.5, 0.5]}}
    setup = written(tmp_path, units=units)
    names = read_names(setup, SPEC).naming
    state, sent = np.arange(7, dtype=np.float32), seen().state
    assert sent is not None
    assert names.state_units is not None
    assert {name: part.tolist() for name, part in names.numbers(state).items() if name in ("x", "y", "gripper")} == {
        "x": [0.0],
        "y": [1.0],
        "gripper": [3.5],
    }
    with PolicyServer(Digest(), dialects=[load(setup, SPEC)]) as running:  # it converts, and the client back
        policy = PeerPolicy(running.endpoint, setup, SPEC, PATIENCE)
        got = policy.infer(seen()).actions
        policy.close()
        theirs = PeerPolicy(running.endpoint, "gr00t_widowx", SPEC, PATIENCE)
        raw = theirs.infer(replace(seen(), state=names.state_units.theirs(sent))).actions
        theirs.close()
    expected = Digest().infer(seen()).actions
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(raw[:, 0], 100 * expected[:, 0], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(raw[:, 6], 0.5 - 0.5 * expected[:, 6], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(raw[:, 1:6], expected[:, 1:6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("units", "words"),
    [
        ({"actions": {"dz": 0}}, "units.actions must give dz a factor other than 0"),
        ({"actions": {"dz": [1, 2, 3]}}, "units.actions must give dz"),
        ({"state": {"x": "cm"}}, "units.state must give x"),
        ({"state": {"dx": 2}}, "units.state must name some of the policy's .*'dx'"),
        ({"images": {}}, "units must map state and actions"),
        ([1], "units must map state and actions"),
    ],
)
def test_units_that_say_nothing_are_refused(tmp_path: Path, units: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_names(written(tmp_path, units=units), SPEC)


def test_what_a_server_refuses_is_said(openpi: OpenPi, gr00t: PolicyServer, tmp_path: Path) -> None:
    wrong = {"3rd_view_camera": "another"}
    for endpoint, setup in ((gr00t.endpoint, written(tmp_path, cameras=wrong)), (openpi.endpoint, "openpi")):
        policy = PeerPolicy(endpoint, setup, SPEC, PATIENCE)
        with pytest.raises(PeerError, match="is missing"):
            policy.infer(seen())
        policy.close()


def test_answers_without_the_actions_are_refused(gr00t: PolicyServer, tmp_path: Path) -> None:
    names = {f"joint_{number}": [quantity.name] for number, quantity in enumerate(SPEC.actions)}
    policy = PeerPolicy(gr00t.endpoint, written(tmp_path, actions=names), SPEC, PATIENCE)
    with pytest.raises(ActionError, match="joint_0"):
        policy.infer(seen())
    policy.close()


@pytest.mark.parametrize(
    ("endpoint", "dialect", "words"),
    [
        ("tcp://127.0.0.1:9", "gr00t_widowx", "no gr00t server"),
        ("ws://127.0.0.1:9", "openpi_widowx", "no openpi server"),
        ("ws://127.0.0.1:9", "gr00t_widowx", "tcp://host:port"),
        ("tcp://127.0.0.1:9", "openpi_widowx", "ws://host:port"),
        ("tcp://127.0.0.1:9", "robonet", "there is none of this name"),
    ],
)
def test_a_server_that_cannot_be_asked_is_refused(endpoint: str, dialect: str, words: str) -> None:
    chosen = settings(policy="remote", endpoint=endpoint, dialect=dialect, timeout=0.3)
    with open_source(chosen, TASK) as source, pytest.raises(InputError, match=words):
        source.for_task(TASK)


@pytest.mark.parametrize(
    "keys",
    [
        {"policy": "served"},
        {"policy": "remote"},
        {"policy": "remote", "endpoint": "tcp://h:1", "codec": "png"},
        {"policy": "remote", "endpoint": "tcp://h:1", "resize": True},
    ],
)
def test_keys_that_do_not_go_with_a_dialect_are_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="dialect"):
        settings(dialect="gr00t_widowx", **keys)


def test_episodes_are_scored_with_a_gr00t_server(gr00t: PolicyServer, tmp_path: Path) -> None:
    from eval.evaluate import Evaluation
    from eval.rollout import Episode
    from eval.worlds import make_world

    chosen = settings(policy="remote", endpoint=gr00t.endpoint, dialect="gr00t_widowx", timeout=PATIENCE)
    with open_source(chosen, TASK) as source, Evaluation(source, make_world, 4) as evaluation:
        record = evaluation.attempt(Episode(TASK, 0))
    assert (record.outcome, record.error, record.policy) == ("finished", "", "gr00t")
    assert record.steps == 60


@pytest.mark.parametrize("python", [None, sys.executable])
def test_a_gr00t_server_plays_a_task_of_another_suite(python: str | None) -> None:
    from eval.evaluate import Evaluation
    from eval.rollout import Episode
    from eval.worlds import make_world

    task = f"{Path(__file__).with_name('point_suite.py')}:push"
    spec = replace(robot_spec(task, "right", 2, python), cameras=(Camera("above", 16, 16),))
    assert [quantity.name for quantity in spec.actions] == ["dx", "dy", "gripper"]

    class Right:
        def __init__(self) -> None:
            self.spec = spec

        def infer(self, observation: Observation) -> ActionChunk:
            return ActionChunk(np.array([[0.2, 0, 0]] * 2, np.float32), spec.period)

        def reset(self, session: str) -> None:
            """Nothing is remembered."""

    with PolicyServer(Right(), dialects=[load("gr00t", spec)]) as running:
        keys: dict[str, Any] = {"endpoint": running.endpoint, "dialect": "gr00t", "suite_python": python}
        chosen = settings(policy="remote", timeout=PATIENCE, **keys)
        with open_source(chosen, task) as source, Evaluation(source, make_world, 2) as evaluation:
            record = evaluation.attempt(Episode(task, 0))
    assert (record.error, record.success_last_step) == ("", True)
