"""Each field of a task changes its model or its batches, as the field's name says; seeds and splits keep apart."""

import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lazyneuron.data.images import Augmentation
from lazyneuron.data.spans import raw_length
from lazyneuron.data.text import END
from lazyneuron.paper.runs import ImageTask, T5Task, Training
from lazyneuron.paper.task import Batches, ImageBatches, TextBatches, build_model, load_batches
from tests.data.test_spans import rebuild

Seen = Callable[[Batches, nn.Module], Any]


@pytest.fixture
def plain_vit(small_vit) -> Training:
    """Large batches of images as they are."""
    return replace(small_vit, batch_size=2000, task=replace(small_vit.task, augmentation=Augmentation(canvas=9)))


@pytest.fixture
def two_folders(tmp_path):
    """Ten black images and ten white ones in colour."""
    for name, grey in (("black", 0), ("white", 255)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = np.full((9, 9, 3), grey, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    return tmp_path / "pictures"


@pytest.fixture
def numbers(tmp_path):
    """Forty paragraphs of numbers in words."""
    words = "zero one two three four five six seven eight nine".split()
    rng = np.random.default_rng(0)
    text = "\n\n".join(".\n".join(" ".join(rng.choice(words, 12)) for _ in range(20)) for _ in range(40))
    (tmp_path / "numbers.txt").write_text(text)
    return tmp_path / "numbers.txt"


def shape_of(name: str) -> Seen:
    return lambda batches, model: dict(model.named_parameters())[name].shape[0]


def config(name: str) -> Seen:
    return lambda batches, model: getattr(model.config, name)


def activations(batches: Batches, model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules()} & {"ReLU", "GELUActivation", "NewGELUActivation"}


def num_documents(batches: Batches, model: nn.Module) -> int:
    assert isinstance(batches, TextBatches)
    return sum(int((np.asarray(part) == END).sum()) for part in (batches.data.train, batches.data.evaluation))


def holds_numbers(batches: Batches, model: nn.Module) -> bool:
    assert isinstance(batches, TextBatches)
    pieces = batches.data.tokenizer.decode(window(batches, batches.train(0), 0)).split()
    return {"seven", "eight", "nine"} <= set(pieces)


def window(batches: TextBatches, batch: dict[str, Tensor], row: int) -> list[int]:
    """The text of a row before its spans were corrupted."""
    sentinels = set(batches.data.sentinels.tolist())
    return rebuild(batch["input_ids"][row].numpy(), batch["labels"][row].numpy(), sentinels)


def mlp_parameters(batches: Batches, model: nn.Module) -> tuple[bool, bool]:
    """Whether any MLP gives anything, and whether any of its parameters is trained."""
    own = {name: p for name, p in model.named_parameters() if re.search(r"DenseReluDense|\.mlp\.", name)}
    down = {name: p for name, p in own.items() if re.search(r"\.(wo|fc2)\.weight", name)}
    assert down
    given = [model.get_submodule(name.rsplit(".", 2)[0])(torch.ones(1, len(p))) for name, p in down.items()]
    return any(bool(y.any()) for y in given), any(p.requires_grad for p in own.values())


T5_CHANGES: dict[str, tuple[Any, Seen, Any]] = {
    "size": ("micro", config("d_model"), 32),
    "text": ("{numbers}", holds_numbers, True),
    "vocab_size": (300, lambda batches, model: (model.config.vocab_size, batches.data.vocab_size), (300, 300)),
    "input_length": (20, lambda batches, model: batches.train(0)["input_ids"].shape[1], 20),
    "num_layers": (2, lambda batches, model: (len(model.encoder.block), len(model.decoder.block)), (2, 2)),
    "d_ff": (40, shape_of("decoder.block.0.layer.2.DenseReluDense.wi.weight"), 40),
    "max_text_bytes": ("{bytes of 25}", num_documents, 25),
    "data_share": (0.25, lambda batches, model: len(batches.data.train), 13 * 1024),
    "hidden_act": ("gelu", activations, {"GELUActivation"}),
    "mlps": ("none", mlp_parameters, (False, False)),
}
"""By field: a value, what is seen of batches and model, and what that is with this value and not with the plain one."""


def labels_seen(batches: Batches, model: nn.Module) -> tuple[list[int], list[int], int]:
    held_out = {label for batch in batches.test() for label in batch["labels"].tolist()}
    return sorted(set(batches.train(0)["labels"].tolist())), sorted(held_out), model.config.num_labels


def num_images(batches: Batches, model: nn.Module) -> int:
    """Different images in a batch of 2,000."""
    return len(batches.train(0)["pixel_values"].flatten(1).unique(dim=0))


def labels_redrawn(batches: Batches, model: nn.Module) -> float:
    """Share of the training labels of a batch that are not those of the same images in the plain task."""
    plain = load_batches(replace(batches.run, task=replace(batches.run.task, random_labels=0.0)), 0, None)
    one, other = batches.train(0), plain.train(0)
    assert torch.equal(one["pixel_values"], other["pixel_values"])
    assert torch.equal(next(batches.test())["labels"], next(plain.test())["labels"])
    return (one["labels"] != other["labels"]).double().mean().item()


def is_uniform(batches: Batches, model: nn.Module) -> bool:
    """Whether pixels are uniform: those of digits are mostly black."""
    return (batches.train(0)["pixel_values"] == -1).double().mean().item() < 0.01


IMAGE_CHANGES: dict[str, list[tuple[dict[str, Any], Seen, Any]]] = {
    "augmentation": [
        (
            {"augmentation": Augmentation(canvas=12)},
            lambda batches, model: batches.train(0)["pixel_values"].shape[-1],
            12,
        ),
        ({"augmentation": Augmentation(canvas=9, noise=0.1)}, num_images, 2000),
    ],
    "model": [
        ({"model": "mixer", "size": "mixer-tiny"}, lambda batches, model: type(model).__name__, "MLPMixer"),
        ({"model": "mlp", "size": "mlp"}, lambda batches, model: type(model).__name__, "MLP"),
        ({"model": "resnet", "size": "resnet8"}, lambda batches, model: type(model).__name__, "ResNet"),
    ],
    "size": [({"size": "vit-micro"}, config("hidden_size"), 32)],
    "images": [({"images": "{two_folders}"}, lambda batches, model: batches.train(0)["pixel_values"].shape[1], 3)],
    "num_layers": [({"num_layers": 3}, config("num_hidden_layers"), 3)],
    "d_ff": [({"d_ff": 40}, config("intermediate_size"), 40)],
    "patch_size": [({"patch_size": 9}, config("patch_size"), 9)],
    "hidden_act": [({"hidden_act": "gelu"}, activations, {"GELUActivation"})],
    "class_share": [({"class_share": 0.5}, labels_seen, ([0, 1, 2, 3, 4],) * 2 + (5,))],
    "data_share": [({"data_share": 0.1}, num_images, 144)],
    "random_labels": [
        ({"random_labels": 0.4}, labels_redrawn, pytest.approx(0.36, abs=0.04)),
        ({"random_labels": 1.0}, labels_redrawn, pytest.approx(0.9, abs=0.04)),
    ],
    "mlps": [({"mlps": "none"}, mlp_parameters, (False, False))],
    "pixels": [({"pixels": "random"}, is_uniform, True), ({"pixels": "fresh"}, num_images, 2000)],
}


def test_every_field_has_a_case():
    assert {f.name for f in fields(T5Task)} == T5_CHANGES.keys()
    assert {f.name for f in fields(ImageTask)} == IMAGE_CHANGES.keys()


def seen_of(run: Training, see: Seen, cache) -> Any:
    batches = load_batches(run, 0, cache)
    return see(batches, build_model(batches, 0))


@pytest.mark.parametrize("name", T5_CHANGES)
def test_a_field_changes_model_or_batches_of_text(small_t5, corpus, numbers, cache, name):
    value, see, expected = T5_CHANGES[name]
    if name == "text":
        value = str(numbers)
    elif name == "max_text_bytes":
        value = sum(file.stat().st_size for file in sorted(corpus.iterdir())[:25])
    changes = {"text": "python", "max_text_bytes": 200_000} if name == "vocab_size" else {}
    plain = replace(small_t5, task=replace(small_t5.task, **changes))
    assert seen_of(replace(plain, task=replace(plain.task, **{name: value})), see, cache) == expected
    assert seen_of(plain, see, cache) != expected


@pytest.mark.parametrize(
    ("changes", "see", "expected"),
    [case for cases in IMAGE_CHANGES.values() for case in cases],
    ids=[" ".join(map(str, case[0].values())) for cases in IMAGE_CHANGES.values() for case in cases],
)
def test_a_field_changes_model_or_batches_of_images(plain_vit, two_folders, cache, changes, see, expected):
    if "images" in changes:
        changes = {"images": str(two_folders)}
    assert seen_of(replace(plain_vit, task=replace(plain_vit.task, **changes)), see, cache) == expected
    assert seen_of(plain_vit, see, cache) != expected


def test_seeds_and_steps_draw_other_training_batches_and_the_same_probes(small_run, cache):
    zero, again, one = (load_batches(small_run, seed, cache) for seed in (0, 0, 1))
    for name in zero.train(0):
        drawn = [zero.train(0)[name], one.train(0)[name], zero.train(1)[name]]
        assert torch.equal(drawn[0], again.train(0)[name])
        assert not torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        for split in ("train", "eval"):
            probes = [zero.probe(split, 0)[name], one.probe(split, 0)[name], zero.probe(split, 1)[name]]
            assert torch.equal(probes[0], probes[1])
            assert not torch.equal(probes[0], probes[2])


def test_training_and_held_out_text_is_where_the_split_put_it(small_t5, cache):
    """Each window of training, of both probes and of the test is in its own part of the text and not in the other."""
    batches = load_batches(small_t5, 0, cache)
    assert isinstance(batches, TextBatches)
    length = raw_length(small_t5.task.input_length)
    train, held_out = (windows_of(tokens, length) for tokens in (batches.data.train, batches.data.evaluation))
    for own, other, batch in (
        (train, held_out, batches.train(3)),
        (train, held_out, batches.probe("train", 1)),
        (held_out, train, batches.probe("eval", 1)),
        (held_out, train, next(batches.test())),
    ):
        found = {tuple(window(batches, batch, row)) for row in range(len(batch["labels"]))}
        assert found <= own
        assert not found & other


def windows_of(tokens: np.ndarray, length: int) -> set[tuple[int, ...]]:
    return {tuple(row) for row in np.lib.stride_tricks.sliding_window_view(np.asarray(tokens), length).tolist()}


def test_training_and_held_out_images_are_where_the_split_put_them(plain_vit, cache):
    task = replace(plain_vit.task, augmentation=Augmentation(canvas=8))
    batches = load_batches(replace(plain_vit, batch_size=50, task=task), 0, cache)
    assert isinstance(batches, ImageBatches)
    parts = [part.get(np.arange(len(part.labels)))[0] for part in (batches.data.train, batches.data.evaluation)]
    train, held_out = ({digit.tobytes() for digit in part.numpy()} for part in parts)
    for own, other, batch in (
        (train, held_out, batches.train(3)),
        (train, held_out, batches.probe("train", 1)),
        (held_out, train, batches.probe("eval", 1)),
        (held_out, train, next(batches.test())),
    ):
        found = {digit.tobytes() for digit in digits_of(batch["pixel_values"]).numpy()}
        assert found <= own
        assert not found & other


def digits_of(pixels: Tensor) -> Tensor:
    """The uint8 images that were put on a canvas as large as they are."""
    return ((pixels + 1) * 127.5).round().byte()
