"""The trainings that recipes share or vary: a T5 on text, a ViT and a 2-layer MLP on images."""

from dataclasses import replace

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.models import T5_SIZES, VIT_SIZES
from lazyneuron.paper.options import Scale
from lazyneuron.paper.runs import ImageTask, T5Task, Training

LETTERS = Augmentation(canvas=28, rotation=8, scale=0.1, shift=1)
_DIGITS = Augmentation(canvas=12, rotation=30, scale=0.2, shift=1.5, noise=0.125)
_SMALL_IMAGES = Augmentation(canvas=28, shift=2, flip=True)

_QUICK_T5 = Training(
    name="t5",
    task=T5Task(size="tiny"),
    num_steps=10_000,
    batch_size=8,
    learning_rate=0.01,
    optimizer="adafactor",
    z_loss=1e-4,
    num_probes=24,
    probe_batches=32,
)
_LAPTOP_VIT = Training(
    name="vit",
    task=ImageTask(size="vit-tiny", images="dejavu", augmentation=LETTERS, patch_size=7),
    num_steps=16_000,
    batch_size=16,
    learning_rate=2e-3,
    optimizer="adamw",
    schedule="linear",
    warmup_steps=2000,
    weight_decay=0.1,
    clip_norm=1.0,
    num_probes=24,
    probe_batches=40,
)
_QUICK_VIT = replace(
    _LAPTOP_VIT,
    task=replace(_LAPTOP_VIT.task, images="letters", d_ff=1024),
    num_steps=10_000,
    batch_size=32,
    warmup_steps=1250,
    weight_decay=0.2,
    probe_batches=20,
)


def t5(scale: Scale) -> Training:
    """T5 v1.0 trained by span corruption.

    smoke: seconds. quick: the prose that ships with Python. laptop: the State of the Union addresses. How rate and
    batch were chosen, on seed 100, is in docs/log.md.

    | | the paper, or its code base T5X | paper | laptop | quick |
    | --- | --- | --- | --- | --- |
    | model | T5-Base: 12 + 12 layers, d_model 768, d_ff 3,072 | the same | 3 + 3, 64, 512 | the same as laptop |
    | data, in tokens of the encoder | C4 | 60 GB of C4 | 2.5 million | 0.4 million |
    | vocabulary | 32,128 | 32,128 | 2,048 | 4,096 |
    | batch, in tokens of the encoder | 128 to 256 x 512 | 256 x 512 | 16 x 64 | 8 x 64 |
    | steps | 100,000 | 100,000 | 8,000 | 10,000 |
    | optimizer | Adafactor, z-loss 1e-4 | the same | the same | the same |
    | rate | 1 / sqrt(max(step, 10,000)) | the same | the same | the same |
    | dropout | 0 | 0 | 0 | 0 |
    """
    if scale == "smoke":
        return _smoke(_QUICK_T5, num_steps=40)
    if scale == "quick":
        return _QUICK_T5
    if scale == "laptop":
        task = T5Task(size="tiny", text="state-of-the-union", vocab_size=2048)
        return replace(_QUICK_T5, task=task, num_steps=8000, batch_size=16, probe_batches=16)
    task = T5Task(
        size="base", text="hf:allenai/c4/en", vocab_size=32_128, input_length=512, max_text_bytes=60_000_000_000
    )
    return replace(_full_size(_QUICK_T5), task=task, num_steps=100_000, batch_size=256)


def vit(scale: Scale) -> Training:
    """A ReLU ViT that classifies images.

    smoke: seconds. quick: letters and digits in one typeface, turned, of many sizes and noisy. laptop: letters in the
    DejaVu typefaces, some of which are held out. Without its MLPs such a ViT learns much less, unlike on Fashion-MNIST
    and scikit-learn's digits. How rate, decay and width were chosen, on seed 100, is in docs/log.md.

    | | the paper, or its code base | paper | laptop | quick |
    | --- | --- | --- | --- | --- |
    | layers, d_model, d_ff | 12, 768, 3,072 (ViT-B/16) | the same | 4, 64, 512 | 4, 64, 1,024 |
    | data | ImageNet-21k, ImageNet-1k | ImageNet-1k | 13,440 of 210 letters | 6,349 of 62 |
    | epochs, batch | 90, 4,096 | 90, 1,024 | 19, 16 | 50, 32 |
    | steps, warm-up | 28,150, 10,000 | 112,600, 10,000 | 16,000, 2,000 | 10,000, 1,250 |
    | rate | 3e-3, linear to 1e-5 | 3e-3, linear to 0 | 2e-3, linear to 0 | the same |
    | decay, clip | 0.3, 1 (Adam) | 0.3 of matrices, 1 (AdamW) | 0.1 of matrices, 1 | 0.2 of matrices, 1 |
    | augmentation | random crop, flip | centre crop, flip | turned, scaled, moved | the same |
    | loss, dropout | sigmoid with head bias -10, 0.1 | softmax, 0 | softmax, 0 | softmax, 0 |
    """
    if scale == "smoke":
        return _smoke(replace(_LAPTOP_VIT, task=replace(_LAPTOP_VIT.task, images="letters")), num_steps=50)
    if scale == "quick":
        return _QUICK_VIT
    if scale == "laptop":
        return _LAPTOP_VIT
    task = ImageTask(size="vit-b16", images="hf:ILSVRC/imagenet-1k", augmentation=Augmentation(canvas=224, flip=True))
    schedule = {"learning_rate": 3e-3, "weight_decay": 0.3, "warmup_steps": 10_000}
    return replace(_full_size(_LAPTOP_VIT), task=task, num_steps=112_600, batch_size=1024, **schedule)


