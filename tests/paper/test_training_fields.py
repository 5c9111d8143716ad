"""Each field of a training changes its rate, its optimizer, its batches or its records, as the field's name says."""

import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lazyneuron.data.images import Augmentation
from lazyneuron.enforce.selection import TopK
from lazyneuron.paper.runs import ImageTask, Training
from lazyneuron.paper.task import ImageBatches, build_model, forward, load_batches
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record

PLAIN = Training(
    name="plain",
    task=ImageTask(size="vit-tiny", augmentation=Augmentation(canvas=9), num_layers=2, d_ff=96),
    num_steps=6,
    batch_size=8,
    learning_rate=0.5,
    optimizer="sgd",
    num_probes=3,
    probe_batches=1,
    test_examples=8,
    log_every=2,
    checkpoint_every=2,
)


@dataclass
class Observed:
    """What could be seen of a training from outside; one entry per step in each list."""

    run: Training
    optimizers: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    saved: list[int] = field(default_factory=list)
    num_workers: int = 0
    records: list[Record] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)

    def steps(self, what: str, split: str) -> list[int | None]:
        return list(dict.fromkeys(r.step for r in self.records if (r.what, r.split) == (what, split)))

    def num_examples(self, split: str) -> set[int | None]:
        return {r.num_tokens for r in self.records if (r.what, r.split) == ("accuracy", split)}


Observe = Callable[[Training], Observed]


@pytest.fixture(scope="module")
def observe(tmp_path_factory) -> Observe:
    """`observe(run)` carries out a training, once, and gives what was seen of it."""
    done: dict[Training, Observed] = {}

    def observed(run: Training) -> Observed:
        if run not in done:
            done[run] = carried_out(run, tmp_path_factory.mktemp("run"))
        return done[run]

    return observed


def carried_out(run: Training, path: Path) -> Observed:
    found, threads = Observed(run), torch.get_num_threads()
    draw, save = ImageBatches.train, RunFolder.save_checkpoint

    def train(self: ImageBatches, step: int) -> dict[str, Tensor]:
        batch = draw(self, step)
        found.batch_sizes.append(len(batch["labels"]))
        return batch

    def save_checkpoint(self: RunFolder, step: int, *rest: Any, **more: Any) -> Any:
        found.saved.append(step)
        return save(self, step, *rest, **more)

    def before_step(optimizer: Optimizer, *_: Any) -> None:
        found.optimizers.append(type(optimizer).__name__)
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        found.rates.append(rate)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norms = [weight.grad.norm() for weight in weights if weight.grad is not None]
        found.gradient_norms.append(torch.stack(norms).norm().item())

    def report(progress: Any) -> None:
        found.num_workers = max(found.num_workers, len(multiprocessing.active_children()))

    hook = register_optimizer_step_pre_hook(before_step)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ImageBatches, "train", train)
            patch.setattr(RunFolder, "save_checkpoint", save_checkpoint)
            run.execute(path, 0, path, report, device="cpu")
    finally:
        hook.remove()
        torch.set_num_threads(threads)
    state = RunFolder(path).load_checkpoint()
    assert state is not None
    found.records, found.weights = RunFolder(path).records(), state["model"]
    return found


def first_gradient(run: Training, z_loss: float = 0.0) -> dict[str, Tensor]:
    """By weight, the gradient of cross-entropy plus `z_loss` times the square of log Z (arXiv 2204.02311, 5)."""
    batches = load_batches(run, 0, Path())
    model = build_model(batches, 0)
    logits, labels = forward(model, batches.train(0))
    log_z = logits.exp().sum(-1).log()
    (cross_entropy(logits, labels) + z_loss * (log_z**2).mean()).backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def recorded(seen: Observed, what: str) -> set[float]:
    return {r.value for r in seen.records if r.what == what}


