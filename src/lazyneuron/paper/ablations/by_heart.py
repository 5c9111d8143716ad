"""A training that learns random labels by heart, and its claims, which are judged only where it did."""

import math
from dataclasses import replace

from lazyneuron.data.images import Augmentation
from lazyneuron.paper.claim import Claim, Condition
from lazyneuron.paper.mlps_used import at_last_probe
from lazyneuron.paper.options import Scale
from lazyneuron.paper.runs import Training
from lazyneuron.paper.trainings import image_task, varied, vit

MEMORISED = 0.9
_FEW_IMAGES, _EPOCHS = 2000, 160
_NUM_IMAGES = {"letters": 6_349, "dejavu": 13_440, "hf:ILSVRC/imagenet-1k": 1_281_167}


def memorised(scale: Scale) -> Training:
    """The shared ViT on few images with random labels, not augmented, for as long as it takes to learn them by heart.

    Each probe goes over all training images, so that its training accuracy is that of all of them. Where the data are
    few already all are used.
    """
    run = vit(scale)
    task, num_batches = image_task(run), math.ceil(_FEW_IMAGES / run.batch_size)
    share = _FEW_IMAGES / _NUM_IMAGES.get(task.images, _FEW_IMAGES)
    plain = Augmentation(canvas=task.augmentation.canvas)
    long = {"num_steps": _EPOCHS * num_batches, "num_probes": 12, "probe_batches": num_batches}
    changes = {} if scale == "smoke" else long
    return varied(run, "memorised", random_labels=1.0, data_share=share, augmentation=plain, **changes)


def if_memorised(claim: Claim) -> Claim:
    """The claim on one training, which cannot be decided where the model has not learned its labels by heart."""
    (run,) = claim.runs
    learned = Condition(
        "accuracy on training data",
        lambda records: at_last_probe(records[run], "accuracy", "train"),
        MEMORISED,
        lambda accuracy: f"not memorised: {100 * accuracy:.1f} % of the training labels",
    )
    return replace(claim, needs=(*claim.needs, learned))
