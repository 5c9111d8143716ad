"""Every field of a training and of its task changes what it is about: weights, batches, model or records."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.runs import ImageTask, T5Task, Training, run_config
from lazyneuron.paper.task import build_model, load_batches, training_batches
from lazyneuron.paper.train import train
from lazyneuron.records.folder import RunFolder
from tests.data.test_images import write_idx
from tests.data.test_spans import rebuild
from tests.paper.test_task import with_task

QUICK = {"num_steps": 3, "num_probes": 2, "probe_batches": 1, "test_examples": 5, "log_every": 1, "checkpoint_every": 1}
QUICK |= {"learning_rate": 1e-2, "optimizer": "adamw", "warmup_steps": 0, "clip_norm": None, "schedule": "constant"}


def weights(folder):
    state = folder.load_checkpoint()["model"]
    return torch.cat([state[name].flatten() for name in sorted(state)]).tolist()


def recorded(**where):
    """The numbers of tokens and steps of records, those with these fields."""
    return lambda folder: [
        (r.step, r.num_tokens) for r in folder.records() if all(getattr(r, name) == v for name, v in where.items())
    ]


TRAINING = {
    "name": ("other", lambda folder: {r.recipe for r in folder.records()}),
    "task": (None, weights),
    "num_steps": (4, recorded(what="loss", split="train")),
    "batch_size": (9, weights),
    "learning_rate": (2e-2, weights),
    "optimizer": ("sgd", weights),
    "schedule": ("linear", weights),
    "warmup_steps": (3, weights),
    "weight_decay": (0.5, weights),
    "clip_norm": (1e-3, weights),
    "z_loss": (0.1, weights),
    "num_probes": (4, recorded(what="accuracy", split="eval")),
    "probe_batches": (2, recorded(what="accuracy", split="eval")),
    "test_examples": (7, recorded(what="accuracy", split="test")),
    "log_every": (2, recorded(what="loss", split="train")),
    "checkpoint_every": (3, lambda folder: [path.name for path in folder.checkpoints()]),
    "num_workers": (1, None),
    "num_threads": (2, lambda folder: {r.source.num_threads for r in folder.records()}),
    "selection": (TopK(k=3), recorded(what="budget")),
}


@pytest.fixture
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("same_threads")
@pytest.mark.parametrize("name", [field.name for field in fields(Training)])
def test_each_field_of_a_training_changes_its_weights_or_records(name, small_vit, tmp_path, cache):
    value, seen = TRAINING[name]
    base = replace(small_vit, **QUICK, batch_size=8)
    # SGD is unlike AdamW not blind to the scale of the gradient, which is what clipping changes.
    base = replace(base, optimizer="sgd") if name == "clip_norm" else base
    value = replace(base.task, d_ff=64) if name == "task" else value
    changed = replace(base, **{name: value})
    if name == "num_workers":
        loaders = [training_batches(load_batches(run, 0, cache), 0, 2, 0, 1) for run in (base, changed)]
        assert [loader.num_workers for loader in loaders] == [0, 1]
        return
    found = []
    for number, run in enumerate((base, base, changed)):
        batches = load_batches(run, 0, cache)
        folder = RunFolder(tmp_path / str(number), run_config(run, 0, batches.fingerprint))
        train(run, folder, batches, seed=0, device="cpu")
        found.append(seen(folder))
    assert found[0] == found[1] != found[2]


def shapes(run, cache):
    model = build_model(load_batches(run, 0, cache), 0)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def modules(run, cache):
    return str(build_model(load_batches(run, 0, cache), 0))


def batch(run, cache):
    return {name: value.tolist() for name, value in load_batches(run, 0, cache).train(0).items()}


def size_of_data(run, cache):
    return len(load_batches(run, 0, cache).data.train.labels)


T5 = {
    "size": ({"size": "micro"}, shapes),
    "text": ({"text": "other"}, batch),
    "vocab_size": ({"vocab_size": 220}, shapes),
    "input_length": ({"input_length": 16}, batch),
    "num_layers": ({"num_layers": 2}, shapes),
    "d_ff": ({"d_ff": 64}, shapes),
    "max_text_bytes": ({"max_text_bytes": 60_000}, batch),
    "hidden_act": ({"hidden_act": "gelu"}, modules),
}
IMAGE = {
    "augmentation": ({"augmentation": Augmentation(canvas=9, rotation=45, noise=0.1)}, batch),
    "model": ({"model": "mixer", "size": "mixer-tiny"}, modules),
    "size": ({"size": "vit-micro"}, shapes),
    "images": ({"images": "other"}, batch),
    "num_layers": ({"num_layers": 3}, shapes),
    "d_ff": ({"d_ff": 64}, shapes),
    "patch_size": ({"patch_size": 9}, shapes),
    "hidden_act": ({"hidden_act": "gelu"}, modules),
    "class_share": ({"class_share": 0.5}, size_of_data),
    "data_share": ({"data_share": 0.1}, size_of_data),
    "random_labels": ({"random_labels": 1.0}, batch),
    "pixels": ({"pixels": "random"}, batch),
}


@pytest.fixture
def other(tmp_path):
    """Another text and other images."""
    folder, rng = tmp_path / "other", np.random.default_rng(1)
    folder.mkdir()
    for number in range(40):
        words = ("".join(rng.choice([*"abcdefghijklmnopqrst"], 4)) for _ in range(500))
        text = " ".join(words)
        (folder / f"{number:02d}.txt").write_text(text)
    for name, count in (("train", 40), ("t10k", 8)):
        write_idx(folder / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (count, 9, 9)), False)
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.arange(count) % 3, False)
    return str(folder)


@pytest.mark.parametrize("name", [field.name for field in fields(T5Task)])
def test_each_field_of_a_text_task_changes_its_model_or_batches(name, small_t5, cache, other):
    changes, seen = T5[name]
    base = with_task(small_t5, text=other) if name == "vocab_size" else small_t5  # of words enough for 400
    changed = with_task(base, **({"text": other} if name == "text" else changes))
    assert seen(base, cache) == seen(base, cache) != seen(changed, cache)


@pytest.mark.parametrize("name", [field.name for field in fields(ImageTask)])
def test_each_field_of_an_image_task_changes_its_model_or_batches(name, small_vit, cache, other):
    changes, seen = IMAGE[name]
    changed = with_task(small_vit, **({"images": other} if name == "images" else changes))
    assert seen(small_vit, cache) == seen(small_vit, cache) != seen(changed, cache)


def test_shares_of_images_and_labels_are_as_large_as_they_say(small_vit, cache):
    whole = load_batches(small_vit, 0, cache)
    tenth = load_batches(with_task(small_vit, data_share=0.1), 0, cache)
    assert len(tenth.data.train.labels) == round(0.1 * len(whole.data.train.labels)) == 144
    assert len(tenth.data.evaluation.labels) == len(whole.data.evaluation.labels)
    real, drawn = (load_batches(with_task(small_vit, random_labels=share), 0, cache).train(0) for share in (0, 1))
    assert torch.equal(real["pixel_values"], drawn["pixel_values"])
    assert 0.6 < (real["labels"] != drawn["labels"]).float().mean() <= 1


@pytest.mark.parametrize("split", ["train", "eval"])
def test_a_text_probe_reads_its_own_part_of_the_text(split, small_t5, cache):
    batches = load_batches(small_t5, 0, cache)
    streams = {"train": batches.data.train.tolist(), "eval": batches.data.evaluation.tolist()}
    for number in range(3):
        rows = batches.probe(split, number)
        for inputs, labels in zip(rows["input_ids"].numpy(), rows["labels"].numpy(), strict=True):
            piece = rebuild(inputs, labels, batches.data.sentinels)
            found = {
                name
                for name, stream in streams.items()
                if any(stream[start : start + len(piece)] == piece for start in range(len(stream)))
            }
            assert found == {split}


@pytest.mark.parametrize("pixels", ["real", "random", "fresh"])
def test_each_seed_and_step_has_its_own_training_images(pixels, small_vit, cache):
    run = with_task(small_vit, pixels=pixels)
    one, again, other = (load_batches(run, seed, cache) for seed in (0, 0, 1))
    first = one.train(0)["pixel_values"]
    assert torch.equal(first, again.train(0)["pixel_values"])
    assert not torch.equal(first, other.train(0)["pixel_values"])
    assert not torch.equal(first, one.train(1)["pixel_values"])


def test_each_seed_and_step_has_its_own_training_text(small_t5, cache):
    one, again, other = (load_batches(small_t5, seed, cache) for seed in (0, 0, 1))
    first = one.train(0)["input_ids"]
    assert torch.equal(first, again.train(0)["input_ids"])
    assert not torch.equal(first, other.train(0)["input_ids"])
    assert not torch.equal(first, one.train(1)["input_ids"])
