"""How images travel: raw, or packed as PNG or JPEG by Pillow, which only those who pack or unpack need.

PNG changes nothing and is slow; JPEG changes what the policy sees. Raw is right on one machine and on fast networks.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from policy_server.arrays import CODECS, RAW, Packed
from policy_server.checks import WireError
from vla.api import InputError

INSTALL = "pip install 'cadence-vla[codecs]'"


def available() -> tuple[str, ...]:
    """The codecs that this installation can pack and unpack."""
    return CODECS if find_spec("PIL") is not None else (RAW,)


@dataclass(frozen=True)
class Codec:
    """How a client sends images.

    Attributes:
        name: raw, png or jpeg.
        quality: of JPEG, from 1 to 100; colours keep their full resolution at any.

    Raises:
        InputError: on another name or quality, or if Pillow is missing.
    """

    name: str = RAW
    quality: int = 95

    def __post_init__(self) -> None:
        if self.name not in CODECS:
            raise InputError(f"codec must be one of {list(CODECS)}, got {self.name!r}")
        if isinstance(self.quality, bool) or not isinstance(self.quality, int) or not 1 <= self.quality <= 100:
            raise InputError(f"quality must be a whole number from 1 to 100, got {self.quality!r}")
        if self.name not in available():
            raise InputError(f"codec {self.name} needs Pillow: {INSTALL}")

    def pack(self, image: NDArray[np.uint8]) -> Packed:
        """(height, width, 3) RGB as a file in memory; not for raw."""
        from PIL import Image

        options = {"png": {"compress_level": 1}, "jpeg": {"quality": self.quality, "subsampling": 0}}[self.name]
        file = BytesIO()
        Image.fromarray(image).save(file, self.name, **options)
        return Packed(image.shape, file.getvalue())


def unpack(name: str, packed: Packed, codec: str) -> NDArray[np.uint8]:
    """The image in a packed frame, (height, width, 3) RGB.

    Nothing is decompressed before the file's own header says the size that was promised.

    Raises:
        WireError: if it is no such file, damaged, or of another size or colour.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(packed.frame), formats=[codec]) as image:
            height, width, _ = packed.shape
            if image.size != (width, height) or image.mode != "RGB":
                got = f"{image.mode} {image.height} x {image.width}"
                raise WireError(f"array {name[:80]!a} promised RGB {height} x {width}, the {codec} holds {got}")
            return np.array(image)
    except WireError:
        raise
    except Exception as error:  # what a decoder raises on damaged files is no closed list
        raise WireError(f"array {name[:80]!a} is no {codec} that can be read: {str(error)[:200]!a}") from None
