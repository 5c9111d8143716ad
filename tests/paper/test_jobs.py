"""The runs that the options make of the recipes' own."""

from lazyneuron.paper.jobs import with_options
from lazyneuron.paper.options import Options
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes
from lazyneuron.paper.runs import ImageTask, T5Task, Training
from lazyneuron.paper.theorem31.run import Theory


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


def test_other_images_than_the_digits_are_seen_at_their_own_size():
    run = with_options(find_recipes(["fig2b"], "smoke")[0].runs[1], Options(images="fashion-mnist"))
    assert isinstance(run, Training)
    assert isinstance(run.task, ImageTask)
    assert (run.task.augmentation.canvas, run.task.patch_size) == (28, 7)
