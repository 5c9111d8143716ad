"""What a model is fed: token for token and pixel for pixel what its family expects, or one line that says why not."""

import itertools
import sys
import time
import tracemalloc
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import lazyneuron as lazy
from lazyneuron.data import spans
from lazyneuron.errors import UsageError
from lazyneuron.load.batches import batches, image_batches, text_batches
from lazyneuron.load.models import Loaded, load
from lazyneuron.load.token_rows import _encoded
from tests.load.conftest import build, byte_tokenizer

START, END, CLS, SEP = 1, 2, 3, 4
DOCUMENTS = ["the first document.", "", "  a second, with spaces  ", "third"]


def ids(text):
    return byte_tokenizer()(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def loaded(saved):
    """`loaded(family)`, each loaded once."""
    known = {}
    return lambda family: (
        known.setdefault(family, None) or known.update({family: load(str(saved(family)))}) or known[family]
    )


def rows_of(found, name="input_ids"):
    return [row for batch in found for row in batch[name].tolist()]


def joined(prefix, between):
    texts = [text for text in DOCUMENTS if text]
    return prefix + [token for text in texts for token in ids(text) + between][: -len(between) or None]


@pytest.mark.parametrize(
    ("family", "prefix", "between"),
    [("llama", [START], [END, START]), ("gpt2", [], [END]), ("opt", [END], [END])],
)
def test_a_decoder_gets_full_windows_of_the_running_text(loaded, family, prefix, between):
    stream = joined(prefix, between)
    found = list(text_batches(loaded(family), DOCUMENTS, batch_size=4, length=7))
    rows = rows_of(found)
    assert rows == [stream[start : start + 7] for start in range(0, len(stream) - 6, 7)]
    assert len(stream) % 7 > 0
    assert [len(batch["input_ids"]) for batch in found] == [4] * (len(rows) // 4) + [len(rows) % 4] * (
        len(rows) % 4 > 0
    )
    assert {tuple(batch) for batch in found} == {("input_ids",)}


def test_text_shorter_than_a_window_gives_one_short_row(loaded):
    for family in ("llama", "t5", "bart", "bert"):
        (batch,) = text_batches(loaded(family), ["short"], batch_size=8)
        assert len(batch["input_ids"]) == 1
        assert 5 <= batch["input_ids"].shape[1] <= 7
        loaded(family).model(**batch)


def test_length_is_that_of_the_positions_and_at_most_512(loaded):
    text = ["x" * 2000]
    for family, length in (("gpt2", 64), ("bert", 64), ("roberta", 62), ("bart", 64), ("t5", 512), ("clip", 64)):
        batch = next(text_batches(loaded(family), text, batch_size=2))
        assert batch["input_ids"].shape == (2, length)
        if family != "clip":
            loaded(family).model(**batch)
    for family, wrong, limit in (("gpt2", 65, "64"), ("roberta", 63, "62"), ("t5", 0, "unlimited")):
        with pytest.raises(UsageError, match=f"has {limit} positions; got length={wrong}"):
            text_batches(loaded(family), text, batch_size=2, length=wrong)
    with pytest.raises(UsageError, match="length=2 leaves no room beside 2 special tokens"):
        text_batches(loaded("bert"), text, batch_size=2, length=2)
    with pytest.raises(UsageError, match="a batch has at least 1 row; got batch_size=0"):
        text_batches(loaded("bert"), text, batch_size=0)


def test_an_encoder_gets_documents_in_rows_with_their_special_tokens_and_a_mask(loaded):
    found = list(text_batches(loaded("bert"), DOCUMENTS, batch_size=2, length=12))
    expected = []
    for text in DOCUMENTS:
        tokens = ids(text)
        expected += [[CLS, *tokens[start : start + 10], SEP] for start in range(0, len(tokens), 10)]
    real = [
        [token for token, is_real in zip(row, mask, strict=True) if is_real]
        for batch in found
        for row, mask in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    ]
    assert real == expected
    assert all((batch["input_ids"][batch["attention_mask"] == 0] == 0).all() for batch in found)
    assert all(batch["attention_mask"][:, -1].any() for batch in found)


def test_t5_gets_corrupted_spans_of_the_running_text(loaded):
    text = "".join(chr(97 + i % 26) for i in range(700))
    found = list(text_batches(loaded("t5"), [text[:300], text[300:]], batch_size=3, length=32))
    raw = spans.raw_length(32)
    stream = [*ids(text[:300]), END, *ids(text[300:])]
    sentinels = [byte_tokenizer(num_sentinels=30).convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(30)]
    rows = [
        (row, target)
        for batch in found
        for row, target in zip(batch["input_ids"].tolist(), batch["decoder_input_ids"].tolist(), strict=True)
    ]
    assert len(rows) == len(stream) // raw
    masks = set()
    for number, (row, target) in enumerate(rows):
        assert len(row) == 32
        assert row[-1] == END
        assert target[0] == 0  # the model's own start token; its end token is cut off
        noise = {}
        for token in target[1:]:
            if token in sentinels:
                noise[token] = []
            else:
                noise[list(noise)[-1]].append(token)
        assert list(noise) == sentinels[: len(noise)]
        whole = [t for token in row[:-1] for t in noise.get(token, [token])]
        assert whole == stream[number * raw : (number + 1) * raw]
        masks.add(tuple(token in sentinels for token in row))
    assert len(masks) > 1
    again = list(text_batches(loaded("t5"), [text[:300], text[300:]], batch_size=3, length=32))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(found, again, strict=True) for name in a)
    with pytest.raises(UsageError, match="span corruption needs at least 4 tokens; got length=3"):
        text_batches(loaded("t5"), [text], batch_size=1, length=3)
    with pytest.raises(UsageError, match="length=2000 needs 111 sentinels but the tokenizer has 30"):
        text_batches(loaded("t5"), [text], batch_size=1, length=2000)
    with pytest.raises(UsageError, match="1 token, too few"):
        next(text_batches(loaded("t5"), ["x"], batch_size=1))


