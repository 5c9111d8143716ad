"""Small runs that train in a second or two."""

from dataclasses import replace

import pytest

from lazyneuron.data.images import Augmentation
from lazyneuron.paper.recipes.base import t5, vit
from lazyneuron.paper.runs import ImageTask, T5Task, Training
from tests.data.test_text import corpus as corpus

SMALL = {
    "num_steps": 12,
    "num_probes": 5,
    "probe_batches": 2,
    "log_every": 3,
    "checkpoint_every": 4,
    "test_examples": 37,
}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def small_vit() -> Training:
    augmentation = Augmentation(canvas=9, rotation=10, noise=0.1)
    task = ImageTask(size="vit-tiny", augmentation=augmentation, num_layers=2, d_ff=96)
    return replace(vit("smoke"), task=task, batch_size=16, **SMALL)


@pytest.fixture
def small_t5(corpus) -> Training:
    task = T5Task(size="tiny", text=str(corpus), vocab_size=400, input_length=32, num_layers=1, d_ff=96)
    return replace(t5("smoke"), task=task, batch_size=4, **SMALL)


@pytest.fixture(params=["t5", "vit"])
def small_run(request) -> Training:
    return request.getfixturevalue(f"small_{request.param}")
