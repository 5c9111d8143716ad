"""Token ids as the text that people read, and the images that patches are from."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

import lazyneuron as lazy
from lazyneuron.measure import examples_file
from lazyneuron.measure.examples_file import token_text, write_images


def tokenizer_of(model: object, pre_tokenizer: object = None, decoder: object = None) -> hf.PreTrainedTokenizerFast:
    inner = Tokenizer(model)
    if pre_tokenizer is not None:
        inner.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        inner.decoder = decoder
    return hf.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")


WORDPIECE = models.WordPiece({"[UNK]": 0, "wake": 1, "##s": 2}, unk_token="[UNK]")
BYTES = models.BPE({"[UNK]": 0, "\u0120wake": 1, "s": 2, "\u010a": 3, "\u00c3": 4}, [], unk_token="[UNK]")
PIECES = models.Unigram([("[UNK]", 0.0), ("\u2581wake", -1.0), ("s", -2.0)], unk_id=0)


@pytest.mark.parametrize(
    ("tokenizer", "texts"),
    [
        (None, ["[0]", "[1]"]),
        (tokenizer_of(WORDPIECE, None, decoders.WordPiece()), ["[UNK]", " wake", "s"]),
        # The last is half of a character: its raw form is shown.
        (
            tokenizer_of(BYTES, pre_tokenizers.ByteLevel(), decoders.ByteLevel()),
            ["[UNK]", " wake", "s", "\n", "\u00c3"],
        ),
        (tokenizer_of(PIECES, pre_tokenizers.Metaspace(), decoders.Metaspace()), ["[UNK]", " wake", "s"]),
    ],
    ids=["none", "WordPiece", "bytes", "pieces"],
)
def test_tokens_keep_the_space_that_they_begin_with(tokenizer: object, texts: list[str]) -> None:
    assert [token_text(tokenizer, i) for i in range(len(texts))] == texts


class Patches(nn.Module):
    """One neuron, which is as active as a patch of 2 x 2 pixels is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 1, bias=False), nn.Linear(1, 4)
        nn.init.ones_(self.up.weight)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        patches = nn.functional.unfold(pixels, 2, stride=2).transpose(1, 2)
        return patches + self.down(torch.relu(self.up(patches)))


@pytest.mark.parametrize("most", [200, 2])
def test_pictures_are_those_that_examples_point_to(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples_file, "MAX_IMAGES", most)
    pixels = torch.rand(10, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    pixels[7, 0, 2:4, 4:6] = 2  # row 1, column 2
    model = Patches()
    with lazy.top_examples(model, 3) as examples:
        model(pixels[:4])
        model(pixels[4:])
    write_images(examples, iter(pixels), 9, 0, tmp_path)
    shown = json.loads((tmp_path / "images.json").read_text())
    best = examples[""]
    assert (int(best.sequences[0, 0]), int(best.positions[0, 0])) == (7, 1 * 3 + 2)
    assert shown["side"] == 3
    pictures = shown["images"]
    assert set(map(int, pictures)) <= set(best.sequences[0].tolist())
    assert len(pictures) == min(most, len(best.sequences[0].unique()))
    for number, uri in pictures.items():
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
        x = pixels[int(number), 0]
        assert np.allclose(picture, 255 * (x - x.min()) / (x.max() - x.min()), atol=1)
