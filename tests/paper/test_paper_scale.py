"""The paper's shapes: every model as large as it should be, and T5-Base and ViT-B/16 take steps that lower the loss."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.runs import T5Task, Training
from lazyneuron.paper.task import forward, task_model
from lazyneuron.paper.train import make_optimizer
from lazyneuron.paper.trainings import t5, vit

PARAMETERS_IN_MILLIONS = {
    "t5": 222.9,
    "t5-small": 60.5,
    "t5-large": 737.7,
    "t5-layers24": 421.1,
    "t5-layers32": 553.3,
    "t5-ff768": 138.0,
    "t5-ff6144": 336.1,
    "t5-ff12288": 562.6,
    "vit": 86.6,
    "vit-s16": 22.1,
    "vit-l16": 304.3,
    "vit-half-classes": 86.2,
    "mixer": 59.9,
    "mlp": 2.1,
    "resnet": 0.34,
    "vit-quarter": 44.1,
    "t5-quarter": 138.0,
}


def trainings():
    found = {run.name: run for recipe in find_recipes(EXPERIMENTS, "paper") for run in recipe.runs}
    return {name: run for name, run in found.items() if isinstance(run, Training)}


def on_meta(task):
    """The task's model for the paper's data, without memory."""
    with torch.device("meta"):
        if isinstance(task, T5Task):
            return task_model(task, task.vocab_size)
        return task_model(task, round(1000 * task.class_share), num_channels=3)


@pytest.mark.parametrize("name", trainings())
def test_every_model_has_the_parameters_it_should(name):
    """Other names vary what leaves the shape as it is: data, labels, steps, optimizer, activation, selection."""
    run = trainings()[name]
    family = max((known for known in PARAMETERS_IN_MILLIONS if name.startswith(known)), key=len)
    count = sum(parameter.numel() for parameter in on_meta(run.task).parameters())
    assert count / 1e6 == pytest.approx(PARAMETERS_IN_MILLIONS[family], abs=0.06)


def test_t5s_steps_and_batch_and_vits_epochs_are_those_of_the_papers_code_bases():
    text, image = t5("paper"), vit("paper")
    assert (text.num_steps, text.batch_size, text.optimizer, text.task.input_length) == (100_000, 256, "adafactor", 512)
    assert (image.num_steps * image.batch_size) / 1_281_167 == pytest.approx(90, abs=0.1)


def batch_of(task, size):
    generator = torch.Generator().manual_seed(0)
    if isinstance(task, T5Task):
        ids = torch.randint(3, 32_000, (size, 40), generator=generator)
        return {"input_ids": ids, "decoder_input_ids": ids[:, :12], "labels": ids[:, 1:13]}
    pixels = torch.randn(size, 3, 224, 224, generator=generator)
    return {"pixel_values": pixels, "labels": torch.randint(0, 1000, (size,), generator=generator)}


@pytest.mark.slow
@pytest.mark.parametrize("run", [t5("paper"), vit("paper")], ids=["t5-base", "vit-b16"])
def test_two_optimizer_steps_lower_the_loss(run):
    """At a batch of two, and at a learning rate that such a batch bears."""
    run = replace(run, learning_rate=1e-2 if isinstance(run.task, T5Task) else 1e-5)
    torch.manual_seed(0)
    classes = run.task.vocab_size if isinstance(run.task, T5Task) else 1000
    model = task_model(run.task, classes, num_channels=3)
    optimizer, batch, losses = make_optimizer(run, model), batch_of(run.task, 2), []
    for _ in range(3):
        loss = cross_entropy(*forward(model, batch))
        losses.append(loss.item())
        if len(losses) < 3:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert losses[0] > losses[1] > losses[2]
