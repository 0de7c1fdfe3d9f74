"""A policy in a server process of our own: started, waited for, restarted when it dies, and stopped at the end."""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from policy_server.client import RemotePolicy
from vla.api import ActionChunk, InputError, Observation, PolicySpec
from vla.overrides import argument

WRONG_USAGE = 2
LAST_LINES = 6


class ServerError(RuntimeError):
    """The policy server could not start, or died; the message ends with its last words."""


class ServerProcess:
    """One process that serves a policy and writes its endpoint to a file when it is ready.

    Args:
        arguments: of `python -m policy_server`, see `vla.overrides`; endpoint and announce file are added.
        log: file that receives what the server prints.
        module: the module to run.
    """

    def __init__(self, arguments: Sequence[str], log: Path, module: str = "policy_server") -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="cadence-")
        self._announce = Path(self._folder.name) / "endpoint"
        self._log = log
        command = [sys.executable, "-m", "eval.attached", module, *arguments]
        command += ["endpoint=tcp://127.0.0.1:0", argument("announce", str(self._announce))]
        with log.open("ab") as file:
            self._log_start = file.tell()
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, patience: float) -> str:
        """Return the endpoint once the server announces it.

        Args:
            patience: [s] to wait while the process lives.

        Raises:
            InputError: if the server refused its arguments.
            ServerError: if it died or is not ready in time.
        """
        deadline = time.monotonic() + patience
        while not self._announce.exists():
            if not self.alive:
                self._refuse()
            if time.monotonic() > deadline:
                raise ServerError(f"the policy server is not ready after {patience:.0f} s; {self.last_words()}")
            time.sleep(0.02)
        return self._announce.read_text().strip()

    def last_words(self) -> str:
        """The end of what this process printed."""
        lines = self._printed().splitlines()
        if not lines:
            return f"it printed nothing (see {self._log})"
        return f"its last lines (all: {self._log}):\n" + "\n".join(f"  {line}" for line in lines[-LAST_LINES:])

    def how_it_ended(self) -> str:
        """Exit status or signal of a process that is not alive."""
        status = self._process.poll()
        return f"was killed by signal {-status}" if status is not None and status < 0 else f"ended with status {status}"

    def stop(self, patience: float = 5.0) -> None:
        """End the process, by force after `patience` [s]."""
        if self._process.stdin is not None:
            self._process.stdin.close()  # eval.attached ends when this closes
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    def _printed(self) -> str:
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            return file.read().decode(errors="replace").strip()

    def _refuse(self) -> None:
        if self._process.poll() == WRONG_USAGE:
            complaint = re.search(r"(?ms)^error: (.*)", self._printed())  # its first: the text may hold "error: " too
            raise InputError(complaint[1] if complaint else self._printed())
        words = self.last_words()
        raise ServerError(f"the policy server {self.how_it_ended()} before it was ready; {words}")


class ServedPolicy:
    """A Policy over a server process of our own; a context manager.

    Args:
        arguments: of `python -m policy_server`, for example `["model=tiny"]`.
        log: file that receives what the server prints.
        timeout: [s] for one answer.
        patience: [s] until the server must be ready.
        restarts: how often a dead server is started again before every further episode fails.
        module: the module to run.
        connection: further arguments of `RemotePolicy`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        timeout: float,
        patience: float = 600.0,
        restarts: int = 5,
        module: str = "policy_server",
        connection: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self._settings: Mapping[str, Any] = {"arguments": arguments, "log": log, "module": module}
        self._connection = {"timeout": timeout, **connection}
        self._patience = patience
        self._restarts_left = restarts
        self._open = ExitStack()
        self._process: ServerProcess | None = None
        self._remote: RemotePolicy | None = None
        self._first: PolicySpec | None = None

    @property
    def spec(self) -> PolicySpec:
        """As agreed with the first server, also while there is none."""
        return self._first if self._first is not None else self._connected().spec

    @property
    def pid(self) -> int | None:
        """Of the server process."""
        return self._process.pid if self._process else None

    @property
    def endpoint(self) -> str:
        """Where it answers, once it does.

        Raises:
            InputError: if the server refused its arguments.
            ServerError: if it died, is not ready in time or serves another policy than before.
        """
        return self._connected().endpoint

    @property
    def death(self) -> str:
        """How the server died and what it said last; "" while it lives."""
        process = self._process
        if process is None or process.alive:
            return ""
        return f"the policy server {process.how_it_ended()} during the episode; {process.last_words()}"

    def __enter__(self) -> "ServedPolicy":
        self._process = ServerProcess(**self._settings)
        self._open.callback(self._process.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def revive(self) -> None:
        """Start the server again if it died.

        Raises:
            ServerError: if it died too often, or does not come up again.
        """
        if self._process is not None and self._process.alive:
            return
        if self._restarts_left == 0:
            raise ServerError("the policy server died too often and is not started again")
        self._restarts_left -= 1
        self._open.close()
        self._remote = None
        self.__enter__()

    def infer(self, observation: Observation) -> ActionChunk:
        try:
            return self._connected().infer(observation)
        except Exception as error:
            self._explain(error)
            raise

    def reset(self, session: str) -> None:
        try:
            self._connected().reset(session)
        except Exception as error:
            self._explain(error)
            raise

    def _connected(self) -> RemotePolicy:
        if self._remote is None:
            if self._process is None:
                raise ServerError("the policy server was not started; use ServedPolicy as a context manager")
            endpoint = self._process.wait_until_ready(self._patience)
            remote = self._open.enter_context(RemotePolicy(endpoint, **self._connection))
            if self._first is not None and remote.spec != self._first:
                raise ServerError(f"the server came back with another policy: {remote.spec}, it had {self._first}")
            self._first, self._remote = remote.spec, remote
        return self._remote

    def _explain(self, error: Exception) -> None:
        """Say that the server died rather than that it did not answer."""
        if self.death:
            raise ServerError(self.death) from error
