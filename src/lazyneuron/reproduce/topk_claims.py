"""What the paper claims of Top-k Transformers, judged on a run that was trained as one."""

from collections.abc import Sequence

from lazyneuron.record import Record
from lazyneuron.reproduce.claim import Claim, Judgement, decide, nothing


def _judge_budget(records: Sequence[Record]) -> Judgement:
    budgets = {r.site: r.value for r in records if r.what == "budget"}
    found = [(r.value / budgets[r.site], r) for r in records if r.what == "max_active" and r.site in budgets]
    if not found:
        return nothing("largest number of active neurons")
    worst, where = max(found, key=lambda pair: pair[0])
    tokens = sum(r.num_tokens or 0 for _, r in found)
    reason = f"{where.value:.0f} of {budgets[where.site]:.0f} allowed; {tokens:,} maps of tokens were looked at"
    return decide(worst, worst <= 1, reason)


def _judge_from_start(records: Sequence[Record]) -> Judgement:
    start = [r for r in records if r.step == 0 and r.split == "eval"]
    kept = {r.site: r.value for r in start if r.what == "density"}
    natural = {r.site: r.value for r in start if r.what == "natural_density"}
    if not natural:
        return nothing("natural density at the start")
    value, site = min((natural[site] / kept[site], site) for site in natural)
    if value == 1:
        return Judgement(value, "cannot tell", "k is all of the neurons: nothing is selected")
    return decide(value, value > 1, f"{natural[site]:.2f} by itself and {kept[site]:.2f} kept at {site}")


TOPK_CLAIMS = (
    Claim(
        name="topk-at-most-k",
        text="In a Top-k Transformer no token has more than k nonzeros, in any layer and at any step.",
        where="Section 4",
        metric="largest number of nonzeros of a token, over k",
        expected="at most 1",
        judge=_judge_budget,
    ),
    Claim(
        name="topk-sparse-from-start",
        text="Top-k is sparse from the first step; sparsity by itself comes late, and on average only.",
        where="Section 4",
        metric="natural density at the start over kept density at the start, least of the layers",
        expected="above 1",
        judge=_judge_from_start,
    ),
)
