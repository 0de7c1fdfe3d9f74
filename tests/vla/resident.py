"""How much memory of its own this process takes while something runs; files that are only mapped do not count."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATUS = Path("/proc/self/status")


class Peak:
    """The most bytes seen beyond the start."""

    extra = 0


@contextmanager
def watched() -> Iterator[Peak]:
    """Look again and again, as fast as a thread can, until the block ends."""
    peak, start, done = Peak(), anonymous(), threading.Event()

    def look() -> None:
        while not done.is_set():
            peak.extra = max(peak.extra, anonymous() - start)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.extra = max(peak.extra, anonymous() - start)


def anonymous() -> int:
    """Bytes of memory that no file backs (proc(5), RssAnon)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])
