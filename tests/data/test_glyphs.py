"""Letters drawn in typefaces: as many as said, all different, each near the middle, the same every time."""

import numpy as np
import pytest

from lazyneuron.data import glyphs
from lazyneuron.data.glyphs import dejavu_letters, pillow_letters
from lazyneuron.data.images import load_images
from lazyneuron.errors import UsageError

DEJAVU = [file for folder in glyphs.DEJAVU_FOLDERS for file in sorted(folder.glob("DejaVuS*.ttf"))]


def has_dejavu() -> bool:
    """Whether enough of the typefaces are installed."""
    return len(DEJAVU) >= 10


def test_pillows_letters_are_62_classes_each_drawn_as_often():
    found = pillow_letters(copies=3)
    assert found.pixels.shape == (186, 1, 28, 28)
    assert found.pixels.dtype == np.uint8
    assert np.array_equal(np.bincount(found.labels), np.full(62, 3))
    assert not found.faces.any()


def test_letters_are_drawn_once_and_then_read(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAZYNEURON_CACHE", str(tmp_path / "file" / "cache"))
    unkept = pillow_letters(copies=1).pixels
    monkeypatch.setenv("LAZYNEURON_CACHE", str(tmp_path / "cache"))
    assert np.array_equal(pillow_letters(copies=1).pixels, unkept)
    found = glyphs._draw_all([""], 2, (variety := glyphs.Variety(12, 25.0, 4.0)))
    first = glyphs._drawn([""], 2, variety)
    monkeypatch.setattr(glyphs, "_draw_all", None)
    for drawn in (first, glyphs._drawn([""], 2, variety)):
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(found, drawn, strict=True))
    with pytest.raises(TypeError):
        glyphs._drawn([""], 2, variety._replace(turn=24.0))


def test_copies_differ_and_classes_look_different():
    found = pillow_letters(copies=8).pixels.reshape(62, 8, -1).astype(float)
    assert all(len({copy.tobytes() for copy in one}) == 8 for one in found)
    upright = [glyphs._upright(character, "") for character in glyphs._characters([""])]
    assert len(set(upright)) == len(upright) == 62


def test_no_letter_is_cut_off_or_far_from_the_middle():
    """Ink is brighter than five deviations of the noise."""
    pixels = pillow_letters(copies=8).pixels[:, 0].astype(float)
    pixels[pixels < 200] = 0
    assert (pixels.max((1, 2)) > 0).all()
    border = np.concatenate(
        [pixels[:, [0, -1]].reshape(len(pixels), -1), pixels[:, :, [0, -1]].reshape(len(pixels), -1)], 1
    )
    assert (border.max(1) > 0).mean() < 0.02
    rows = (pixels.sum(2) * np.arange(28)).sum(1) / pixels.sum((1, 2))
    assert np.abs(rows - 13.5).max() < 7


def test_letters_are_held_out_at_random_and_in_no_order():
    data = load_images("letters", 28)
    assert (len(data.train.labels), len(data.evaluation.labels), data.num_classes) == (6349, 1587, 62)
    assert len(set(data.train.labels[:62].tolist())) > 30
    train, held_out = (
        {row.tobytes() for row in part.get(np.arange(len(part.labels)))[0].flatten(1).numpy()}
        for part in (data.train, data.evaluation)
    )
    assert not train & held_out


def test_too_few_typefaces_are_a_usage_error(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "DEJAVU_FOLDERS", (tmp_path,))
    with pytest.raises(UsageError, match="0 DejaVu typefaces on this machine, ten are needed: apt install"):
        load_images("dejavu", 28)


@pytest.mark.skipif(not has_dejavu(), reason="apt install fonts-dejavu-core fonts-dejavu-extra")
def test_every_fifth_typeface_is_held_out():
    drawn = dejavu_letters(copies=1)
    num_faces, num_classes = len(DEJAVU), int(drawn.labels.max()) + 1
    assert num_classes == 210
    assert np.array_equal(np.bincount(drawn.faces), np.full(num_faces, num_classes))
    data = load_images("dejavu", 28)
    assert data.num_classes == num_classes
    assert len(data.evaluation.labels) == 4 * num_classes * len(range(0, num_faces, 5))
    assert len(data.train.labels) == 4 * num_classes * num_faces - len(data.evaluation.labels)
    assert np.array_equal(np.unique(data.evaluation.labels), np.arange(num_classes))
