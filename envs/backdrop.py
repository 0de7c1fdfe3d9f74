"""What is seen behind robot and objects under visual matching: a user's photograph, or the scenery drawn once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Backdrop:
    """The scenery as one camera sees it.

    Attributes:
        picture: (height, width, 3) RGB.
        nearness: (height, width) depth buffer of the scenery, larger is nearer, 0 where there is nothing.
    """

    picture: Picture
    nearness: NDArray[np.float32]

    def behind(self, picture: Picture, nearness: NDArray[np.float32]) -> Picture:
        """(height, width, 3) the given picture where it is in front of the scenery, and this one elsewhere.

        SIMPLER's rule, I = M * simulated + (1 - M) * photograph: the mask M is what a camera would see of robot and
        objects, so furniture that only the photograph shows still hides what is behind it.
        """
        return np.where((nearness > self.nearness)[..., None], picture, self.picture)


def photograph(file: Path, image_size: tuple[int, int]) -> Picture:
    """Read a photograph as (height, width, 3) RGB, stretched to the whole image as SIMPLER does.

    Args:
        file: any format that Pillow reads.
        image_size: (height, width) in pixels.

    Raises:
        EnvError: if there is no such file, it is not a picture, or Pillow is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise EnvError(f"overlay={file} needs Pillow to be read: pip install pillow") from error
    if not file.is_file():
        raise EnvError(f"overlay={file} does not exist; give the path of a picture taken by the policy's camera")
    height, width = image_size
    try:
        with Image.open(file) as image:
            return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    except (UnidentifiedImageError, OSError) as error:
        raise EnvError(f"overlay={file} cannot be read as a picture ({error}); PNG and JPEG files will do") from error


def averaged(picture: Picture, factor: int) -> Picture:
    """(height, width, 3) of a picture that is `factor` times as high and wide: every block's mean."""
    height, width, channels = picture.shape
    blocks = picture.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(1, 3)).round().astype(np.uint8)
