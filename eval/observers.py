"""What watches a run without taking part: the video of each episode and the progress on the terminal."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
from av.container import OutputContainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eval.results import Record
from eval.rollout import Episode
from vla.api import InputError, Observation


class Video:
    """Writes what the policy saw as H.264 video at the control rate: a frame before each step and one at the end.

    Args:
        folder: where videos go, created if it is missing.
        episode: what is filmed.
        period: [s] between frames.
    """

    def __init__(self, folder: Path, episode: Episode, period: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        variant = "" if episode.variant == "base" else f"_{episode.variant}"
        self._stem = re.sub(r"[^\w.-]+", "_", f"{episode.task}{variant}_{episode.episode_id}")
        self._folder = folder
        self._partial = folder / f"{self._stem}.part.mp4"
        self._rate = Fraction(1 / period).limit_denominator(1000)
        self._container = av.open(str(self._partial), "w", options={"movflags": "faststart"})
        self._stream: av.VideoStream | None = None

    def __call__(self, observation: Observation) -> None:
        """Add the first camera's image of this step."""
        image = next(iter(observation.images.values()))
        if self._stream is None:
            self._stream = _h264(self._container, self._rate, height=image.shape[0], width=image.shape[1])
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self, record: Record) -> str:
        """Close the video and name it after its outcome; returns its file name, or "" if there was nothing to see."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        for old in self._folder.glob(f"{self._stem}_*.mp4"):
            old.unlink()  # an earlier attempt that ended otherwise
        if self._stream is None:
            self._partial.unlink()
            return ""
        return self._partial.replace(self._folder / f"{self._stem}_{verdict(record)}.mp4").name


def verdict(record: Record) -> str:
    """`success` or `failure` at the last step, else how the episode went wrong."""
    if not record.scored:
        return record.outcome
    return "success" if record.success_last_step else "failure"


def _h264(container: OutputContainer, rate: Fraction, height: int, width: int) -> av.VideoStream:
    if height % 2 or width % 2:
        raise InputError(f"H.264 video needs an even height and width, got {height} x {width}; set video=false")
    stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "20"})
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    stream.codec_context.thread_count = 1  # small frames: more threads only take cores from simulation and policy
    return stream


class Watcher(Protocol):
    """Hears of every episode that ended."""

    def __call__(self, record: Record) -> None: ...


def progress(console: Console, total: int) -> AbstractContextManager[Watcher]:
    """A live bar with the running success on a terminal, else a line at each tenth of the run."""
    return _bar(console, total) if console.is_terminal else _lines(console, total)


@contextmanager
def _bar(console: Console, total: int) -> Iterator[Watcher]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[success]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("episodes", total=total, success="")
        tally = Tally()

        def watch(record: Record) -> None:
            tally.add(record)
            _complain(console, record)
            bar.update(task, advance=1, success=str(tally))

        yield watch


@contextmanager
def _lines(console: Console, total: int) -> Iterator[Watcher]:
    tally = Tally()

    def watch(record: Record) -> None:
        tally.add(record)
        _complain(console, record)
        if tally.done * 10 // total > (tally.done - 1) * 10 // total:
            console.print(f"{tally.done}/{total} episodes, {tally}", markup=False)

    yield watch


def _complain(console: Console, record: Record) -> None:
    if not record.scored:
        console.print(f"{record.task} episode {record.episode_id}: {record.outcome}: {record.error}", markup=False)


class Tally:
    """Successes at the last step so far."""

    def __init__(self) -> None:
        self.done = self.scored = self.successes = 0

    def add(self, record: Record) -> None:
        self.done += 1
        self.scored += record.scored
        self.successes += bool(record.success_last_step)

    def __str__(self) -> str:
        failed = self.done - self.scored
        rate = f"{self.successes / self.scored:.0%}" if self.scored else "-"
        return f"success {self.successes}/{self.scored} = {rate}" + (f", errors {failed}" if failed else "")