def test_an_encoder_decoder_without_sentinels_gets_the_window_twice(loaded):
    text = "0123456789" * 3
    (batch,) = text_batches(loaded("bart"), [text], batch_size=8, length=12)
    assert batch["input_ids"].tolist() == [[START, *ids("0123456789"), END]] * 3
    # BART's own rule starts from its decoder_start_token_id and drops the last token.
    assert loaded("bart").model.config.decoder_start_token_id == END
    assert batch["decoder_input_ids"].tolist() == [[END, START, *ids("0123456789")]] * 3
    headless = replace(loaded("bart"), model=loaded("bart").model.model)
    (other,) = text_batches(headless, [text], batch_size=8, length=12)
    assert torch.equal(other["decoder_input_ids"], batch["decoder_input_ids"])


def test_text_and_images_go_together(loaded, tmp_path):
    for i in range(5):
        Image.new("RGB", (9, 9), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "text.txt").write_text("one\n\ntwo\n\nthree")
    found, what = batches(
        loaded("clip"), text=str(tmp_path / "text.txt"), images=str(tmp_path), batch_size=2, length=10
    )
    found = list(found)
    assert [set(batch) for batch in found] == [{"input_ids", "attention_mask", "pixel_values"}] * 2
    assert found[0]["input_ids"].tolist() == [[START, *ids("one"), END], [START, *ids("two"), END]]
    assert [len(batch["pixel_values"]) for batch in found] == [2, 2]
    assert what == (
        f"the text in {tmp_path / 'text.txt'}, documents in rows of up to 10 tokens, none of them masked; "
        f"the 5 images in {tmp_path}"
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "bert", "roberta", "t5", "bart", "vit", "clip"])
def test_the_default_feed_finds_mlps_and_counts_what_is_real(loaded, family):
    found, what = batches(loaded(family), batch_size=3)
    batch = next(found)
    with warnings.catch_warnings(), torch.no_grad(), lazy.watch(loaded(family).model) as probe:
        if family == "clip":  # its attention_mask is the text's alone, and the images have no padding
            warnings.filterwarnings("ignore", message="site 'vision_model")
        loaded(family).model(**batch)
    assert len(probe.sites) == (4 if family == "clip" else 2)
    is_image = "pixel_values" in batch
    real = batch.get("attention_mask", torch.ones_like(batch["input_ids"])).sum() if "input_ids" in batch else 0
    expected = {"vision_model": 3 * 5 * is_image, "vit": 3 * 5 * is_image, "text_model": int(real)}
    for site in probe.sites:
        first = site.name.split(".")[0]
        if "decoder" not in site.name or family == "opt":
            assert probe.num_tokens[site.name] == expected.get(first, int(real))
    assert ("prose that ships with Python" in what) == ("text" in loaded(family).kind)
    assert ("scikit-learn's digits, held-out part" in what) == ("images" in loaded(family).kind)


