"""Section 4: T5 and ViT that keep k neurons per token in training, over k, against the dense models."""

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.comparison_claims import QUALITY_GAP, comparison, difference, if_mlps_are_used, tested
from lazyneuron.paper.lines import TOPK, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.topk import COST, TOPK_ACCURACY
from lazyneuron.paper.trainings import t5, varied, vit, with_topk, without_mlps

DENSITIES = {"smoke": (0.08, 0.04, 0.01), "paper": tuple(k / 3072 for k in (1536, 768, 256, 128, 64, 32))}
_DENSITIES = (0.08, 0.04, 0.02, 0.01)
LOSS_COST = 0.05
"""Nats that enough neurons may cost T5, which are about 0.3 points of its accuracy (docs/log.md)."""
_ENOUGH = {"t5": 0.04, "vit": 0.08}
_REPORTED = {dense: f"about {-COST / 100:.3f} ({k})" for dense, k in (("t5", "k = 128, T5-3B"), ("vit", "k = 256"))}


def topk_accuracy(scale: Scale) -> Recipe:
    """Costs four trainings each of T5 and ViT, their controls, and four short ones that check k = d_ff.

    Beside what differs in `t5` and `vit`:

    | | the paper | here |
    | --- | --- | --- |
    | k | 128 of 3,072 to 65,536 (T5), 256 of 3,072 (ViT) | 1 to 8 % of d_ff, at scale paper 1 to 50 % |
    | it costs | about 0.3 points (T5-3B, ViT) | at 4 % (T5) and 8 % (ViT) at most half a point, and 0.05 nats (T5) |
    | ties, gradient | not stated | the lowest index; to what is kept |
    """
    densities = DENSITIES.get(scale, _DENSITIES)
    families = [(run, [with_topk(run, density) for density in densities]) for run in (t5(scale), vit(scale))]
    short = [varied(run, "short", num_steps=min(100, run.num_steps)) for run in (t5(scale), vit(scale))]
    whole = [with_topk(run, 1.0) for run in short]
    claims, runs, settings = [], [], []
    for dense, sparse in families:
        by_density = dict(zip(densities, sparse, strict=True))
        enough = by_density[min(densities, key=lambda d: abs(d - _ENOUGH[dense.name]))]
        claims += [
            *(at_most_k(run.name) for run in sparse),
            sparse_from_start(enough.name),
            *under(TOPK, *if_mlps_are_used(dense, topk_enough(enough.name, dense.name, _REPORTED[dense.name]))),
            *if_mlps_are_used(dense, smaller_k_costs_more(sparse[-1].name, enough.name)),
        ]
        claims += if_mlps_are_used(dense, topk_loss(enough.name, dense.name)) if dense.name == "t5" else []
        runs += [dense, *sparse, without_mlps(dense)]
        settings += [100.0, *(100 * density for density in densities), "no MLPs"]
    claims += [topk_all_is_dense(one.name, run.name) for one, run in zip(whole, short, strict=True)]
    return Recipe(
        experiment=TOPK_ACCURACY,
        runs=(*runs, *short, *whole),
        claims=tuple(claims),
        setting="neurons kept (% of d_ff)",
        settings=(*settings, *("short" for _ in (*short, *whole))),
    )


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
        is_check=True,
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
        is_check=True,
        see=see,
        above=1,
    )


def topk_enough(topk: str, dense: str, reported: str) -> Claim:
    return comparison(
        topk,
        dense,
        tested("accuracy"),
        difference,
        name="topk-is-enough",
        text="k of about 4 % (T5) or 8 % (ViT) of d_ff costs about 0.3 points.",
        where="Section 4",
        metric="accuracy under Top-k less that of the dense model, held-out",
        expected=f"at least {-QUALITY_GAP} (ours)",
        reported=reported,
        at_least=-QUALITY_GAP,
        unit="points",
        effect=QUALITY_GAP - COST / 100,
    )


def topk_loss(topk: str, dense: str) -> Claim:
    return comparison(
        topk,
        dense,
        tested("loss"),
        difference,
        name="topk-is-enough-by-loss",
        text="k of about 4 % of d_ff costs T5 little loss.",
        where="Section 4",
        metric="loss under Top-k less that of the dense model, held-out (nats)",
        expected=f"at most {LOSS_COST} (ours)",
        at_most=LOSS_COST,
    )


def smaller_k_costs_more(smallest: str, enough: str) -> Claim:
    return comparison(
        smallest,
        enough,
        tested("loss"),
        difference,
        name="smaller-k-costs-more",
        text="A much smaller k costs more.",
        where="Section 4",
        metric="loss with the smallest k less that with enough, held-out (nats)",
        expected="above 0",
        above=0,
    )


def topk_all_is_dense(all_kept: str, dense: str) -> Claim:
    """That the two runs' numbers are the same, bit for bit."""

    def see(records: Records) -> Seen | None:
        one, other = (
            {(r.what, r.split, r.step, r.site, r.x): r.value for r in records[run]} for run in (all_kept, dense)
        )
        if not (both := one.keys() & other.keys()):
            return None
        differ = sum(one[key] != other[key] for key in both)
        return Seen(differ, f"{len(both):,} numbers of both runs compared, {differ} differ")

    return Claim(
        name="topk-all-is-dense",
        text="k = d_ff is the ordinary model.",
        where="Section 4",
        metric="records of loss, accuracy and density that differ",
        expected="0",
        runs=(all_kept, dense),
        is_check=True,
        on=f"{all_kept} against {dense}",
        see=see,
        at_most=0,
        every_seed=True,
    )
