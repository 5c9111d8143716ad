"""What the paper claims of Top-k Transformers, judged on one run that was trained as one."""

from lazyneuron.paper.claim import Claim, Records, Seen


def at_most_k(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        budgets = {r.site: r.value for r in records[run] if r.what == "budget"}
        found = [(r.value / budgets[r.site], r) for r in records[run] if r.what == "max_active" and r.site in budgets]
        if not found:
            return None
        worst, where = max(found, key=lambda pair: pair[0])
        tokens = sum(r.num_tokens or 0 for _, r in found)
        return Seen(
            worst, f"{where.value:.0f} of {budgets[where.site]:.0f} allowed; {tokens:,} maps of tokens were looked at"
        )

    return Claim(
        name="topk-at-most-k",
        text="In a Top-k Transformer no token has more than k nonzeros, in any layer and at any step.",
        where="Section 4",
        metric="largest number of nonzeros of a token, over k",
        expected="at most 1",
        runs=(run,),
        see=see,
        at_most=1,
        every_seed=True,
    )


def sparse_from_start(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        start = [r for r in records[run] if r.step == 0 and r.split == "eval"]
        kept = {r.site: r.value for r in start if r.what == "density"}
        natural = {r.site: r.value for r in start if r.what == "natural_density"}
        if not natural:
            return None
        value, site = min((natural[site] / kept[site], site) for site in natural)
        return Seen(value, f"{natural[site]:.2f} by itself and {kept[site]:.2f} kept at {site}")

    return Claim(
        name="topk-sparse-from-start",
        text="Top-k is sparse from the first step on, where the model by itself is not.",
        where="Section 4",
        metric="natural density at the start over kept density at the start, least of the layers",
        expected="above 1",
        runs=(run,),
        see=see,
        above=1,
    )
