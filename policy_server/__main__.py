"""`cadence-serve`: serves a policy over ZeroMQ until SIGTERM or Ctrl-C."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.serve()

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cadence_configs.command import DONE, FAILED, command
from policy_server.dialect import check as check_dialect
from policy_server.dialect import load as load_dialect
from policy_server.logs import set_up as set_up_log
from policy_server.observability import INSTALL, Observability
from policy_server.router import check_endpoint, check_free
from policy_server.scheduler import Batching
from policy_server.security import ServerKeys, server_keys
from policy_server.server import PolicyServer
from policy_server.worker import warm_up
from vla.api import InputError, Policy
from vla.aside import aside

log = logging.getLogger(__name__)

_NAMES = ("model", "accel", "device", "dtype", "init", "endpoint")
_OPTIONAL_NAMES = ("checkpoint", "dataset", "robot", "announce", "keys", "clients")


@command("serve", usage_errors=(InputError,))
def main(config: DictConfig) -> int:
    """Load, warm up, answer until told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    options: Any = OmegaConf.to_container(config, resolve=True)
    _check_kinds(options)
    watching = Observability.read(options)
    set_up_log(watching.log)
    _check_protocols(options["protocols"], options["insecure"])
    batching = Batching(options["max_batch"], options["max_wait_ms"])
    protection = {"insecure": options["insecure"], "keys": _keys(options["keys"], options["clients"])}
    check_endpoint(options["endpoint"], protection["keys"] is not None, protection["insecure"])
    check_free(options["endpoint"])
    watching.check()
    policy = _load(options)
    dialects = [load_dialect(name, policy.spec, options["insecure"]) for name in options["protocols"]]
    aside(warm_up)(policy, batching.max_batch)
    with ExitStack() as stack:
        watchers = stack.enter_context(watching.watchers(policy.spec))
        seams = {"batching": batching, "dialects": dialects, "watchers": watchers}
        server = stack.enter_context(PolicyServer(policy, options["endpoint"], **seams, **protection))
        stack.enter_context(watching.exporter(server, policy.spec, watchers))
        _stop_when_told(server.stop)
        if options["announce"]:
            announce(Path(options["announce"]), server.endpoint)
        server.serve_forever()
    return DONE


def _stop_when_told(stop: Callable[[], None]) -> None:
    """Let the first signal end the server after the answer that is being computed, and the second one at once."""
    told: list[int] = []

    def handle(number: int, _: object) -> None:
        told.append(number)
        if len(told) > 1:
            log.error("told to stop again: leaving at once, without the answer that is being computed")
            os._exit(FAILED)  # a policy that hangs would be waited for by anything else
        log.info("told to stop: waiting for the answer that is being computed; a second signal does not")
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _check_kinds(options: dict[str, Any]) -> None:
    """Refuse what a later line would stumble over: numbers for names, words for numbers."""
    threads, insecure = options["threads"], options["insecure"]
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise InputError(f"threads must be a whole number of at least 1, got {threads!r}")
    if not isinstance(insecure, bool):
        raise InputError(f"insecure must be true or false, got {insecure!r}")
    for key in _NAMES:
        if not isinstance(options[key], str):
            raise InputError(f"{key} must be one name, got {options[key]!r}")
    for key in _OPTIONAL_NAMES:
        options[key] = None if options[key] is None else str(options[key])


def _check_protocols(names: Any, insecure: bool) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"protocols must be a list of names, for example [gr00t,openpi], got {names!r}")
    for name in names:
        check_dialect(name, insecure)


def _keys(secret: str | None, clients: str | None) -> ServerKeys | None:
    if (secret is None) != (clients is None):
        raise InputError(
            "keys=<secret key file> and clients=<folder of public keys> go together; cadence-keys makes both"
        )
    return None if secret is None or clients is None else server_keys(secret, clients)


def _load(options: dict[str, Any]) -> Policy:
    if options["replay"] is not None:
        return _replayed(str(options["replay"]), options["episode"])
    import torch  # after bad keys were refused: it takes seconds

    from vla.policy import load_policy

    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    names = ("model", "checkpoint", "dataset", "robot", "device", "dtype", "init")
    return load_policy(recipe=options["accel"], **{name: options[name] for name in names})


def _replayed(dataset: str, episode: object) -> Policy:
    if isinstance(episode, bool) or not isinstance(episode, int):
        raise InputError(f"episode must be a whole number, got {episode!r}")
    try:
        from policy_server.replay import ReplayPolicy  # here: others need not install what it needs
    except ImportError as error:
        raise InputError(f"replay={dataset} needs {error.name}: {INSTALL}") from error
    return ReplayPolicy(dataset, episode)


def announce(path: Path, endpoint: str) -> None:
    """Write the endpoint in one move, so that whoever waits for the file never reads half of it.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        partial = path.with_name(path.name + ".partial")
        partial.write_text(endpoint + "\n")
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f"cannot write announce={path}: {error.strerror}") from error
