"""What is printed on cans: pictures of four equal panels around the side, seen from outside.

A label is a function of where a pixel is, [m] to the right of its panel's middle and above it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from envs.textures import Image, painted

Grid = NDArray[np.float64]
Mask = NDArray[np.bool_]
Colour = tuple[int, int, int]
Label = Callable[[Grid, Grid], Image]

_WHITE: Colour = (242, 242, 242)
_RED: Colour = (205, 16, 30)
_LETTERS = {
    "7": ("#####", "....#", "...#.", "..#..", ".#...", ".#..."),
    "A": (".##.", "#..#", "####", "#..#", "#..#", "#..#"),
    "E": ("####", "#...", "###.", "#...", "#...", "####"),
    "F": ("####", "#...", "###.", "#...", "#...", "#..."),
    "I": ("#", "#", "#", "#", "#", "#"),
    "N": ("#...#", "##..#", "#.#.#", "#..##", "#...#", "#...#"),
    "P": ("###.", "#..#", "###.", "#...", "#...", "#..."),
    "R": ("###.", "#..#", "###.", "#.#.", "#..#", "#..#"),
    "S": (".###", "#...", ".##.", "...#", "...#", "###."),
    "T": ("#####", "..#..", "..#..", "..#..", "..#..", "..#.."),
    "U": ("#..#", "#..#", "#..#", "#..#", "#..#", ".##."),
}


def coke(x: Grid, y: Grid) -> Image:
    """Red, with a white ribbon that winds around."""
    wave = 0.012 * np.sin(2 * np.pi * x / 0.0518)
    ribbon, thread = np.abs(y - wave) < 0.0075, np.abs(y - wave + 0.013) < 0.0016
    return painted(_plain(x, (200, 12, 26)), [(ribbon, _WHITE), (thread, _WHITE)])


def pepsi(x: Grid, y: Grid) -> Image:
    """Blue, with a disc: red above, blue below, a white wave between."""
    wave = 0.003 * np.sin(2 * np.pi * x / 0.036)
    disc = np.hypot(x, y) < 0.018
    layers = [
        (np.hypot(x, y) < 0.0205, _WHITE),
        (disc & (y > wave + 0.004), _RED),
        (disc & (y < wave - 0.004), (20, 70, 190)),
        (_word("PEPSI", x, y - 0.034, 0.034), _WHITE),
    ]
    return painted(_plain(x, (8, 52, 150)), layers)


def sprite(x: Grid, y: Grid) -> Image:
    """Bright green, with a lemon, and a white word on a slanting blue band edged with lime."""
    slanted = y - 0.25 * x + 0.008
    layers = [
        (np.hypot(x - 0.006, 1.2 * (y - 0.024)) < 0.014, (246, 226, 40)),
        (np.abs(slanted) < 0.014, (190, 226, 60)),
        (np.abs(slanted) < 0.0105, (14, 64, 156)),
        (_word("SPRITE", x, slanted, 0.040), _WHITE),
    ]
    return painted(_plain(x, (22, 160, 74)), layers)


def seven_up(x: Grid, y: Grid) -> Image:
    """Deep green, with a large white 7 and a red disc with UP in it."""
    layers = [
        (_word("7", x + 0.004, y - 0.006, 0.024), _WHITE),
        (np.hypot(x - 0.006, y + 0.016) < 0.0145, _RED),
        (_word("UP", x - 0.006, y + 0.016, 0.016), _WHITE),
    ]
    return painted(_plain(x, (0, 112, 58)), layers)


def fanta(x: Grid, y: Grid) -> Image:
    """Orange, with a word on a blue band and a green leaf."""
    layers = [
        (np.hypot(x, y) < 0.0235, (255, 176, 30)),
        (np.abs(y - 0.2 * x) < 0.0085, (24, 40, 130)),
        (_word("FANTA", x, y - 0.2 * x, 0.040), _WHITE),
        (np.hypot(x / 1.8, y - 0.026) < 0.006, (30, 140, 40)),
    ]
    return painted(_plain(x, (250, 112, 8)), layers)


def redbull(x: Grid, y: Grid) -> Image:
    """Quarters of blue and silver, with a yellow sun between two red shapes."""
    quarter = (x + 0.35 * y) * y > 0
    bulls = (np.abs(np.abs(x) - 0.010) < 0.007) & (np.abs(y) < 0.007)
    layers = [
        (quarter, (196, 200, 208)),
        (np.hypot(x, y) < 0.010, (250, 200, 20)),
        (bulls, _RED),
    ]
    return painted(_plain(x, (14, 38, 120)), layers)


def _plain(like: Grid, colour: Colour) -> Image:
    return np.full((*like.shape, 3), colour, np.uint8)


def _word(text: str, x: Grid, y: Grid, width: float) -> Mask:
    """Where letters of a word centred at the origin are, the word as wide as asked [m]."""
    rows = [".".join(_LETTERS[letter][row] for letter in text) for row in range(6)]
    bitmap = np.array([[mark == "#" for mark in row] for row in rows])
    pixel = width / bitmap.shape[1]
    column = np.floor(x / pixel + bitmap.shape[1] / 2).astype(int)
    row = np.floor(3 - y / (1.4 * pixel)).astype(int)  # letters are narrow
    inside = (column >= 0) & (column < bitmap.shape[1]) & (row >= 0) & (row < 6)
    return inside & bitmap[row.clip(0, 5), column.clip(0, bitmap.shape[1] - 1)]
