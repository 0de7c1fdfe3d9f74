"""Runs a module that ends with whoever started it: `python -m eval.attached <module> [arguments]`.

The parent holds the other end of standard input. When the parent is gone, by whatever death, the pipe closes and this
process ends, so that a killed evaluation leaves no policy server behind.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_standard_input() -> None:
    """Wait until standard input closes, then ask this process to end."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
