"""GR00T's clients of every generation on the server's own socket, beside robots that speak the wire."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from policy_server.client import RemotePolicy
from policy_server.dialect import build
from policy_server.server import PolicyServer
from policy_server.wire import Message
from tests.policies import SPEC, Digest, Gated, observation
from tests.policy_server.foreign import ACTIONS, GOLDEN, GOLDEN_SPEC, GR00T, IMAGE, Golden, Gr00t
from tests.policy_server.sockets import Connect, infer
from vla.api import InputError

GENERATIONS = ("n1.5", "n1.6", "n1.7")
EXACT = [name for name in GOLDEN if name.startswith("gr00t") and name.replace(".request", ".reply") in GOLDEN]
Client = Callable[..., Gr00t]


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def policy() -> Golden:
    return Golden()


@pytest.fixture
def server(policy: Golden) -> Iterator[PolicyServer]:
    with PolicyServer(policy, dialects=[build(GR00T, GOLDEN_SPEC)]) as running:
        yield running


@pytest.fixture
def client(context: "zmq.Context[zmq.Socket[bytes]]", server: PolicyServer) -> Client:
    return lambda generation="n1.6": Gr00t(context, server.endpoint, generation)


def raw(client: Gr00t, message: bytes) -> bytes:
    client.socket.send(message)
    return client.socket.recv()


@pytest.mark.parametrize("name", [name for name in EXACT if name.endswith("request")])
def test_golden_requests_get_the_golden_replies_byte_for_byte(client: Client, policy: Golden, name: str) -> None:
    assert raw(client(), GOLDEN[name]) == GOLDEN[name.replace(".request", ".reply")]
    assert "get_action" not in name or policy.saw_the_golden_observation()


def test_a_golden_token_is_no_obstacle(client: Client) -> None:
    assert raw(client(), GOLDEN["gr00t_n16.get_action.request.token"]) == GOLDEN["gr00t_n16.get_action.reply"]


def test_an_n15_client_gets_flat_actions_without_a_batch(client: Client, policy: Golden) -> None:
    reply = msgpack.unpackb(raw(client(), GOLDEN["gr00t_n15.get_action.request"]), object_hook=client("n1.5").hook)
    assert list(reply) == ["action.arm"]
    np.testing.assert_array_equal(reply["action.arm"], ACTIONS)
    assert policy.saw_the_golden_observation()


def test_an_n15_client_reads_its_modality_config_as_text_with_flat_names(client: Client) -> None:
    n15 = client("n1.5")
    n15.act()  # from here on the server knows its words
    got = {name: json.loads(part["as_json"]) for name, part in n15.ask("get_modality_config").items()}
    golden = msgpack.unpackb(GOLDEN["gr00t_n15.get_modality_config.reply"])
    expected = {name: json.loads(part["as_json"]) for name, part in golden.items()}
    for name in ("video", "state", "action"):  # the golden keys have lost what N1.5 puts before each name
        expected[name]["modality_keys"] = [f"{name}.{key}" for key in expected[name]["modality_keys"]]
    assert got == expected


def test_an_unknown_endpoint_gets_the_golden_error(client: Client) -> None:
    assert raw(client(), msgpack.packb({"endpoint": "fly"}) or b"") == GOLDEN["gr00t_n16.error.reply"]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_each_generation_acts_resets_and_pings(client: Client, policy: Golden, generation: str) -> None:
    one = client(generation)
    assert one.ask("ping")["status"] == "ok"
    np.testing.assert_array_equal(one.act(), ACTIONS)
    assert policy.saw_the_golden_observation()
    assert one.ask("reset", data={"options": None}) == {}
    assert policy.forgotten == [policy.seen[0].session]


def test_generations_are_told_apart_message_by_message(client: Client) -> None:
    """Three clients take turns, and one connection changes its words: every reply is in the words of its request."""
    clients = [client(generation) for generation in GENERATIONS]
    for each in [*clients, *reversed(clients)]:
        np.testing.assert_array_equal(each.act(), ACTIONS)
    changing = client("n1.5")
    for other in clients:
        changing.flat, changing.default, changing.hook = other.flat, other.default, other.hook
        np.testing.assert_array_equal(changing.act(), ACTIONS)


@pytest.mark.parametrize(
    ("assume", "marker", "kind"),
    [
        ("n1.5", "__ModalityConfig_class__", str),
        ("n1.6", "__ModalityConfig_class__", dict),
        ("n1.7", "__ModalityConfig__", dict),
    ],
)
def test_who_has_shown_no_array_is_answered_as_assumed(
    context: "zmq.Context[zmq.Socket[bytes]]", assume: str, marker: str, kind: type
) -> None:
    dialect = build({**GR00T, "assume": assume}, GOLDEN_SPEC)
    with PolicyServer(Golden(), dialects=[dialect]) as server:
        config = Gr00t(context, server.endpoint, assume).ask("get_modality_config")
    assert {type(part["as_json"]) for part in config.values()} == {kind}
    assert all(part[marker] is True for part in config.values())


def test_a_simulators_flat_batch_gets_flat_actions_with_a_batch(client: Client) -> None:
    """What N1.6 sends with its wrapper for simulators: flat names inside `observation`."""
    seen = {"video.ego_view": IMAGE[None, None], "state.arm": np.zeros((1, 1, 7), np.float32), "task": ["lift"]}
    actions, info = client().ask("get_action", data={"observation": seen})
    np.testing.assert_array_equal(actions["action.arm"], ACTIONS[None])
    assert info == {}


def test_single_numbers_lose_their_axis_for_n15_and_keep_it_later(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    names = [quantity.name for quantity in GOLDEN_SPEC.actions]
    dialect = build({**GR00T, "actions": {"grip": names[6:], "arm": names[:6]}, "action_configs": None}, GOLDEN_SPEC)
    with PolicyServer(Golden(), dialects=[dialect]) as server:
        n15, n16 = (Gr00t(context, server.endpoint, generation) for generation in ("n1.5", "n1.6"))
        flat = n15.ask("get_action", data=n15.observation())
        nested = n16.ask("get_action", data=n16.observation())[0]
    np.testing.assert_array_equal(flat["action.grip"], ACTIONS[:, 6])
    np.testing.assert_array_equal(flat["action.arm"], ACTIONS[:, :6])
    np.testing.assert_array_equal(nested["grip"], ACTIONS[None, :, 6:])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no camera": ({"video": {}}, "input: video.ego_view is missing; the observation has ['state.arm', 'task']"),
    "two times": ({"video": {"ego_view": np.stack([IMAGE, IMAGE])[None]}}, "must be one image of one robot"),
    "two robots": ({"state": {"arm": np.zeros((2, 1, 7), np.float32)}}, "must be 7 number(s) of one robot"),
    "a float image": ({"video": {"ego_view": IMAGE[None, None].astype(np.float32)}}, "must be uint8"),
    "another size": ({"video": {"ego_view": IMAGE[None, None, :2]}}, "camera 'head' of 4 x 5; the image is 2 x 5"),
    "no number": ({"state": {"arm": np.full((1, 1, 7), np.nan, np.float32)}}, "not finite"),
    "a huge number": ({"state": {"arm": np.full((1, 1, 7), 1e300)}}, "not finite"),
    "no text": ({"language": {"task": [["a", "b"]]}}, "the instruction is one text under ['task'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_observation_is_refused_and_the_next_is_answered(client: Client, name: str) -> None:
    changes, said = WRONG[name]
    one = client()
    seen = {**one.observation()["observation"], **changes}
    with pytest.raises(RuntimeError, match="input: ") as caught:
        one.ask("get_action", data={"observation": seen, "options": None})
    assert said in str(caught.value)
    np.testing.assert_array_equal(one.act(), ACTIONS)


@pytest.mark.parametrize("data", [None, 3, [], {"observation": None}])
def test_data_of_another_kind_is_refused(client: Client, data: Any) -> None:
    with pytest.raises(RuntimeError, match="must be a map"):
        client().ask("get_action", data=data)


def test_pickles_are_refused_unread(client: Client) -> None:
    assert raw(client(), b"PK\x03\x04 a zip of pickles") == b"ERROR"
    reply = msgpack.unpackb(raw(client(), GOLDEN["gr00t_n17.object_array.request"]))
    assert "arrays of Python objects are refused" in reply["error"]


def test_clients_cannot_stop_the_server_unless_it_says_so(
    client: Client, context: "zmq.Context[zmq.Socket[bytes]]"
) -> None:
    with pytest.raises(RuntimeError, match="this server cannot be stopped by its clients"):
        client().ask("kill")
    assert client().ask("ping")["status"] == "ok"
    with PolicyServer(Golden(), dialects=[build({**GR00T, "kill": True}, GOLDEN_SPEC)]) as willing:
        assert Gr00t(context, willing.endpoint, "n1.6").ask("kill") is None
        willing.serve_forever()  # returns, because it was stopped


NAMES = {"dialect": "gr00t", "cameras": {"front": "ego_view", "wrist": "hand"}}


def seen_by(n16: Gr00t, seed: int = 0, text: str = "lift") -> dict[str, Any]:
    """An observation for SPEC."""
    robot = observation(seed)
    video = {"ego_view": robot.images["front"][None, None], "hand": robot.images["wrist"][None, None]}
    assert robot.state is not None
    state = {"state": robot.state[None, None]}
    return {"observation": {"video": video, "state": state, "language": {"task": [[text]]}}}


def test_a_connection_is_a_session_that_shares_nothing_and_counts_steps(
    context: "zmq.Context[zmq.Socket[bytes]]",
) -> None:
    policy = Digest()
    with PolicyServer(policy, dialects=[build(NAMES, SPEC)]) as server:
        first, second = (Gr00t(context, server.endpoint, "n1.6") for _ in range(2))
        one = first.ask("get_action", data=seen_by(first))
        again = first.ask("get_action", data=seen_by(first))
        other = second.ask("get_action", data=seen_by(second))
        first.ask("reset", data={"options": None})
        after = first.ask("get_action", data=seen_by(first))
        with RemotePolicy(server.endpoint) as native:
            assert native.spec == SPEC
    assert len(policy.asked) == 2
    assert not np.array_equal(one[0]["action"], again[0]["action"])
    assert not np.array_equal(one[0]["action"], other[0]["action"])
    np.testing.assert_array_equal(one[0]["action"], after[0]["action"])


def test_a_failing_policy_is_an_error_that_the_client_raises(context: "zmq.Context[zmq.Socket[bytes]]") -> None:
    with PolicyServer(Digest(), dialects=[build(NAMES, SPEC)]) as server:
        one = Gr00t(context, server.endpoint, "n1.7")
        with pytest.raises(RuntimeError, match="internal: ZeroDivisionError: the policy is broken"):
            one.ask("get_action", data=seen_by(one, text="fail"))


def test_pings_are_answered_and_late_requests_refused_while_the_policy_runs(
    context: "zmq.Context[zmq.Socket[bytes]]", connect: Connect
) -> None:
    gated = Gated()
    with PolicyServer(gated, dialects=[build({**NAMES, "deadline_ms": 1e-6}, SPEC)]) as server:
        native, late, other = connect(server.endpoint), *(Gr00t(context, server.endpoint, "n1.6") for _ in range(2))
        native.send(infer(1))
        assert gated.begun.acquire(timeout=20)
        late.send({"endpoint": "get_action", "data": seen_by(late)})
        assert other.ask("ping")["status"] == "ok"
        while native.ask(Message("health", 2)).body["pending"] == 0:
            pass
        gated.gate.release()
        with pytest.raises(RuntimeError, match="expired: "):
            late.receive()
        assert native.receive().kind == "infer"
    assert len(gated.order) == 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"assume": "n2"}, "assume must be one of"),
        ({"kill": "yes"}, "kill must be one of [True, False], got 'yes'"),
        ({"action_configs": {"arm": {"rep": "DELTA"}}}, "action_configs must give each of ['arm'] the keys"),
        ({"action_configs": [1]}, "action_configs must map names to values"),
    ],
)
def test_options_outside_their_range_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        build({**GR00T, **changes}, GOLDEN_SPEC)
    assert complaint in str(caught.value)
