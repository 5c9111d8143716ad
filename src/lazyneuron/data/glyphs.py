"""Letters drawn in typefaces: images of many classes on any machine, for which a Transformer needs its MLPs."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lazyneuron.errors import UsageError

DEJAVU_FOLDERS = (
    Path("/usr/share/fonts/truetype/dejavu"),
    Path("/usr/share/fonts/dejavu"),
    Path("data/dejavu"),
)
_RANGES = (range(0x21, 0x7F), range(0xC0, 0x100), range(0x391, 0x3CA), range(0x410, 0x450))
"""Where Unicode has digits and Latin, Greek and Russian letters."""
_NO_CHARACTER = "\U0010fffe"
_SIDE = 28
_SIZES = range(17, 24)
_TURN, _MOVE = 12.0, 2.5


class Glyphs(NamedTuple):
    """Drawn letters: uint8 pixels [N, 1, 28, 28], the class [N] and the typeface [N] of each, by number."""

    pixels: np.ndarray
    labels: np.ndarray
    faces: np.ndarray


def pillow_letters(copies: int = 64) -> Glyphs:
    """The 62 Latin letters and digits of the typeface that comes with Pillow, each drawn `copies` times."""
    return _drawn([""], copies)


def dejavu_letters(copies: int = 4) -> Glyphs:
    """Digits, Latin, Greek and Russian letters, 210 in all, drawn `copies` times in each DejaVu typeface there is.

    UsageError where fewer than ten of the typefaces are installed.
    """
    files = {file.name: file for folder in DEJAVU_FOLDERS for file in sorted(folder.glob("DejaVuS*.ttf"))}
    if len(files) < 10:
        raise UsageError(
            f"{len(files)} DejaVu typefaces on this machine, ten are needed: apt install fonts-dejavu-core "
            "fonts-dejavu-extra, or put the .ttf files into data/dejavu"
        )
    return _drawn([str(files[name]) for name in sorted(files)], copies)


def _drawn(faces: Sequence[str], copies: int) -> Glyphs:
    """Each character `copies` times in each typeface, in random size, turned and moved a little."""
    characters = _characters(faces)
    rng = np.random.default_rng(0)
    shape = (len(faces), len(characters), copies)
    sizes = rng.choice(list(_SIZES), shape)
    places = rng.uniform(-1, 1, (*shape, 3)) * (_TURN, _MOVE, _MOVE)
    pixels = [
        _draw(character, face, int(sizes[i, j, k]), *places[i, j, k])
        for i, face in enumerate(faces)
        for j, character in enumerate(characters)
        for k in range(copies)
    ]
    number, label, _ = np.indices(shape).reshape(3, -1)
    return Glyphs(np.stack(pixels)[:, None], label.astype(np.int64), number)


def _characters(faces: Sequence[str]) -> list[str]:
    """Letters and digits that every typeface has, without those that look like an earlier one in the first."""
    found: dict[bytes, str] = {}
    for code in (code for codes in _RANGES for code in codes if chr(code).isalnum()):
        if all(_upright(chr(code), face) != _upright(_NO_CHARACTER, face) for face in faces):
            found.setdefault(_upright(chr(code), faces[0]), chr(code))
    return list(found.values())


def _upright(character: str, face: str) -> bytes:
    return _draw(character, face, _SIZES[-1]).tobytes()


def _draw(character: str, face: str, size: int, turn: float = 0, x: float = 0, y: float = 0) -> np.ndarray:
    """White on black, [28, 28]: its middle in the middle, then moved by (x, y) pixels and turned by `turn` degrees."""
    image = Image.new("L", (_SIDE, _SIDE))
    ImageDraw.Draw(image).text((_SIDE / 2 + x, _SIDE / 2 + y), character, 255, _font(face, size), anchor="mm")
    return np.asarray(image.rotate(turn, Image.Resampling.BILINEAR) if turn else image)


@cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(face, size) if face else ImageFont.load_default(size)