def test_pixels_are_resized_and_normalised_by_the_models_own_processor(loaded, tmp_path):
    Image.new("RGB", (20, 14), (255, 51, 0)).save(tmp_path / "colour.png")
    images = [tmp_path / "colour.png", Image.new("L", (8, 8), 255), Image.new("RGBA", (3, 5), (0, 0, 0, 255))]
    found = list(image_batches(loaded("vit"), images, batch_size=2))
    assert [tuple(batch["pixel_values"].shape) for batch in found] == [(2, 3, 8, 8), (1, 3, 8, 8)]
    pixels = torch.cat([batch["pixel_values"] for batch in found])
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.25, 0.125])
    colours = torch.tensor([[1, 0.2, 0], [1, 1, 1], [0, 0, 0]])
    torch.testing.assert_close(pixels, ((colours - mean) / std)[:, :, None, None].expand(3, 3, 8, 8))


def test_pixels_have_the_models_dtype_and_token_ids_do_not(saved):
    found = load(str(saved("clip")), dtype="bfloat16")
    batch = next(batches(found, batch_size=2)[0])
    assert (batch["pixel_values"].dtype, batch["input_ids"].dtype) == (torch.bfloat16, torch.int64)


def test_without_an_image_processor_images_are_cut_to_the_models_size(loaded):
    plain = replace(loaded("vit"), image_processor=None)
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 8:24] = 255  # the square in the middle
    (batch,) = image_batches(plain, [Image.fromarray(wide)], batch_size=1)
    assert batch["pixel_values"].shape == (1, 3, 8, 8)
    assert batch["pixel_values"][..., 1:-1].unique().tolist() == [1.0]
    (black,) = image_batches(plain, [Image.new("1", (1, 1))], batch_size=1)
    assert black["pixel_values"].unique().tolist() == [-1.0]


def test_text_stays_text_beside_images_without_a_processor(loaded):
    batch = next(batches(replace(loaded("clip"), image_processor=None), batch_size=2)[0])
    assert (batch["input_ids"].dtype, batch["pixel_values"].shape) == (torch.int64, (2, 3, 8, 8))


def test_a_model_of_one_channel_gets_grey_images(loaded):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(image_size=8, patch_size=4, num_channels=1, hidden_size=16, num_hidden_layers=1)
    config.num_attention_heads, config.intermediate_size = 2, 32
    grey = Loaded("grey", ViTForImageClassification(config).eval(), "images", None, loaded("vit").image_processor)
    (batch,) = image_batches(grey, [Image.new("RGB", (4, 4), (255, 255, 255))], batch_size=1)
    assert batch["pixel_values"].shape == (1, 1, 8, 8)
    # The processor's three means (0.2) and deviations (0.875 / 3), averaged.
    assert batch["pixel_values"].unique().item() == pytest.approx(0.8 / (0.875 / 3))
    config.num_channels = 5
    with pytest.raises(UsageError, match="images have 1, 3 or 4 channels but the model takes 5"):
        next(image_batches(grey, [Image.new("L", (4, 4))], batch_size=1))


