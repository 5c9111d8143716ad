"""The long run is long enough, and its law is judged by what it predicts of the last third."""

from dataclasses import replace

import pytest

from lazyneuron.paper.estimate import costs
from lazyneuron.paper.long_run import recipe
from lazyneuron.paper.long_run.power_law import ALL, NOT_FIRST, PowerLaw
from lazyneuron.paper.recipe import SCALES
from lazyneuron.paper.runs import probe_steps
from lazyneuron.paper.trainings import t5
from tests.paper.records import density, verdict

LAW = PowerLaw(floor=0.03, c=1.5, alpha=0.3)
END = 100_000


def training(num_probes=120, factor=lambda step: 1.0, first=0.5):
    """A T5's densities: a first encoder layer that stays, and two layers that follow the law times `factor`."""
    records = density(0, [0.5, 0.5, 0.5], stack="encoder")
    for step in probe_steps(END, num_probes)[1:]:
        value = LAW.at(step) * factor(step)
        records += density(step, [first, value, value], stack="encoder")
    return {"t5-long": records}


def judged(records, layers=NOT_FIRST):
    return verdict(recipe.follows_a_power_law("t5-long", layers), records)


def test_a_density_that_follows_its_law_to_the_end_holds():
    found = judged(training())
    assert (found.verdict, found.on) == ("holds", "t5-long, all but the encoder's first layer")
    assert found.value == pytest.approx(0, abs=1e-4)
    assert found.reason.startswith("alpha 0.3, floor 0.030, fitted to ")
    assert "checked on 5; a density that no longer changed would be off by 0.0965" in found.reason
    assert judged(training(), ALL).verdict == "holds"


def test_all_layers_are_judged_with_the_first():
    shrinking = training()
    rising = {"t5-long": [r for r in shrinking["t5-long"] if r.layer != 0 or r.step == 0]}
    for step in probe_steps(END, 120)[1:]:
        rising["t5-long"] += density(step, [0.2 if step <= 2 * END / 3 else 0.5], stack="encoder")
    assert judged(rising).verdict == "holds"
    assert judged(rising, ALL).verdict == "does not hold"


@pytest.mark.parametrize(
    ("factor", "expected"),
    [
        (lambda step: 1.2 if step > 2 * END / 3 else 1.0, "does not hold"),
        (lambda step: 0.8 if step > 2 * END / 3 else 1.0, "does not hold"),
        (lambda step: 1.2 if step == END else 1.0, "does not hold"),
        (lambda step: 1.02 if step > 2 * END / 3 else 1.0, "holds"),
        (lambda step: LAW.at(2 * END / 3) / LAW.at(step) if step > 2 * END / 3 else 1.0, "cannot tell"),
        (lambda step: 3.0 if step < END / 100 else 1.0, "holds"),
    ],
    ids=["rises", "falls", "rises at the end", "rises a little", "stays", "starts otherwise"],
)
def test_a_density_that_leaves_its_law_in_the_last_third_does_not_follow_it(factor, expected):
    assert judged(training(factor=factor)).verdict == expected


def test_too_few_probes_and_a_run_without_records_cannot_tell():
    for records in (training(num_probes=10), {"t5-long": []}, {"t5-long": density(0, [0.5])}):
        found = judged(records)
        assert (found.verdict, found.value) == ("cannot tell", None)
        assert found.reason.endswith("the runs have not come that far")


def test_probes_of_earlier_versions_are_judged():
    assert judged(training(num_probes=24)).verdict == "holds"


def test_a_layer_that_collapsed_is_named():
    records = training()
    dead = density(END, [0.9], stack="encoder", what="never_fired")
    assert "encoder layer 0 collapsed" in judged({"t5-long": records["t5-long"] + dead}).reason


STEPS = {"smoke": 80, "quick": 50_000, "laptop": 97_657, "paper": 300_000}


@pytest.mark.parametrize("scale", SCALES)
def test_one_t5_and_its_control_are_trained_for_longer(scale):
    made, shared = recipe.long_run(scale), t5(scale)
    run, control = made.runs
    assert (run.name, run.num_steps, made.num_seeds) == ("t5-long", STEPS[scale], 1)
    changed = {name for name, value in vars(run).items() if vars(shared)[name] != value}
    assert changed == {"name", "num_steps", "num_probes"} | ({"task"} if scale == "paper" else set())
    assert control == replace(run, name="t5-nomlp-long", task=replace(run.task, mlps="none"))
    claims = ["dense-beats-no-mlps", "sparsity-emerges", "every-layer-sparser", *["density-follows-a-power-law"] * 2]
    assert [claim.name for claim in made.claims] == claims
    assert not any(claim.line for claim in made.claims)
    steps = probe_steps(run.num_steps, run.num_probes)
    assert len([step for step in steps if 0.01 * run.num_steps <= step <= 2 / 3 * run.num_steps]) >= 5
    assert len([step for step in steps if step > 2 / 3 * run.num_steps]) >= 2


def test_at_scale_laptop_it_reads_100_million_tokens_and_no_batch_more():
    run, _ = recipe.long_run("laptop").runs
    tokens = run.batch_size * run.task.input_length
    assert 100e6 <= run.num_steps * tokens < 100e6 + tokens


def test_at_scale_paper_no_text_is_seen_more_often_than_in_the_shared_run():
    (run, _), shared = recipe.long_run("paper").runs, t5("paper")
    assert run.task.max_text_bytes / run.num_steps == shared.task.max_text_bytes / shared.num_steps


def test_it_costs_what_its_steps_cost():
    (run, _), shared = recipe.long_run("laptop").runs, t5("laptop")
    found = costs([run, shared])
    assert 0.5 < found["t5-long"] / found["t5"] / (run.num_steps / shared.num_steps) < 1.1
