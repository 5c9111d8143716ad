"""The runs that the options make of the recipes' own."""

import pytest

from lazyneuron.data.images import Augmentation
from lazyneuron.paper.jobs import with_options
from lazyneuron.paper.options import Options
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.runs import ImageTask, T5Task, Training
from lazyneuron.paper.theorem31.run import Theory
from lazyneuron.paper.trainings import LETTERS


def test_text_images_and_steps_replace_the_recipes_own():
    options = Options(scale="smoke", text="book.txt", images="fashion-mnist", steps=7)
    for recipe in find_recipes(EXPERIMENTS, "smoke"):
        for run in recipe.runs:
            changed = with_options(run, options)
            trainings = changed.networks if isinstance(changed, Theory) else (*changed.needs, changed)
            for training in trainings:
                if isinstance(training, Training):
                    task = training.task
                    assert (task.text if isinstance(task, T5Task) else task.images) in ("book.txt", "fashion-mnist")
                    steps = 14 if training.name.endswith("-long") else 7
                    assert isinstance(changed, Theory) or training.num_steps == steps


@pytest.mark.parametrize(
    ("images", "augmentation", "patch_size"),
    [
        ("fashion-mnist", Augmentation(canvas=28, shift=2, flip=True), 7),
        ("digits", Augmentation(canvas=12, rotation=30, scale=0.2, shift=1.5, noise=0.125), 3),
        ("dejavu", LETTERS, 7),
    ],
)
def test_other_images_than_the_recipes_are_augmented_as_suits_them(images, augmentation, patch_size):
    run = with_options(find_recipes(["fig2b"], "smoke")[0].runs[1], Options(images=images))
    assert isinstance(run, Training)
    assert isinstance(run.task, ImageTask)
    assert (run.task.images, run.task.augmentation, run.task.patch_size) == (images, augmentation, patch_size)