def test_a_timm_model_gets_pixels_as_its_first_argument():
    class Timm(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(2, 2, dtype=torch.bfloat16)
            self.pretrained_cfg = {
                "input_size": (3, 4, 4), "mean": (0.5, 0.0, 0.0), "std": (0.5, 1.0, 0.25),
                "crop_pct": 0.5, "interpolation": "bilinear",
            }  # fmt: skip

        def forward(self, x, attn_mask=None):
            return x

    found, _ = batches(Loaded("timm:it", Timm(), "images"), batch_size=2)
    assert next(found)["x"].shape == (2, 3, 4, 4)
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[2:6, 2:6] = 255  # half of the side: what crop_pct 0.5 leaves
    (batch,) = image_batches(Loaded("timm:it", Timm(), "images"), [Image.fromarray(frame)], batch_size=1)
    assert batch["x"].dtype == torch.bfloat16
    assert batch["x"][0].flatten(1).unique(dim=1).flatten().tolist() == [1.0, 1.0, 4.0]


def test_images_come_from_folders_files_and_idx(loaded, tmp_path):
    for name in ("cat/a.png", "cat/b.JPG", "dog/c.png", "dog/not-an-image.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("no")
        else:
            Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / name, format="PNG")

    def count(source):
        return sum(len(batch["pixel_values"]) for batch in batches(loaded("vit"), images=source, batch_size=2)[0])

    assert count(str(tmp_path)) == 3
    assert count(str(tmp_path / "dog")) == 1
    assert count(str(tmp_path / "dog" / "c.png")) == 1
    idx = tmp_path / "idx"
    idx.mkdir()
    for part, number in (("train", 4), ("t10k", 3)):
        header = b"\0\0\x08\x03" + np.array([number, 8, 8], ">u4").tobytes()
        (idx / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(range(64)) * number)
        header = b"\0\0\x08\x01" + np.array([number], ">u4").tobytes()
        (idx / f"{part}-labels-idx1-ubyte").write_bytes(header + bytes(range(number)))
    assert count(str(idx)) == 3
    assert count("digits") == 359
    pixels = next(batches(loaded("vit"), images=str(idx), batch_size=1)[0])["pixel_values"][0, 0]
    torch.testing.assert_close(pixels, (torch.arange(64).view(8, 8) / 255 - 0.1) / 0.5)
    for source, message in (
        (str(tmp_path / "nowhere"), "no images at .*nowhere: give a folder, an image, hf:NAME"),
        (str(tmp_path / "dog" / "not-an-image.txt"), "cannot read the image .*not-an-image.txt"),
    ):
        with pytest.raises(UsageError, match=message):
            batches(loaded("vit"), images=source, batch_size=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty has no images"):
        batches(loaded("vit"), images=str(tmp_path / "empty"), batch_size=1)
    with pytest.raises(UsageError, match="there are no images"):
        next(image_batches(loaded("vit"), [], batch_size=1))


def test_text_comes_from_files_and_folders(loaded, tmp_path):
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first\n\nstill first")
    found, what = batches(loaded("gpt2"), text=str(tmp_path), batch_size=1)
    assert rows_of(found) == [[*ids("first\n\nstill first"), END, *ids("second")]]
    assert what == f"the text in {tmp_path}, windows of 64 tokens"
    found, _ = batches(loaded("gpt2"), text=str(tmp_path / "a.txt"), batch_size=1)
    assert rows_of(found) == [[*ids("first"), END, *ids("still first")]]
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(UsageError, match="the text is empty"):
        batches(loaded("gpt2"), text=str(tmp_path / "b.txt"), batch_size=1)
    with pytest.raises(UsageError, match=r"no text at .*nowhere"):
        batches(loaded("gpt2"), text=str(tmp_path / "nowhere"), batch_size=1)


def test_documents_are_read_only_as_they_are_needed(loaded):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield "0123456789"

    for family in ("gpt2", "bert", "t5", "bart"):
        read.clear()
        found = text_batches(loaded(family), endless(), batch_size=2, length=16)
        assert read == []
        next(found)
        assert 0 < len(read) <= 6


def test_one_document_of_100_megabytes_is_tokenized_in_pieces(loaded):
    words = "".join(f"{i} " for i in range(20_000))
    text = words * (100_000_000 // len(words))
    start = time.perf_counter()
    found = text_batches(loaded("gpt2"), [text], batch_size=64, length=64)
    rows = rows_of(itertools.islice(found, 50))
    assert time.perf_counter() - start < 5
    assert [token for row in rows for token in row] == ids(text[: 50 * 64 * 64])
    pieces = []

    def words_only(piece, add_special_tokens=True, verbose=True):
        pieces.append(piece)
        return {"input_ids": [1]}

    list(_encoded(words_only, text[:200_000]))
    assert "".join(pieces) == text[:200_000]
    assert all(piece.startswith(" ") for piece in pieces[1:])


def test_a_file_without_a_paragraph_is_read_in_blocks(loaded, tmp_path):
    from lazyneuron.load.sources import text_source

    path = tmp_path / "long.txt"
    line = "".join(f"{i} " for i in range(100_000))
    path.write_text(line * 40)
    tracemalloc.start()
    size = sum(len(text) for text in text_source(str(path), None)[0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == len(line) * 40 > 20_000_000
    assert peak < 12_000_000
    path.write_text("x" * 3_000_000 + "\n\n" + "y z")
    texts = list(text_source(str(path), None)[0])
    assert texts[-1] == "y z"
    assert "".join(texts) == "x" * 3_000_000 + "y z"


@pytest.mark.parametrize(("family", "argument"), [("whisper", "input_features"), ("wav2vec2", "input_values")])
def test_what_cannot_be_guessed_is_named(loaded, family, argument):
    message = f"text and images do not give .* the {argument} that .* takes: .*module.path:function"
    for feed in (
        lambda: batches(loaded(family), batch_size=1),
        lambda: text_batches(loaded(family), ["a"], batch_size=1),
        lambda: image_batches(loaded(family), [], batch_size=1),
    ):
        with pytest.raises(UsageError, match=message):
            feed()


def test_an_unknown_required_argument_is_named(loaded):
    class Marked(type(loaded("bert").model)):
        def forward(self, input_ids, marks, attention_mask=None):
            raise AssertionError

    torch.manual_seed(0)
    model = Marked(loaded("bert").model.config)
    with pytest.raises(UsageError, match=r"the marks that Marked takes: .*module.path:function"):
        batches(replace(loaded("bert"), model=model), batch_size=1)


def test_a_model_without_tokenizer_or_with_anothers(loaded):
    bare = replace(loaded("bert"), tokenizer=None, notes=("a note", "x has no tokenizer files"))
    with pytest.raises(
        UsageError, match="x has no tokenizer files, so it cannot get the input_ids that BertForMaskedLM"
    ):
        batches(bare, batch_size=1)
    small = build("llama")
    small.resize_token_embeddings(100)
    with pytest.raises(
        UsageError, match=r"the tokenizer gives token \d+ but the model has 100: it belongs to another model"
    ):
        batches(replace(loaded("llama"), model=small), batch_size=1)


def test_sources_that_the_model_does_not_take(loaded):
    for family, wrong, takes in (
        ("vit", {"text": "python"}, "takes images: leave out text"),
        ("bert", {"images": "digits"}, "takes text: leave out images"),
        ("bert", {"dataset": "x", "text": "y"}, "data set x and y: give only one of them"),
    ):
        with pytest.raises(UsageError, match=takes):
            batches(loaded(family), batch_size=1, **wrong)
    own = Loaded("m:f", nn.Linear(2, 2), "own", inputs=torch.ones(1, 2))
    with pytest.raises(UsageError, match="m:f has its own inputs: leave out dataset"):
        batches(own, dataset="x", batch_size=1)


@pytest.fixture
def data_set(monkeypatch):
    """A stand-in for the data set library and the hub: `data_set[split] = rows`."""
    from lazyneuron.load import sources

    parts = {}
    asked = []

    def load_dataset(path, config, streaming):
        asked.append((path, config, streaming))
        if path == "broken":
            raise ValueError("no such\nthing")
        return parts

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(sources, "reaches_hub", lambda path, file, repo_type: path != "far/away")
    return SimpleNamespace(parts=parts, asked=asked)


def test_the_columns_of_a_data_set_decide(loaded, data_set):
    picture = Image.new("RGB", (8, 8))
    row = {"id": "7", "label": 1, "caption": "a caption", "small": Image.new("L", (2, 2)), "big": picture}
    data_set.parts |= {"train": [], "test": [row, row | {"caption": "other"}]}
    found, what = batches(loaded("gpt2"), dataset="owner/name/config", batch_size=1)
    assert rows_of(found) == [[*ids("a caption"), END, *ids("other")]]
    assert what.startswith("column caption of the data set owner/name/config (test)")
    assert data_set.asked == [("owner/name", "config", True)]
    found, what = batches(loaded("vit"), dataset="owner/name", batch_size=4)
    assert len(next(found)["pixel_values"]) == 2
    assert what == "column big of the data set owner/name (test)"
    found, what = batches(loaded("clip"), dataset="hf-name", batch_size=4)
    assert {name: len(value) for name, value in next(found).items()} == {
        "input_ids": 2,
        "attention_mask": 2,
        "pixel_values": 2,
    }
    data_set.parts["validation"] = [
        {"text": "t", "longer": "a longer one", "image": picture, "big": picture.resize((9, 9))}
    ]
    for family, column in (("gpt2", "text"), ("vit", "image")):
        assert (
            f"column {column} of the data set x (validation)" in batches(loaded(family), dataset="x", batch_size=1)[1]
        )
    assert batches(loaded("gpt2"), text="hf:x", batch_size=1)[1].startswith("column text of the data set x")
    assert batches(loaded("vit"), images="hf:x", batch_size=1)[1].startswith("column image of the data set x")


def test_a_data_set_without_the_column_or_out_of_reach(loaded, data_set, monkeypatch):
    data_set.parts["train"] = [{"image": Image.new("L", (8, 8)), "label": 1}] * 2
    with pytest.raises(UsageError, match="the data set x has no column of text"):
        batches(loaded("bert"), dataset="x", batch_size=1)
    found, what = batches(loaded("clip"), dataset="x", batch_size=2)
    assert len(next(found)["input_ids"]) == 2
    assert "ships with Python" in what
    data_set.parts["train"] = [{"text": "a"}]
    with pytest.raises(UsageError, match="the data set x has no column of images"):
        batches(loaded("vit"), dataset="x", batch_size=1)
    with pytest.raises(UsageError, match=r"cannot read the data set broken \(no such thing\): choose another"):
        batches(loaded("bert"), dataset="broken", batch_size=1)
    with pytest.raises(UsageError, match="far/away is no folder here, and the hub cannot be reached"):
        batches(loaded("bert"), dataset="far/away", batch_size=1)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"pip install 'lazyneuron\[hub\]'"):
        batches(loaded("bert"), dataset="x", batch_size=1)


def test_a_users_own_inputs_in_each_of_their_forms():
    one = {"x": torch.ones(2, 3), "n": torch.tensor([1]), "flag": True, "parts": (torch.zeros(1),)}

    def feed(inputs, dtype=None):
        model = nn.Linear(2, 2, dtype=torch.bfloat16)
        found, what = batches(Loaded("m:f", model, "own", inputs=inputs, dtype=dtype), batch_size=1)
        assert what == "the inputs that m:f returned"
        return list(found)

    (batch,) = feed(one, torch.bfloat16)
    assert batch["x"].dtype == batch["parts"][0].dtype == torch.bfloat16
    assert (batch["n"].dtype, batch["flag"]) == (torch.int64, True)
    assert feed(one)[0]["x"].dtype == torch.float32
    assert [len(part) for part in feed((torch.ones(4), torch.ones(5)))[0]] == [4, 5]
    assert feed(torch.ones(3))[0].tolist() == [1.0] * 3
    assert [batch.tolist() for batch in feed([torch.ones(1), torch.zeros(1)])] == [[1.0], [0.0]]
    assert len(feed(one for _ in range(3))) == 3
    with pytest.raises(UsageError, match="m:f returned no inputs: return at least one batch"):
        feed([])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_are_on_the_models_device(saved):
    for family in ("llama", "bert", "t5", "bart", "vit", "clip"):
        found = load(str(saved(family)), device="cuda", dtype="bfloat16")
        batch = next(batches(found, batch_size=2)[0])
        assert {value.device.type for value in batch.values()} == {"cuda"}
        found.model(**batch)
