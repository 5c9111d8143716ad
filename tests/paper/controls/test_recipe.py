"""Claims that a dense model beats its controls, and the controls themselves."""

import pytest

from lazyneuron.paper.controls import recipe
from lazyneuron.paper.trainings import quarter_wide, t5, vit, without_mlps
from tests.paper.records import at_the_end, verdict

VIT = recipe.dense_beats(vit("quick"), without_mlps(vit("quick")), quarter_wide(vit("quick")))
T5 = recipe.dense_beats(t5("quick"), without_mlps(t5("quick")), quarter_wide(t5("quick")))
JUDGED = [
    (VIT[0], "vit-nomlp", "accuracy", [(0.884, 0.83), (0.88, 0.82), (0.89, 0.83)], "holds"),
    (VIT[0], "vit-nomlp", "accuracy", [(0.82, 0.83), (0.81, 0.82), (0.82, 0.83)], "does not hold"),
    (VIT[0], "vit-nomlp", "accuracy", [(0.82, 0.82), (0.82, 0.82)], "does not hold"),
    (VIT[1], "vit-quarter", "accuracy", [(0.884, 0.87), (0.88, 0.90), (0.89, 0.88)], "cannot tell"),
    (T5[0], "t5-nomlp", "loss", [(3.6, 3.9), (3.5, 3.9), (3.6, 3.95)], "holds"),
    (T5[1], "t5-quarter", "loss", [(3.6, 3.5), (3.6, 3.45), (3.6, 3.52)], "does not hold"),
    (T5[1], "t5-quarter", "loss", [(3.6, 3.64)], "cannot tell"),
    (T5[1], "t5-quarter", "loss", [(3.6, 3.7)], "holds"),
    (VIT[0], "vit-nomlp", "accuracy", [(0.82, 0.84)], "does not hold"),
    (VIT[0], "vit-nomlp", "accuracy", [(0.825, 0.82)], "cannot tell"),
]


@pytest.mark.parametrize(("claim", "control", "what", "pairs", "expected"), JUDGED)
def test_dense_has_to_be_better_seed_by_seed(claim, control, what, pairs, expected):
    dense = control.partition("-")[0]
    seeds = [{dense: [at_the_end(what, one)], control: [at_the_end(what, other)]} for one, other in pairs]
    assert verdict(claim, *seeds).verdict == expected
    assert verdict(claim, {dense: [], control: []}).verdict == "cannot tell"


@pytest.mark.parametrize("scale", ["laptop", "paper"])
def test_a_control_differs_from_its_dense_model_in_its_mlps_alone(scale):
    made = recipe.controls(scale)
    assert [run.name for run in made.runs] == ["vit", "vit-nomlp", "vit-quarter", "t5", "t5-nomlp", "t5-quarter"]
    (vit_dense, vit_none, vit_quarter), (t5_dense, t5_none, t5_quarter) = made.runs[:3], made.runs[3:]
    assert {run.task.mlps for run in (vit_none, t5_none)} == {"none"}
    widths = {"laptop": (128, 128), "paper": (768, 768)}[scale]
    assert (vit_quarter.task.d_ff, t5_quarter.task.d_ff) == widths
    for dense, control in (
        (vit_dense, vit_none),
        (vit_dense, vit_quarter),
        (t5_dense, t5_none),
        (t5_dense, t5_quarter),
    ):
        assert varied_fields(dense, control) == {"name"}
        changed = {"mlps"} if control.task.mlps == "none" else {"d_ff"}
        assert varied_fields(dense.task, control.task) == changed


def varied_fields(one, other):
    return {name for name, value in vars(one).items() if name != "task" and vars(other)[name] != value}