Seen = Callable[[Observed], Any]
CHANGES: dict[str, list[tuple[Any, Seen, Any]]] = {
    "name": [("other", lambda seen: {r.recipe for r in seen.records}, {"other"})],
    "num_steps": [(4, lambda seen: len(seen.rates), 4)],
    "batch_size": [
        (5, lambda seen: seen.batch_sizes, [5] * 6),
        (5, lambda seen: seen.num_examples("eval"), {5}),
    ],
    "learning_rate": [(0.25, lambda seen: seen.rates, [0.25] * 6)],
    "optimizer": [
        ("adamw", lambda seen: set(seen.optimizers), {"AdamW"}),
        ("adafactor", lambda seen: set(seen.optimizers), {"Adafactor"}),
    ],
    "schedule": [("linear", lambda seen: seen.rates, pytest.approx([6 / 12, 5 / 12, 4 / 12, 3 / 12, 2 / 12, 1 / 12]))],
    "warmup_steps": [(4, lambda seen: seen.rates, [0.125, 0.25, 0.375, 0.5, 0.5, 0.5])],
    "clip_norm": [(0.01, lambda seen: seen.gradient_norms, pytest.approx([0.01] * 6, rel=1e-3))],
    "num_probes": [
        (4, lambda seen: (seen.steps("density", "eval"), seen.steps("density", "train")), ([0, 1, 2, 6],) * 2)
    ],
    "probe_batches": [(3, lambda seen: seen.num_examples("train") | seen.num_examples("eval"), {24})],
    "test_examples": [(11, lambda seen: seen.num_examples("test"), {11})],
    "log_every": [(3, lambda seen: seen.steps("loss", "train"), [3, 6])],
    "checkpoint_every": [(3, lambda seen: seen.saved, [3, 6])],
    "num_workers": [(2, lambda seen: seen.num_workers, 2)],
    "num_threads": [(2, lambda seen: {r.source.num_threads for r in seen.records if r.source}, {2})],
    "selection": [(TopK(k=5), lambda seen: recorded(seen, "max_active"), {5})],
}
"""By field: a value, what is seen of the training, and what that is with this value and not with the plain one."""
WITH_A_TEST_OF_ITS_OWN = {
    "task": "tests/paper/test_task_fields.py",
    "weight_decay": "test_weight_decay_takes_its_share_of_each_weight",
    "z_loss": "test_z_loss_is_part_of_the_gradient_and_not_of_the_loss_that_is_recorded",
}


def test_every_field_has_a_case():
    assert {f.name for f in fields(Training)} == CHANGES.keys() | WITH_A_TEST_OF_ITS_OWN.keys()


@pytest.mark.parametrize(
    ("name", "value", "see", "expected"),
    [(name, *case) for name, cases in CHANGES.items() for case in cases],
    ids=[name if len(cases) == 1 else f"{name}-{n}" for name, cases in CHANGES.items() for n in range(len(cases))],
)
def test_a_field_changes_what_it_names(observe, name, value, see, expected):
    assert see(observe(replace(PLAIN, **{name: value}))) == expected
    assert see(observe(PLAIN)) != expected


def test_warm_up_and_linear_decay_multiply(observe):
    seen = observe(replace(PLAIN, schedule="linear", warmup_steps=2))
    assert seen.rates == pytest.approx([0.25, 5 / 12, 4 / 12, 3 / 12, 2 / 12, 1 / 12])


def test_the_task_of_a_training_is_the_one_that_is_trained(observe):
    narrow = replace(PLAIN, task=replace(PLAIN.task, d_ff=40))
    assert [40 in weight.shape for weight in observe(narrow).weights.values()].count(True) == 2 * (2 + 1)


def test_the_rate_is_that_of_the_update(observe):
    """One step of SGD moves each weight by rate times gradient."""
    run = replace(PLAIN, num_steps=1, learning_rate=0.125)
    seen, gradient = observe(run), first_gradient(run)
    for name, before in build_model(load_batches(run, 0, Path()), 0).named_parameters():
        moved = (before.detach() - seen.weights[name]) / 0.125
        assert torch.allclose(moved, gradient[name], rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_takes_its_share_of_each_matrix(observe, optimizer):
    """In the first step it takes rate x decay of each matrix, and nothing of biases and norms, beside the gradient."""
    run = replace(PLAIN, num_steps=1, learning_rate=0.125, optimizer=optimizer)
    without, decayed = observe(run).weights, observe(replace(run, weight_decay=0.5)).weights
    for name, before in build_model(load_batches(run, 0, Path()), 0).named_parameters():
        share = 0.125 * 0.5 * before if before.dim() > 1 else torch.zeros(before.shape)
        assert torch.allclose(without[name] - decayed[name], share, rtol=1e-3, atol=1e-6)


def test_z_loss_is_part_of_the_gradient_and_not_of_the_loss_that_is_recorded(observe):
    run = replace(PLAIN, num_steps=1, log_every=1, learning_rate=0.125)
    without, with_z = observe(run), observe(replace(run, z_loss=0.5))
    for seen, z_loss in ((without, 0.0), (with_z, 0.5)):
        gradient = torch.stack([part.norm() for part in first_gradient(run, z_loss).values()]).norm()
        assert seen.gradient_norms == [pytest.approx(gradient.item(), rel=1e-4)]
    assert with_z.gradient_norms[0] > 1.1 * without.gradient_norms[0]
    losses = [[r.value for r in seen.records if (r.what, r.split) == ("loss", "train")] for seen in (without, with_z)]
    assert losses[0] == losses[1]
