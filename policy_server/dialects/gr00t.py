"""GR00T's ZeroMQ clients (N1.5, N1.6, N1.7) on the server's own socket, told apart message by message.

A request is one msgpack map: `endpoint`, `data` if the endpoint takes any, and `api_token`, which is not looked at: who
may connect is said by keys. Two things differ between generations. N1.5 sends a flat observation and expects flat
actions; later ones send `{"observation", "options"}` and expect `[actions, info]`. Arrays are `npy` until some N1.7,
`nd` since (`policy_server.packing`). A reply is written as the request was; for a message without arrays, as the
client's last one; for a client that has not shown any, as the option `assume` says.

Sources: NVIDIA/Isaac-GR00T `gr00t/eval/service.py` (N1.5), `gr00t/policy/server_client.py` (N1.6 and later).
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from policy_server.arrays import Frame
from policy_server.checks import WireError, brief, require
from policy_server.dialect import Setup
from policy_server.naming import Defaults, Naming
from policy_server.packing import ND, NPY, pack, unpack
from policy_server.peers import Deliver, Dialect, Exchange
from policy_server.wire import Message
from vla.api import InputError

PICKLE = b"PK"  # how N1's messages begin: a zip of pickles, which nobody here opens
MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])  # first byte of a msgpack map; the wire's own header begins with {
MOST_CLIENTS = 1024  # whose words are remembered
FIELDS = ("rep", "type", "format", "state_key")
PREFIXES = {"video": "video.", "state": "state.", "action": "action.", "language": ""}  # of names in a flat map


@dataclass(frozen=True)
class Words:
    """How a client speaks.

    Attributes:
        flat: N1.5: observation and actions are flat, modality configs travel as text.
        encoding: of arrays.
        asked: observations that it has sent since its last reset.
    """

    flat: bool
    encoding: str
    asked: int = 0


ASSUMED = {"n1.5": Words(True, NPY), "n1.6": Words(False, NPY), "n1.7": Words(False, ND)}


class Gr00t(Dialect):
    """Recognises the messages of GR00T's clients.

    Raises:
        InputError: on an option outside its range.
    """

    NAMES: ClassVar = Defaults(
        camera="{}",
        state="state",
        actions="action",
        instruction=(
            "task",
            "annotation.human.action.task_description",
            "annotation.human.task_description",
            "annotation.human.coarse_action",
        ),
    )
    OPTIONS: ClassVar[Mapping[str, Any]] = {"assume": "n1.6", "kill": False, "action_configs": None}

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.kill = setup.flag("kill")
        self.stop: Callable[[], None] = lambda: None
        self.action_configs = _action_configs(setup)
        self.flat = _flat(setup.naming)
        self._assumed = ASSUMED[setup.choice("assume", tuple(ASSUMED))]
        self._words: OrderedDict[bytes, Words] = OrderedDict()

    def recognise(self, client: bytes, frames: Sequence[Frame]) -> Exchange | None:
        """Any message that is one msgpack map, and N1's, which are refused."""
        if len(frames) != 1:
            return None
        if bytes(frames[0][:2]) == PICKLE:
            return Refused()
        return Gr00tExchange(self, client) if len(frames[0]) and frames[0][0] in MAPS else None

    def open(self, deliver: Deliver, stop: Callable[[], None]) -> None:
        """Learn how to stop the server."""
        self.stop = stop

    def words(self, client: bytes) -> Words:
        """How this client speaks, as far as it has shown."""
        return self._words.get(client, self._assumed)

    def remember(self, client: bytes, words: Words) -> None:
        """Record how this client speaks."""
        self._words[client] = words
        self._words.move_to_end(client)
        if len(self._words) > MOST_CLIENTS:
            self._words.popitem(last=False)

    def modality_config(self, words: Words) -> dict[str, Any]:
        """What the policy needs and gives, as this client reads it."""
        spec, naming = self.setup.spec, self.setup.naming
        parts = {
            "video": ([0], list(naming.cameras.values()), None),
            "state": ([0], list(naming.state), None),
            "action": (list(range(spec.horizon)), list(naming.actions), self.action_configs),
            "language": ([0], [naming.instruction[0]], None),
        }
        return {name: _modality(name, words, *part) for name, part in parts.items()}


class Refused:
    """A message of N1, whose format runs code when it is read. Its clients know one word for failure."""

    def decode(self, frames: Sequence[Frame]) -> Message:
        """Refuse it unread.

        Raises:
            WireError: always.
        """
        raise WireError("GR00T N1's messages are pickles, which run code when they are read: use N1.5 or later")

    def encode(self, reply: Message) -> list[Frame]:
        """The word."""
        return [b"ERROR"]


