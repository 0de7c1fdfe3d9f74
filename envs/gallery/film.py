"""Films of the scripted expert at work."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from envs import experts
from envs.manipulation import ManipulationEnv

Picture = NDArray[np.uint8]
_LAST_LOOK = 1.0  # [s] for which the last picture stays


def film(env: ManipulationEnv, seed: int | None, options: dict[str, Any]) -> tuple[list[Picture], dict[str, Any]]:
    """What the camera sees, (height, width, 3) before each step and at the end, until the expert is done.

    Args:
        env: made with images.
        seed: of the start.
        options: of the reset.

    Returns:
        The pictures, and the last `info`.
    """
    observation, info = env.reset(seed=seed, options=options)
    expert = experts.make(env)
    expert.reset()
    pictures, truncated = [observation["images"][env.camera_name]], False
    while not (truncated or expert.done):
        observation, _, _, truncated, info = env.step(expert.action())
        pictures.append(observation["images"][env.camera_name])
    return pictures, info


def write_clip(path: Path, pictures: Sequence[Picture], period: float) -> None:
    """Write an mp4 that browsers play.

    Args:
        path: file to write.
        pictures: (height, width, 3) each, of even height and width.
        period: [s] between them.
    """
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        rate = Fraction(1 / period).limit_denominator(1000)
        stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast", "crf": "23"})
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        stream.codec_context.thread_count = 1  # small pictures: more threads only take cores from others
        for picture in [*pictures, *[pictures[-1]] * round(_LAST_LOOK / period)]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
