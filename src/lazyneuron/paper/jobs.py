"""Which runs the recipes ask for, in which order they may start, and what they cost."""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace

from rich.console import Console

from lazyneuron.paper.estimate import costs, in_words
from lazyneuron.paper.options import Options
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import RunSpec, T5Task, Task, Training, folder_name
from lazyneuron.paper.trainings import on_images, t5, vit


@dataclass(frozen=True)
class Job:
    """One run with one seed, and the recipe that asked for it first."""

    run: RunSpec
    seed: int
    recipe: str

    @property
    def name(self) -> str:
        return folder_name(self.run.name, self.seed)

    @property
    def needs(self) -> set[str]:
        """The jobs whose models it reads."""
        return {folder_name(training.name, self.seed) for training in self.run.needs}


def jobs_of(recipes: Iterable[Recipe], options: Options) -> list[Job]:
    """Each run of the recipes once per seed of theirs, after those that it needs; those that time run last, alone."""
    found: dict[str, Job] = {}
    for recipe in recipes:
        for own in recipe.runs:
            run = with_options(own, options)
            for part in (*run.needs, run):
                for seed in options.seeds_of(recipe.num_seeds):
                    job = Job(part, seed, recipe.name)
                    found.setdefault(job.name, job)
    return sorted(found.values(), key=lambda job: job.run.is_timed)


def say_costs(
    recipes: Sequence[Recipe], jobs: Sequence[Job], todo: Sequence[Job], options: Options, console: Console
) -> None:
    """Print, per recipe, its runs, how many are done and how long the others will take."""
    names = {job.name for job in todo}
    seconds = costs([job.run for job in todo])
    total = 0.0
    for recipe in recipes:
        own = [job for job in jobs if job.recipe == recipe.name]
        left = [job for job in own if job.name in names]
        cost = sum(seconds[job.run.name] for job in left) / options.jobs_at_a_time
        total += cost
        done = f", {len(own) - len(left)} done" if len(left) < len(own) else ""
        rest = f", {in_words(cost)}" if left else ""
        shared = "" if own else "all of its runs belong to other recipes"
        count = f"{len(own)} run{'s' * (len(own) != 1)}{done}{rest}" if own else shared
        console.print(f"{recipe.name}: {recipe.experiment.figure}; {count}", highlight=False, soft_wrap=True)
    if todo:
        where = f"on this machine, {options.jobs_at_a_time} at a time"
        text = f"{where}: in all {in_words(total)}; results in {options.folder}"
        console.print(text, highlight=False, soft_wrap=True)


def next_job(waiting: Sequence[Job], working: Sequence[Job], missing: Set[str], jobs_at_a_time: int) -> Job | None:
    """The next job that may start: its models are there, and nothing runs beside one that times."""
    if len(working) >= jobs_at_a_time or any(job.run.is_timed for job in working):
        return None
    for job in waiting:
        if not job.needs & missing and not (job.run.is_timed and working):
            return job
    return None


def with_options(run: RunSpec, options: Options) -> RunSpec:
    """The run with the options' data and steps in place of its own."""
    return run.with_trainings(lambda training: _trained(training, options))


def _trained(run: Training, options: Options) -> Training:
    """Longer and shorter runs than their family's stay so: the steps given are those of its plain one."""
    run, steps = replace(run, task=_changed(run.task, options)), options.steps
    if steps is None:
        return run
    base = (t5 if isinstance(run.task, T5Task) else vit)(options.scale).num_steps
    longer = round(steps * run.num_steps / base)
    return replace(run, num_steps=longer if run.num_steps >= base else min(run.num_steps, steps))


def _changed(task: Task, options: Options) -> Task:
    if isinstance(task, T5Task):
        return replace(task, text=options.text) if options.text else task
    return task if options.images in (None, task.images) else on_images(task, options.images)
