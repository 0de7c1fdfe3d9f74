"""Contact sheets: many pictures with words under them, in one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _LABEL, _HEADING = 10, 40, 44  # [pixels]
_PAPER, _INK, _GREY = (255, 255, 255), (24, 24, 27), (110, 110, 118)
_HEADING_SIZE, _TITLE_SIZE, _CAPTION_SIZE = 22, 15, 13  # [pixels]


@dataclass(frozen=True)
class Tile:
    """A picture (height, width, 3) with a title and a caption."""

    picture: NDArray[np.uint8]
    title: str
    caption: str


@dataclass(frozen=True)
class Section:
    """Tiles of one shape under a heading."""

    heading: str
    tiles: Sequence[Tile]


def contact_sheet(sections: Sequence[Section], columns: int, tile_width: int) -> Image.Image:
    """One picture of all sections, one below the other.

    Args:
        sections: at least one tile each.
        columns: tiles in a row.
        tile_width: [pixels]; heights follow from the pictures.
    """
    parts = [_draw(section, columns, tile_width) for section in sections]
    sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), _PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _draw(section: Section, columns: int, tile_width: int) -> Image.Image:
    height, width = section.tiles[0].picture.shape[:2]
    size = tile_width, round(tile_width * height / width)
    step = tile_width + _MARGIN, size[1] + _LABEL
    rows = -(-len(section.tiles) // columns)
    part = Image.new("RGB", (_MARGIN + columns * step[0], _HEADING + rows * step[1]), _PAPER)
    draw = ImageDraw.Draw(part)
    draw.text((_MARGIN, _HEADING // 2), section.heading, _INK, ImageFont.load_default(_HEADING_SIZE), anchor="lm")
    for number, tile in enumerate(section.tiles):
        row, column = divmod(number, columns)
        left, top = _MARGIN + column * step[0], _HEADING + row * step[1]
        part.paste(Image.fromarray(tile.picture).resize(size, Image.Resampling.LANCZOS), (left, top))
        _write(draw, (left, top + size[1] + 2), tile.title, _INK, _TITLE_SIZE, tile_width)
        _write(draw, (left, top + size[1] + 19), tile.caption, _GREY, _CAPTION_SIZE, tile_width)
    return part


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, colour: tuple[int, int, int], size: int, width: int
) -> None:
    """Write a line, in smaller letters if it would not fit."""
    while draw.textlength(text, ImageFont.load_default(size)) > width and size > 1:
        size -= 1
    draw.text(at, text, colour, ImageFont.load_default(size))
