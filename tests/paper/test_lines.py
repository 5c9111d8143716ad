"""The sentences of the first table have the principal claims under them, and checks are what no data can fail."""

from lazyneuron.paper import lines
from lazyneuron.paper.density_claims import few_active
from lazyneuron.paper.registry import EXPERIMENTS, find_recipes

CHECKS = {
    "half-active-at-start",
    "topk-at-most-k",
    "topk-sparse-from-start",
    "topk-all-is-dense",
    "theorem-sign",
    "theorem-closed-forms",
    "theorem-controls",
    "theorem-step0-mlp",
    "skipping-changes-nothing",
    "second-layer-flops",
    "statistical-keeps-k",
}


def test_claims_are_put_under_a_sentence() -> None:
    made = lines.under(lines.SPARSE, few_active("t5"), few_active("vit"))
    assert [(claim.line, claim.runs) for claim in made] == [(lines.SPARSE, ("t5",)), (lines.SPARSE, ("vit",))]


def test_there_are_ten_lines_of_a_few_runs_each() -> None:
    claims = [claim for recipe in find_recipes(EXPERIMENTS, "laptop") for claim in recipe.claims if claim.line]
    sentences = {value for name, value in vars(lines).items() if name.isupper()}
    assert {claim.line for claim in claims} == sentences
    assert len(sentences) <= 10
    assert all(sum(claim.line == line for claim in claims) <= 8 for line in sentences)


def test_checks_are_the_identities() -> None:
    claims = [claim for recipe in find_recipes(EXPERIMENTS, "laptop") for claim in recipe.claims]
    assert {claim.name for claim in claims if claim.is_check} == CHECKS
    assert not [claim.name for claim in claims if claim.is_check and claim.compares]
