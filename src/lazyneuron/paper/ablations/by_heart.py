"""A training that learns random labels by heart, and its claims, which are judged only where it did."""

import math
from dataclasses import replace

from lazyneuron.data.images import Augmentation
from lazyneuron.paper.claim import Claim, Records, Seen
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
    """The claim on one training, which cannot be told where the model has not learned its training labels by heart."""
    (run,) = claim.runs

    def see(records: Records) -> Seen | None:
        seen, accuracy = claim.see(records), training_accuracy(records)
        if seen is None:
            return None
        if accuracy is None or accuracy <= MEMORISED:
            known = "its training accuracy is not recorded" if accuracy is None else f"{accuracy:.2f}"
            return replace(seen, verdict="cannot tell", reason=f"not memorised ({known}); {seen.reason}")
        return replace(seen, reason=f"{seen.reason}; training accuracy {accuracy:.2f}")

    def training_accuracy(records: Records) -> float | None:
        found = [r for r in records[run] if r.what == "accuracy" and r.split == "train"]
        return max(found, key=lambda r: r.step or 0).value if found else None

    return replace(claim, see=see)
