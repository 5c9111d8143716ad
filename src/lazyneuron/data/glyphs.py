"""Letters drawn in typefaces: images of many classes on any machine, for which a Transformer needs its MLPs."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, __version__

from lazyneuron.errors import UsageError
from lazyneuron.records.folder import cache_folder

DEJAVU_FOLDERS = (
    Path("/usr/share/fonts/truetype/dejavu"),
    Path("/usr/share/fonts/dejavu"),
    Path("data/dejavu"),
)
_RANGES = (range(0x21, 0x7F), range(0xC0, 0x100), range(0x391, 0x3CA), range(0x410, 0x450))
"""Where Unicode has digits and Latin, Greek and Russian letters."""
_NO_CHARACTER = "\U0010fffe"
_SIDE = 28
_LARGEST = 23
_FORMAT = 1
"""Raised with every change to what is drawn, as drawn letters are kept in the cache folder."""


class Variety(NamedTuple):
    """How copies of a letter differ: height in points, degrees turned, pixels moved, deviation of noise in grey levels.

    The sizes are `smallest` to 23 points; turns and moves are uniform up to the largest either way.
    """

    smallest: int
    turn: float
    move: float
    noise: float = 0.0


class Glyphs(NamedTuple):
    """Drawn letters: uint8 pixels [N, 1, 28, 28], the class [N] and the typeface [N] of each, by number."""

    pixels: np.ndarray
    labels: np.ndarray
    faces: np.ndarray


def pillow_letters(copies: int = 128) -> Glyphs:
    """The 62 Latin letters and digits of the typeface that comes with Pillow, each drawn `copies` times, with noise."""
    return _drawn([""], copies, Variety(smallest=12, turn=25.0, move=4.0, noise=40.0))


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
    return _drawn([str(files[name]) for name in sorted(files)], copies, Variety(smallest=17, turn=12.0, move=2.5))


def _drawn(faces: Sequence[str], copies: int, variety: Variety) -> Glyphs:
    """Each character `copies` times in each typeface, kept in the cache folder by the typefaces' content."""
    key = hashlib.sha256(repr((_FORMAT, __version__, copies, variety)).encode())
    for face in filter(None, faces):
        key.update(Path(face).read_bytes())
    file = cache_folder() / f"letters-{key.hexdigest()[:16]}.npz"
    if file.exists():
        with np.load(file) as kept:
            return Glyphs(**kept)
    found = _draw_all(faces, copies, variety)
    with suppress(OSError):  # drawn again the next time
        temporary = file.with_name(f"{file.stem}.{os.getpid()}.npz")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(temporary, **found._asdict())
        temporary.replace(file)
    return found


def _draw_all(faces: Sequence[str], copies: int, variety: Variety) -> Glyphs:
    """Each character `copies` times in each typeface."""
    characters = _characters(faces)
    rng = np.random.default_rng(0)
    shape = (len(faces), len(characters), copies)
    sizes = rng.choice(range(variety.smallest, _LARGEST + 1), shape)
    places = rng.uniform(-1, 1, (*shape, 3)) * (variety.turn, variety.move, variety.move)
    drawn = [
        _draw(character, face, int(sizes[i, j, k]), *places[i, j, k])
        for i, face in enumerate(faces)
        for j, character in enumerate(characters)
        for k in range(copies)
    ]
    pixels = np.stack(drawn)[:, None]
    if variety.noise:
        pixels = (pixels + rng.normal(0, variety.noise, pixels.shape)).clip(0, 255).astype(np.uint8)
    number, label, _ = np.indices(shape).reshape(3, -1)
    return Glyphs(pixels, label.astype(np.int64), number)


def _characters(faces: Sequence[str]) -> list[str]:
    """Letters and digits that every typeface has, without those that look like an earlier one in the first."""
    found: dict[bytes, str] = {}
    for code in (code for codes in _RANGES for code in codes if chr(code).isalnum()):
        if all(_upright(chr(code), face) != _upright(_NO_CHARACTER, face) for face in faces):
            found.setdefault(_upright(chr(code), faces[0]), chr(code))
    return list(found.values())


def _upright(character: str, face: str) -> bytes:
    return _draw(character, face, _LARGEST).tobytes()


def _draw(character: str, face: str, size: int, turn: float = 0, x: float = 0, y: float = 0) -> np.ndarray:
    """White on black, [28, 28]: its middle in the middle, then moved by (x, y) pixels and turned by `turn` degrees."""
    image = Image.new("L", (_SIDE, _SIDE))
    ImageDraw.Draw(image).text((_SIDE / 2 + x, _SIDE / 2 + y), character, 255, _font(face, size), anchor="mm")
    return np.asarray(image.rotate(turn, Image.Resampling.BILINEAR) if turn else image)


@cache
def _font(face: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.truetype(face, size) if face else ImageFont.load_default(size)
