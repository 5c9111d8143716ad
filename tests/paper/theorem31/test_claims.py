"""The theorem's claims weigh its Monte Carlo by its standard errors."""

import pytest

from lazyneuron.paper.theorem31.claims import theorem
from lazyneuron.paper.theorem31.gradient import CONTROLS, bonferroni_z
from tests.paper.records import case, verdict

CLAIMS = {claim.name: claim for claim in theorem("t")}


def judged(name, records):
    return verdict(CLAIMS[name], {"t": records})


@pytest.mark.parametrize("name", CLAIMS)
def test_without_records_a_claim_cannot_tell(name):
    assert (judged(name, []).verdict, judged(name, []).value) == ("cannot tell", None)


@pytest.mark.parametrize(("min_z", "expected"), [(9.0, "holds"), (2.0, "cannot tell"), (-9.0, "does not hold")])
def test_the_sign_needs_every_neuron_beyond_the_corrected_level(min_z, expected):
    records = [case("gradient_min_z", 30.0, "a"), case("gradient_min_z", min_z, "b")]
    records += [case("num_active_neurons", 32, name) for name in "ab"]
    found = judged("theorem-sign", records)
    assert (found.verdict, found.value) == (expected, min_z)
    assert f"{bonferroni_z(64):.1f}" in found.reason


@pytest.mark.parametrize(("seen", "expected"), [(1.02, "holds"), (1.5, "does not hold")])
def test_the_closed_form_may_differ_by_noise_alone(seen, expected):
    records = [case("gradient", seen, "a", 0.03), case("gradient_closed_form", 1.0, "a", 0.04)]
    found = judged("theorem-closed-forms", records)
    assert (found.verdict, found.value) == (expected, pytest.approx((seen - 1) / 0.05))


NEGATIVE = [case.name for case, sign in CONTROLS.items() if sign]
ZERO = next(case.name for case, sign in CONTROLS.items() if not sign)


@pytest.mark.parametrize(
    ("value", "zero", "expected"),
    [
        (-0.5, 0.0, "holds"),
        (-0.01, 0.0, "cannot tell"),
        (0.0, 0.0, "cannot tell"),
        (0.5, 0.0, "does not hold"),
        (-0.5, 1e-9, "does not hold"),
    ],
)
def test_controls_must_show_the_sign_that_they_provably_have(value, zero, expected):
    records = [case("gradient_control", zero, ZERO, 0.0)]
    records += [case("gradient_control", -1.0 if name != NEGATIVE[1] else value, name, 0.1) for name in NEGATIVE]
    assert judged("theorem-controls", records).verdict == expected


@pytest.mark.parametrize(
    ("scores", "expected"), [([5.0, 4.0], "holds"), ([5.0, 0.1], "cannot tell"), ([5.0, -6.0], "does not hold")]
)
def test_step_0_is_judged_apart_for_the_mlp_and_for_transformers(scores, expected):
    records = [case("gradient_step0", score / 100, "vit", 0.01) for score in scores]
    records.append(case("gradient_step0", 0.1, "mlp", 0.01))
    assert judged("theorem-step0-transformer", records).verdict == expected
    assert judged("theorem-step0-mlp", records).verdict == "holds"
