"""Claims that compare two trainings pair them by seed, at equal tokens."""

import pytest

from lazyneuron.paper.models import T5_SIZES
from lazyneuron.paper.recipe import SCALES
from lazyneuron.paper.scaling import recipe
from lazyneuron.paper.trainings import t5
from tests.paper.records import at_the_end, density, run, verdict

HALF = [0.5] * 3


def pairs(one, other, *values):
    """For each seed, the records of two runs."""
    return [{one: a, other: b} for a, b in values]


def of_density(*means):
    return [(run(HALF, [a] * 3), run(HALF, [b] * 3)) for a, b in means]


def of_active(*numbers):
    return [(density(100, [a], what="num_active"), density(100, [b], what="num_active")) for a, b in numbers]


@pytest.mark.parametrize(
    ("claim", "values", "expected"),
    [
        (recipe.larger_sparser("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (recipe.larger_sparser("b", "a"), of_density((0.3, 0.2), (0.3, 0.21)), "does not hold"),
        (recipe.larger_sparser("b", "a"), of_density((0.3, 0.2), (0.2, 0.3)), "cannot tell"),
        (recipe.larger_sparser("b", "a"), of_density((0.1, 0.2), (0.28, 0.3)), "cannot tell"),
        (recipe.deeper_sparser("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (recipe.wider_lower_fraction("b", "a"), of_density((0.1, 0.2), (0.1, 0.21)), "holds"),
        (recipe.wider_higher_count("b", "a"), of_active((40, 20), (41, 20)), "holds"),
        (recipe.wider_higher_count("b", "a"), of_active((10, 20), (10, 21)), "does not hold"),
        (recipe.scale_of_data("b", "a", on=""), of_density((0.2, 0.205), (0.2, 0.2)), "holds"),
        (recipe.scale_of_data("b", "a", on=""), of_density((0.2, 0.25), (0.2, 0.15)), "cannot tell"),
        (recipe.scale_of_data("b", "a", on=""), of_density((0.2, 0.1), (0.2, 0.1)), "does not hold"),
    ],
)
def test_a_difference_is_judged_over_seeds(claim, values, expected):
    assert verdict(claim, *pairs("a", "b", *values)).verdict == expected
    assert verdict(claim, *pairs("a", "b", *values)[:1]).verdict == "cannot tell"
    assert verdict(claim, {"a": [], "b": []}).value is None


def test_pairs_are_what_is_averaged():
    found = verdict(recipe.larger_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.2), (0.3, 0.4))))
    assert found.values == [pytest.approx(0.5), pytest.approx(0.75)]


def test_a_ratio_to_zero_is_infinite_and_fails():
    found = verdict(recipe.larger_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.0), (0.1, 0.2))))
    assert (found.verdict, found.value, found.low) == ("does not hold", None, None)


MADE = (recipe.fig2c, recipe.fig2d_f, recipe.fig4a, recipe.fig4bc)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("make", MADE)
def test_the_trainings_of_a_figure_take_as_many_steps_on_as_large_batches(make, scale):
    made = make(scale)
    tokens = {(type(one.task), one.num_steps, one.batch_size, one.learning_rate) for one in made.runs}
    assert len(tokens) == len({type(one.task) for one in made.runs})
    compared = [claim for claim in made.claims if claim.compares]
    assert compared
    assert all(claim.metric.endswith(", at equal tokens") for claim in compared)


def test_the_reason_has_the_final_losses_of_both():
    records = {
        name: [*run(HALF, [end] * 3), at_the_end("loss", loss)]
        for name, end, loss in [("a", 0.1, 3.5), ("b", 0.2, 3.7)]
    }
    reason = verdict(recipe.deeper_sparser("b", "a"), records, records).reason
    assert reason.endswith("a 0.1, b 0.2; final loss a 3.5, b 3.7")
    assert (
        "final loss not recorded"
        in verdict(recipe.deeper_sparser("b", "a"), *pairs("a", "b", *of_density((0.1, 0.2)))).reason
    )


@pytest.mark.parametrize("scale", SCALES)
def test_widths_go_from_d_model_to_eight_times_it_and_more(scale):
    made, shared = recipe.fig4bc(scale), t5(scale)
    d_model = T5_SIZES[shared.task.size].d_model
    widths = [one.task.d_ff or T5_SIZES[one.task.size].d_ff for one in made.runs]
    assert made.settings == tuple(map(float, widths))
    assert widths == sorted(set(widths))
    assert widths[0] == d_model
    assert widths[-1] >= 8 * d_model
    assert scale == "smoke" or 3 <= len(widths) <= 5
    assert shared in made.runs
    assert {claim.runs for claim in made.claims if claim.compares} == {(made.runs[-1].name, made.runs[0].name)}
