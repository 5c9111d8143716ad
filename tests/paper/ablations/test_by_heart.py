"""Random labels are learned by heart, or nothing is claimed about them."""

import pytest

from lazyneuron.data.images import Augmentation, load_images
from lazyneuron.paper import variants
from lazyneuron.paper.ablations.by_heart import if_memorised, memorised
from lazyneuron.paper.density_claims import sparsity_emerges
from lazyneuron.records.record import Record
from tests.data.test_glyphs import has_dejavu
from tests.paper.records import run, verdict


@pytest.mark.parametrize("scale", ["quick", "laptop"])
def test_what_is_learned_by_heart_are_about_2000_images_for_160_epochs(scale):
    made = memorised(scale)
    if scale == "laptop" and not has_dejavu():
        pytest.skip("apt install fonts-dejavu-core fonts-dejavu-extra")
    data = variants.with_share(load_images(made.task.images, 28), made.task.data_share, 0)
    count = len(data.train.labels)
    assert count == 2000
    assert made.num_steps * made.batch_size / count == pytest.approx(160, rel=0.01)
    assert made.probe_batches * made.batch_size >= count
    assert (made.task.random_labels, made.task.augmentation) == (1.0, Augmentation(canvas=28))


def of_labels(accuracy, steps=(0, 100), start=0.5, end=0.1):
    """A run whose training accuracy rises to `accuracy`."""
    place = {"what": "accuracy", "unit": "fraction", "recipe": "vit", "seed": 0}
    given = [] if accuracy is None else zip(steps, (0.1, accuracy), strict=True)
    found = [Record(**place, value=value, split="train", step=step) for step, value in given]
    return run([start] * 3, [end] * 3) + found + [Record(**place, value=0.99, split="eval", step=100)]


def test_a_claim_on_memorised_labels_is_judged_only_where_they_were():
    claim = if_memorised(sparsity_emerges("m", "n", "t", "w"))
    learned = verdict(claim, {"m": of_labels(0.97)})
    assert (learned.verdict, learned.value) == ("holds", pytest.approx(0.2))
    dense = verdict(claim, {"m": of_labels(0.97, end=0.4)})
    assert (dense.verdict, dense.value) == ("does not hold", pytest.approx(0.8))
    lost = verdict(claim, {"m": of_labels(0.43)}, {"m": of_labels(0.97)})
    assert (lost.verdict, lost.reason) == ("cannot tell", "not memorised: 70.0 % of the training labels")
    assert verdict(claim, {"m": of_labels(0.899)}).verdict == "cannot tell"
    assert verdict(claim, {"m": of_labels(0.9)}).verdict == "holds"
    unknown = verdict(claim, {"m": of_labels(None)})
    assert (unknown.verdict, unknown.reason) == ("cannot tell", "the records do not have accuracy on training data")
    assert verdict(claim, {"m": []}).verdict == "cannot tell"


def test_the_training_accuracy_is_that_of_the_last_step_whatever_their_order():
    claim = if_memorised(sparsity_emerges("m", "n", "t", "w"))
    assert verdict(claim, {"m": of_labels(0.97)[::-1]}).verdict == "holds"