class Gr00tExchange:
    """One request and its reply; each endpoint asks what a message of the wire asks."""

    def __init__(self, dialect: Gr00t, client: bytes) -> None:
        self._dialect = dialect
        self._client = client
        self._words = dialect.words(client)
        self._answer: Callable[[Message], Any] = lambda reply: {}
        # A name of the connection that no other one has; ZeroMQ's own may be longer than a session's.
        self._session = "gr00t " + hashlib.blake2b(client, digest_size=16).hexdigest()

    def decode(self, frames: Sequence[Frame]) -> Message:
        """The request.

        Raises:
            WireError: if it is none, or asks for what this server does not do.
        """
        found = unpack(frames[0])
        self._words = replace(self._words, encoding=_reply_encoding(found.encoding, self._words))
        endpoint = found.value.get("endpoint", "get_action") if isinstance(found.value, dict) else None
        if not isinstance(endpoint, str) or endpoint not in _ENDPOINTS:
            raise WireError(f"Unknown endpoint: {endpoint if isinstance(endpoint, str) else brief(endpoint)}"[:200])
        return _ENDPOINTS[endpoint](self, found.value.get("data"))

    def encode(self, reply: Message) -> list[Frame]:
        """The reply; a failure is a map with `error`, which the client raises."""
        value = _failure(reply) if reply.kind == "error" else self._answer(reply)
        return [pack(value, self._words.encoding)]

    def _ping(self, data: Any) -> Message:
        self._answer = lambda _: {"status": "ok", "message": "Server is running"}
        return Message("health", 1)

    def _kill(self, data: Any) -> Message:
        if not self._dialect.kill:
            raise WireError("this server cannot be stopped by its clients (option kill of the dialect)")
        self._dialect.stop()
        self._answer = lambda _: None
        return Message("health", 1)

    def _reset(self, data: Any) -> Message:
        self._dialect.remember(self._client, replace(self._words, asked=0))
        return Message("reset", 1, self._session, self._dialect.setup.deadline_ms)

    def _get_modality_config(self, data: Any) -> Message:
        self._answer = lambda _: self._dialect.modality_config(self._words)
        return Message("hello", 1, body={"embodiment": None})

    def _get_action(self, data: Any) -> Message:
        require(isinstance(data, dict), f"the data of get_action must be a map, got {brief(data)}")
        nested = "observation" in data
        seen = data["observation"] if nested else data
        require(isinstance(seen, dict), f"an observation must be a map, got {brief(seen)}")
        sent = _flattened(seen)
        naming = self._dialect.flat
        body = {"instruction": naming.instruction_in(sent), "step": self._words.asked, "time": 0.0}
        arrays = naming.arrays(sent)
        self._words = replace(self._words, flat=not nested, asked=self._words.asked + 1)
        self._dialect.remember(self._client, self._words)
        prefix = PREFIXES["action"] if sent is seen else ""
        batched = nested or any(sent[name].ndim > 4 for name in naming.cameras.values())
        self._answer = lambda reply: self._actions(reply, prefix, batched)
        body |= {"frozen": 0, "spec_id": None}
        return Message("infer", 1, self._session, self._dialect.setup.deadline_ms, body=body, arrays=arrays)

    def _actions(self, reply: Message, prefix: str, batched: bool) -> Any:
        split = self._dialect.flat.split(reply.arrays["actions"])
        actions = {prefix + name: part[None] if batched else np.squeeze(part) for name, part in split.items()}
        return actions if self._words.flat else [actions, {}]


_ENDPOINTS: dict[str, Callable[[Gr00tExchange, Any], Message]] = {
    "ping": Gr00tExchange._ping,
    "kill": Gr00tExchange._kill,
    "reset": Gr00tExchange._reset,
    "get_modality_config": Gr00tExchange._get_modality_config,
    "get_action": Gr00tExchange._get_action,
}


def _reply_encoding(seen: str | None, words: Words) -> str:
    return seen if seen in (NPY, ND) else words.encoding


def _flat(names: Naming) -> Naming:
    """The names as they are in a flat map."""
    cameras = {camera: PREFIXES["video"] + name for camera, name in names.cameras.items()}
    return replace(names, cameras=cameras, state={PREFIXES["state"] + name: at for name, at in names.state.items()})


def _flattened(seen: dict[str, Any]) -> dict[str, Any]:
    """An observation as a flat map; one that is flat already is returned itself."""
    if not any(isinstance(seen.get(part), dict) for part in PREFIXES):
        return seen
    parts = {part: seen[part] for part in PREFIXES if isinstance(seen.get(part), dict)}
    return {PREFIXES[part] + str(name): value for part, named in parts.items() for name, value in named.items()}


def _modality(part: str, words: Words, indices: list[int], keys: list[str], configs: Any) -> dict[str, Any]:
    if words.flat:  # N1.5 names things as its observations do, and reads text
        plain = {"delta_indices": indices, "modality_keys": [PREFIXES[part] + key for key in keys]}
        return {"__ModalityConfig_class__": True, "as_json": json.dumps(plain)}
    unused = {"sin_cos_embedding_keys": None, "mean_std_embedding_keys": None}
    plain = {"delta_indices": indices, "modality_keys": keys, **unused, "action_configs": configs}
    marker = "__ModalityConfig__" if words.encoding == ND else "__ModalityConfig_class__"
    return {marker: True, "as_json": plain}


def _action_configs(setup: Setup) -> list[dict[str, Any]] | None:
    table = setup.table("action_configs")
    if not table:
        return None
    names = list(setup.naming.actions)
    complete = all(isinstance(fields, dict) and sorted(fields) == sorted(FIELDS) for fields in table.values())
    if sorted(table) != sorted(names) or not complete:
        raise InputError(f"action_configs must give each of {names} the keys {list(FIELDS)}, got {table!r}")
    return [{field: table[name][field] for field in FIELDS} for name in names]


def _failure(reply: Message) -> dict[str, Any]:
    kind, text, hint = (str(reply.body[key]) for key in ("type", "message", "hint"))
    return {"error": f"{'' if kind == 'malformed' else kind + ': '}{text}{f' ({hint})' if hint else ''}"}


DIALECT = Gr00t
