"""`cadence-serve`: serves a policy over ZeroMQ until SIGTERM or Ctrl-C."""

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cadence_configs.command import DONE, command
from policy_server.router import check_endpoint
from policy_server.scheduler import Batching
from policy_server.security import ServerKeys, server_keys
from policy_server.server import PolicyServer
from policy_server.worker import warm_up
from vla.api import InputError, Policy

_NAMES = ("model", "accel", "device", "dtype", "init", "endpoint")
_OPTIONAL_NAMES = ("checkpoint", "announce", "keys", "clients")


@command("serve", usage_errors=(InputError,))
def main(config: DictConfig) -> int:
    """Load, warm up, answer until told to stop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(DONE))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options: Any = OmegaConf.to_container(config, resolve=True)
    _check_kinds(options)
    batching = Batching(options["max_batch"], options["max_wait_ms"])
    protection = {"insecure": options["insecure"], "keys": _keys(options["keys"], options["clients"])}
    check_endpoint(options["endpoint"], protection["keys"] is not None, protection["insecure"])
    policy = _load(options)
    warm_up(policy, batching.max_batch)
    with PolicyServer(policy, options["endpoint"], batching=batching, **protection) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())  # it ends after the answer that is being computed
        if options["announce"]:
            announce(Path(options["announce"]), server.endpoint)
        server.serve_forever()
    return DONE


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


def _keys(secret: str | None, clients: str | None) -> ServerKeys | None:
    if (secret is None) != (clients is None):
        raise InputError(
            "keys=<secret key file> and clients=<folder of public keys> go together; cadence-keys makes both"
        )
    return None if secret is None or clients is None else server_keys(secret, clients)


def _load(options: dict[str, Any]) -> Policy:
    import torch  # after bad keys were refused: it takes seconds

    from vla.policy import load_policy

    if options["threads"] is not None:
        torch.set_num_threads(options["threads"])
    names = ("model", "checkpoint", "device", "dtype", "init")
    return load_policy(recipe=options["accel"], **{name: options[name] for name in names})


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


if __name__ == "__main__":
    main()
