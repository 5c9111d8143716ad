"""Batches of the settings that the recipes vary."""

import math
from dataclasses import replace

import pytest
import torch

from lazyneuron.data.spans import raw_length
from lazyneuron.data.text import load_text, num_windows
from lazyneuron.errors import UsageError
from lazyneuron.paper.task import build_model, forward, load_batches, rows_of_rank


def with_task(run, **changes):
    return replace(run, task=replace(run.task, **changes))


def test_the_held_out_part_is_walked_through_once_in_order(small_run, cache):
    batches = load_batches(replace(small_run, test_examples=10_000), 0, cache)
    found = list(batches.test())
    sizes = [len(batch["labels"]) for batch in found]
    assert set(sizes[:-1]) == {small_run.batch_size}
    assert 0 < sizes[-1] <= small_run.batch_size
    first = next(iter(found[0].keys()))
    again = list(load_batches(replace(small_run, test_examples=10_000), 5, cache).test())
    assert all(torch.equal(one[first], other[first]) for one, other in zip(found, again, strict=True))
    cut = list(load_batches(replace(small_run, test_examples=small_run.batch_size + 3), 0, cache).test())
    assert [len(batch["labels"]) for batch in cut] == [small_run.batch_size, 3]


def test_windows_of_the_held_out_text_do_not_overlap(corpus, cache):
    tokens = load_text(str(corpus), 400, 10**6, cache).evaluation
    length = raw_length(32)
    assert num_windows(tokens, 32) == len(tokens) // length
    assert num_windows(tokens[:length], 32) == 1
    with pytest.raises(UsageError, match="fewer than one span"):
        num_windows(tokens[: length - 1], 32)


def test_fresh_images_and_labels_differ_from_step_to_step(small_vit, cache):
    batches = load_batches(with_task(small_vit, pixels="fresh"), 0, cache)
    one, other, again = (batches.train(step) for step in (0, 1, 0))
    assert one["pixel_values"].shape == (16, 1, 9, 9)
    assert not torch.equal(one["pixel_values"], other["pixel_values"])
    assert torch.equal(one["pixel_values"], again["pixel_values"])
    assert -1 <= one["pixel_values"].min() < -0.9
    assert 0.9 < one["pixel_values"].max() <= 1


def test_random_pixels_are_not_augmented(small_vit, cache):
    batches = load_batches(with_task(small_vit, pixels="random"), 0, cache)
    assert torch.equal(batches.probe("eval", 0)["pixel_values"], next(batches.test())["pixel_values"])


@pytest.mark.parametrize(
    ("model", "size"), [("vit", "vit-micro"), ("mixer", "mixer-tiny"), ("mlp", "mlp"), ("resnet", "resnet8")]
)
def test_each_architecture_takes_the_same_images(small_vit, cache, model, size):
    run = with_task(small_vit, model=model, size=size, num_layers=2, d_ff=32)
    batches = load_batches(run, 0, cache)
    logits, labels = forward(build_model(batches, 0), batches.train(0))
    assert logits.shape == (16, 10)
    assert labels.shape == (16,)


def test_gelu_replaces_relu(small_run, cache):
    gelu = build_model(load_batches(with_task(small_run, hidden_act="gelu"), 0, cache), 0)
    assert "gelu" in str(gelu).lower()
    assert "relu()" not in str(gelu).lower()


def test_ranks_share_a_batch_without_overlap(small_vit, cache):
    batch = next(load_batches(small_vit, 0, cache).test())
    parts = [rows_of_rank(batch, rank, 3)["labels"] for rank in range(3)]
    assert [len(part) for part in parts] == [6, 5, 5]
    assert sorted(torch.cat(parts).tolist()) == sorted(batch["labels"].tolist())
    assert len(rows_of_rank({"labels": torch.zeros(1)}, 2, 3)["labels"]) == 0


def test_shares_of_images_and_labels_are_as_large_as_they_say(small_vit, cache):
    whole = load_batches(small_vit, 0, cache)
    tenth = load_batches(with_task(small_vit, data_share=0.1), 0, cache)
    assert len(tenth.data.train.labels) == round(0.1 * len(whole.data.train.labels)) == 144
    assert len(tenth.data.evaluation.labels) == len(whole.data.evaluation.labels)
    assert (tenth.num_examples, whole.num_examples) == (144, len(whole.data.train.labels))
    assert load_batches(with_task(small_vit, pixels="fresh"), 0, cache).num_examples == math.inf
    real, drawn = (load_batches(with_task(small_vit, random_labels=share), 0, cache).train(0) for share in (0, 1))
    assert torch.equal(real["pixel_values"], drawn["pixel_values"])
    assert 0.6 < (real["labels"] != drawn["labels"]).float().mean() <= 1


@pytest.mark.parametrize("pixels", ["real", "random", "fresh"])
def test_each_seed_and_step_has_its_own_training_images(pixels, small_vit, cache):
    run = with_task(small_vit, pixels=pixels)
    one, again, other = (load_batches(run, seed, cache) for seed in (0, 0, 1))
    first = one.train(0)["pixel_values"]
    assert torch.equal(first, again.train(0)["pixel_values"])
    assert not torch.equal(first, other.train(0)["pixel_values"])
    assert not torch.equal(first, one.train(1)["pixel_values"])
