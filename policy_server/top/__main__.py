"""`cadence-top`: a live view of a policy server in the terminal."""

if __name__ == "__main__":  # before the imports, some of which may not be installed
    from cadence_configs import entry

    entry.top()

import math
from contextlib import closing
from functools import partial
from itertools import islice
from time import sleep
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.live import Live

from cadence_configs.command import DONE, FAILED, command
from policy_server.client import RemotePolicy
from policy_server.security import client_keys
from policy_server.top.watch import watch
from vla.api import InputError


@command("top", usage_errors=(InputError,))
def main(config: DictConfig) -> int:
    """Show the server's metrics until Ctrl-C, or `count` times; failed if the server did not answer the last time."""
    options: Any = OmegaConf.to_container(config, resolve=True)
    every, timeout = (_seconds(name, options[name]) for name in ("every", "timeout"))
    count = options["count"]
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InputError(f"count must be a whole number of at least 1, got {count!r}")
    keys, server_key = options["keys"], options["server_key"]
    if (keys is None) != (server_key is None):
        raise InputError("keys=<this client's secret key file> and server_key=<the server's public one> go together")
    known = None if keys is None else client_keys(str(keys), str(server_key))
    connect = partial(RemotePolicy, str(options["endpoint"]), timeout=timeout, keys=known)
    answered = True
    with closing(watch(connect)) as looks, Live(console=Console(), auto_refresh=False, screen=False) as live:
        for number, look in enumerate(islice(looks, count)):
            live.update(look.shown, refresh=True)
            answered = look.answered
            if count is None or number + 1 < count:
                sleep(every)
    return DONE if answered else FAILED


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name} must be positive seconds, got {value!r}")
    return float(value)
