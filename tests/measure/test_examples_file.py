"""Token ids as the text that people read."""

import pytest
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lazyneuron.measure.examples_file import token_text


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
