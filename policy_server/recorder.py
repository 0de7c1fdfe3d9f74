"""Records what is served as a LeRobotDataset: one episode for each session and reset.

A frame is one answered observation: its images and state, `action` the first row of the answer, `action_chunk` all of
its rows, and `step` when it was. A robot that executes several rows of each chunk is asked about fewer steps, and so
has fewer frames; train only on recordings of robots that asked at every step.
"""

import logging
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs import lerobot_dataset as lerobot
from envs.lerobot_video import VideoWriter
from policy_server.recordings import CHUNK, STEP, Recorded, Recordings, held
from policy_server.watching import Answered, Behind
from vla.api import ActionChunk, Observation, PolicySpec

log = logging.getLogger(__name__)

MOST_OPEN = 64  # episodes that grow at once; beyond them the one used longest ago ends
LONGEST = 10_000  # frames of an episode; a longer one goes on as another
IDLE = 60.0  # [s] after which an episode of which nothing comes has ended
Key = tuple[bytes, str]


def check(folder: str) -> None:
    """Refuse, before there is a policy, a folder that cannot take recordings of any.

    Raises:
        InputError: saying why.
    """
    os.close(held(Path(folder)))


class Episode:
    """An episode that grows: images go to video files at once, numbers stay in memory until it ends.

    Args:
        folder: for the unfinished videos; it does not exist yet.
        session: whose it is.
        schema: what a frame holds.
    """

    def __init__(self, folder: Path, session: str, schema: lerobot.Schema) -> None:
        folder.mkdir()
        self._folder, self._session = folder, session
        self.last_step, self.last_time = -1, 0.0
        self._paths = {camera: folder / f"{number}.mp4" for number, camera in enumerate(schema.cameras)}
        sizes = schema.cameras.items()
        self._videos = {camera: VideoWriter(self._paths[camera], *size, schema.fps) for camera, size in sizes}
        self._rows: dict[str, list[NDArray[np.float32]]] = {key: [] for key in schema.vectors}
        self._instructions: list[str] = []
        self._samples: dict[str, list[NDArray[np.uint8]]] = {camera: [] for camera in schema.cameras}

    def __len__(self) -> int:
        return len(self._instructions)

    def add(self, seen: Observation, chunk: ActionChunk, now: float) -> None:
        """Append a frame."""
        number = len(self)
        for camera, video in self._videos.items():
            video.write(seen.images[camera], key_frame=number == 0)
            if number & (number + 1) == 0:  # 0, 1, 3, 7, ...: statistics of few images, however long it becomes
                self._samples[camera].append(np.ascontiguousarray(seen.images[camera][::8, ::8]))
        numbers = {
            lerobot.ACTION: chunk.actions[0],
            CHUNK: chunk.actions.reshape(-1),
            STEP: np.array([seen.step], np.float32),
        }
        for key, rows in self._rows.items():
            rows.append(np.array(numbers.get(key, seen.state), np.float32))
        self._instructions.append(_unicode(seen.instruction))
        self.last_step, self.last_time = seen.step, now

    def remove(self) -> None:
        """Remove what was not moved into the dataset."""
        shutil.rmtree(self._folder)

    def finish(self) -> Recorded:
        """End the videos; nothing can be appended then."""
        for video in self._videos.values():
            video.close()
        vectors = {key: np.stack(rows) for key, rows in self._rows.items()}
        images = {
            camera: lerobot.image_statistics(samples, len(samples), stride=1)
            for camera, samples in self._samples.items()
        }
        return Recorded(vectors, self._instructions, self._paths, images, _unicode(self._session))


class Recorder:
    """A watcher that records what is served; all work is done in a thread of its own.

    Args:
        folder: new, empty, or with an earlier recording of the same policy.
        spec: of the policy.
        clock: [s], never going back.

    Raises:
        InputError: if the folder cannot take recordings of this policy.
    """

    def __init__(self, folder: str | Path, spec: PolicySpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._recordings = Recordings(Path(folder), spec)
        self._clock = clock
        self._open: OrderedDict[Key, Episode] = OrderedDict()
        self._begun = self._misfits = 0
        self._behind = Behind("recorder", self._work, rest=self.end_idle)

    def saw(self, event: Answered) -> None:
        """Let it be recorded; returns at once."""
        self._behind.saw(event)

    def report(self) -> dict[str, Any]:
        """What was recorded, dropped, and could not be recorded."""
        counts = {"episodes": self._recordings.episodes, "growing": len(self._open), "misfits": self._misfits}
        return {**self._behind.report(), **counts}

    def close(self) -> None:
        """Record what waits and end every episode."""
        self._behind.close()
        self._recordings.close()

    def end_idle(self) -> None:
        """End the episodes of which nothing came for a while."""
        now = self._clock()
        for key in [key for key, episode in self._open.items() if now - episode.last_time >= IDLE]:
            self._end(key)

    def _work(self, event: Answered | None) -> None:
        if event is None:
            for key in list(self._open):
                self._end(key)
            return
        key = event.client, event.session
        if event.observation is None or event.chunk is None:
            self._end(key)
            return
        growing = self._open.get(key)
        if growing is not None and (event.observation.step <= growing.last_step or len(growing) >= LONGEST):
            self._end(key)
        self._add(key, event.observation, event.chunk)
        self.end_idle()

    def _add(self, key: Key, seen: Observation, chunk: ActionChunk) -> None:
        sizes = {camera: (image.shape[0], image.shape[1]) for camera, image in seen.images.items()}
        if not self._recordings.accepts(sizes):
            self._misfits += 1
            if self._misfits == 1:
                log.warning("session %a sends images of %s; this dataset has others, not recorded", key[1], sizes)
            return
        if key not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._end(next(iter(self._open)))
            assert self._recordings.schema is not None
            folder = self._recordings.staging / f"growing-{self._begun}"
            self._open[key] = Episode(folder, key[1], self._recordings.schema)
            self._begun += 1
        self._open.move_to_end(key)
        self._open[key].add(seen, chunk, self._clock())

    def _end(self, key: Key) -> None:
        episode = self._open.pop(key, None)
        if episode is not None:
            self._recordings.add(episode.finish())
            episode.remove()
            log.info("recorded episode %d: %d frames", self._recordings.episodes - 1, len(episode))


def _unicode(text: str) -> str:
    """Text that a file can hold: JSON may bring halves of characters."""
    return text.encode("utf-8", "replace").decode()