def few_images(scale: Scale) -> Training:
    """A ViT trained on few images for many epochs, so that it can learn its labels by heart.

    laptop: 5,000 letters as they are, 60 epochs. Other scales: `vit`, whose data are few or whose epochs are the
    paper's 90.

    | | the paper, or its code base | laptop |
    | --- | --- | --- |
    | model | ViT-B/16: 12 layers, d_model 768, d_ff 3,072, 197 tokens | 4 layers, 64, 512, 17 tokens (patch 7) |
    | data | ImageNet-1k: 1,281,167 images, 1,000 classes | 5,000 letters, 210 classes |
    | epochs, steps | 90, 28,150 | 60, 18,750 |
    | batch | 4,096 | 16 |
    | optimizer | Adam, decay 0.3, clip 1 | AdamW, decay 0.1, clip 1 |
    | rate | 3e-3 after 10,000 steps, linear to 1e-5 | 2e-3 after 2,000 steps, linear to 0 |
    | augmentation | random crop, flip | none |
    | loss, dropout | sigmoid with head bias -10, 0.1 | softmax, 0 |
    """
    run = vit(scale)
    if scale != "laptop":
        return run
    task = replace(image_task(run), augmentation=Augmentation(canvas=28), data_share=5000 / 13_440)
    return replace(run, name="vit-few", task=task, num_steps=18_750, probe_batches=64)


def few_texts(scale: Scale) -> Training:
    """A T5 trained on a twentieth of its text, about 10 times over, in batches of 8; other scales: `t5`."""
    run = t5(scale)
    if scale != "laptop":
        return run
    assert isinstance(run.task, T5Task)
    return replace(run, name="t5-few", task=replace(run.task, data_share=1 / 20), num_steps=2500, batch_size=8)


def mlp_training(scale: Scale) -> Training:
    """A 2-layer ReLU MLP on the images of `vit` as they are, shrunk to 32 pixels at paper scale."""
    run = vit(scale)
    own = image_task(run)
    how = Augmentation(canvas=32, flip=True) if scale == "paper" else own.augmentation
    task = ImageTask(model="mlp", size="mlp", images=own.images, augmentation=how, d_ff=512)
    return replace(run, name="mlp", task=task)


def image_task(run: Training) -> ImageTask:
    """The task of a training on images."""
    assert isinstance(run.task, ImageTask)
    return run.task


def on_images(task: ImageTask, images: str) -> ImageTask:
    """The task with images from elsewhere, augmented as suits them, in 4 x 4 patches."""
    task = replace(task, images=images)
    if task.augmentation != LETTERS:
        return task
    how = {"digits": _DIGITS, "letters": LETTERS, "dejavu": LETTERS}.get(images, _SMALL_IMAGES)
    return replace(task, augmentation=how, patch_size=how.canvas // 4 if task.model in ("vit", "mixer") else None)


def varied(run: Training, name: str, **changes: object) -> Training:
    """The run under a longer name with `changes` of its task's fields or, without such a field, of its own."""
    fields = run.task.__dataclass_fields__
    task = replace(run.task, **{key: value for key, value in changes.items() if key in fields})
    own = {key: value for key, value in changes.items() if key not in fields}
    return replace(run, name=f"{run.name}-{name}", task=task, **own)


def with_topk(run: Training, density: float) -> Training:
    """The run with the `density` largest entries of each activation map kept, at every step."""
    return varied(run, f"top{100 * density:.3g}pct", selection=TopK(density=density))


def without_mlps(run: Training) -> Training:
    """The control whose MLPs all give 0: what attention alone learns of the task."""
    return varied(run, "nomlp", mlps="none")


def quarter_wide(run: Training) -> Training:
    """The control whose MLPs have a quarter of the neurons."""
    sizes = T5_SIZES if isinstance(run.task, T5Task) else VIT_SIZES
    return varied(run, "quarter", d_ff=(run.task.d_ff or sizes[run.task.size].d_ff) // 4)


def _smoke(run: Training, num_steps: int) -> Training:
    """The run cut to seconds, with probes and checkpoints to match."""
    cut = {"num_probes": 6, "probe_batches": 4, "test_examples": 200, "log_every": 10, "checkpoint_every": 20}
    return replace(run, num_steps=num_steps, warmup_steps=min(run.warmup_steps, num_steps // 4), **cut)


def _full_size(run: Training) -> Training:
    """The run with the cadence, workers and threads of a long one on large batches."""
    run = replace(run, num_probes=40, probe_batches=4, log_every=100, checkpoint_every=1000)
    return replace(run, num_workers=8, num_threads=None)
