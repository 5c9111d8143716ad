"""Statistical top-k (arXiv 2506.06644): what it keeps of Gaussian input and of real pre-activations, and how fast."""

import math
from statistics import fmean

from lazyneuron.enforce.selection import StatisticalTopK
from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.comparison_claims import QUALITY_GAP, comparison, difference, if_mlps_are_used, tested
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.statistical import STATISTICAL_TOPK
from lazyneuron.paper.statistical.run import Statistical
from lazyneuron.paper.trainings import t5, varied, vit, with_topk, without_mlps

KEPT_GAP = 0.05
LINEAR = 1.15
_DENSITY = 0.08


def statistical_topk(scale: Scale) -> Recipe:
    """Statistical top-k (arXiv 2506.06644): about k of Gaussian input in time linear in d, and what of real maps.

    Costs one training of ViT, its control, and a minute. Beyond the paper; beside what differs in `t5` and `vit`:

    | | Spark Transformer (arXiv 2506.06644) | here |
    | --- | --- | --- |
    | model | language models | ViT (quality), ViT and T5 (maps) |
    | kept | 8 % of the neurons | 8 % (quality), 2 to 25 % (maps) |
    | compared with | dense | exact top-k |
    """
    run = vit(scale)
    density = _DENSITY
    statistical = varied(run, f"statistical{100 * density:g}pct", selection=StatisticalTopK(density=density))
    widths = {"smoke": (1024, 4096)}.get(scale, (1024, 4096, 16384, 65536))
    study = Statistical(
        name="statistical",
        of=(run, t5(scale)),
        densities=(0.25, 0.08, 0.04, 0.02),
        widths=widths,
        num_rows=64 if scale == "smoke" else 512,
    )
    exact = with_topk(run, density)
    return Recipe(
        experiment=STATISTICAL_TOPK,
        runs=(statistical, exact, run, without_mlps(run), study),
        claims=(
            keeps_about_k("statistical"),
            statistical_is_linear("statistical"),
            *(statistical_on_real_maps("statistical", name) for name in ("vit", "t5")),
            *if_mlps_are_used(run, statistical_is_enough(statistical.name, exact.name)),
        ),
        setting="selection",
        settings=("statistical top-k, 8 %", "top-k, 8 %", "none", "no MLPs", "maps"),
    )


def keeps_about_k(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[run] if r.what == "kept_ratio" and r.case == "gaussian"]
        if not found:
            return None
        worst = max(found, key=lambda r: abs(r.value - 1))
        return Seen(abs(worst.value - 1), f"largest of {len(found)} densities: asked for {worst.x:g}")

    return Claim(
        name="statistical-keeps-k",
        text="Statistical top-k keeps about k of Gaussian input.",
        where="arXiv 2506.06644",
        metric="relative gap between neurons kept and k",
        expected=f"at most {KEPT_GAP} (ours)",
        runs=(run,),
        is_check=True,
        see=see,
        at_most=KEPT_GAP,
    )


def statistical_is_linear(run: str) -> Claim:
    def see(records: Records) -> Seen | None:
        points = [(math.log(r.x or 1), math.log(r.value)) for r in records[run] if r.what == "statistical_ms"]
        if len(points) < 2:
            return None
        (x, y), (wider, slower) = sorted(points)[-2:]
        return Seen((slower - y) / (wider - x), f"from width {math.exp(x):.0f} to {math.exp(wider):.0f}")

    return Claim(
        name="statistical-is-linear",
        text="Statistical top-k takes time about in proportion to the width.",
        where="arXiv 2506.06644",
        metric="exponent of the time in d, at the two largest widths",
        expected=f"at most {LINEAR} (ours; a factor log d would be about 0.1 of it)",
        runs=(run,),
        see=see,
        at_most=LINEAR,
    )


def statistical_on_real_maps(run: str, training: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r for r in records[run] if r.what == "kept_ratio" and r.case == training]
        if not found:
            return None
        worst = max(found, key=lambda r: abs(math.log(r.value)) if r.value else math.inf)
        mean = fmean(r.value for r in found)
        where = f"{worst.site}, asked for {worst.x:g}"
        return Seen(worst.value, f"farthest of {len(found)} layers and densities: {where}; mean {mean:.2f}")

    return Claim(
        name="statistical-on-real-maps",
        text="On a trained model's pre-activations statistical top-k keeps about k too.",
        where="arXiv 2506.06644, measured",
        metric="neurons kept over k, the farthest from 1 of all layers",
        expected="between 0.5 and 2 (ours)",
        runs=(run,),
        on=training,
        see=see,
        at_least=0.5,
        at_most=2,
    )


def statistical_is_enough(statistical: str, exact: str) -> Claim:
    return comparison(
        statistical,
        exact,
        tested("accuracy"),
        difference,
        name="statistical-is-enough",
        text="Trained with statistical top-k a ViT is as accurate as with exact top-k.",
        where="arXiv 2506.06644",
        metric="accuracy under statistical less that under exact top-k, held-out",
        expected=f"at least {-QUALITY_GAP} (ours)",
        at_least=-QUALITY_GAP,
        unit="points",
    )
