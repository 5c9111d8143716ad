"""Top-k is judged by its budget and its start."""

import pytest

from lazyneuron.paper.claims import topk as claims
from lazyneuron.records.record import Record
from tests.paper.claims.records import verdict


def topk(max_active, natural, kept, budget=10):
    place = {"recipe": "vit", "seed": 0, "site": "mlp", "split": "eval", "step": 0, "num_tokens": 7}
    values = {"max_active": max_active, "natural_density": natural, "density": kept, "budget": budget}
    return [Record(what=what, value=value, unit="", **place) for what, value in values.items()]


@pytest.mark.parametrize(
    ("claim", "records", "expected"),
    [
        (claims.at_most_k, topk(10, 0.5, 0.1), "holds"),
        (claims.at_most_k, topk(11, 0.5, 0.1), "does not hold"),
        (claims.at_most_k, [], "cannot tell"),
        (claims.sparse_from_start, topk(10, 0.5, 0.1), "holds"),
        (claims.sparse_from_start, topk(10, 0.1, 0.2), "does not hold"),
        (claims.sparse_from_start, [], "cannot tell"),
    ],
)
def test_a_run_is_judged_by_its_records(claim, records, expected):
    assert verdict(claim("vit"), {"vit": records}).verdict == expected


def test_one_seed_over_its_budget_is_enough_to_fail():
    good, bad = {"vit": topk(10, 0.5, 0.1)}, {"vit": topk(11, 0.5, 0.1)}
    assert verdict(claims.at_most_k("vit"), good, bad, good).verdict == "does not hold"
