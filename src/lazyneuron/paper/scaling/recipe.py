"""Figures 2c to 2f and 4: trainings that differ in the data, the size, the depth or the width.

All trainings of a figure take as many steps on batches of one size: they are compared at equal tokens (of images too),
not at equal loss. A better model has the lower loss then, so each claim gives the losses of both in its reason, and the
table of the page has the loss of every training beside its density. The docstrings name what differs from the paper's
set-up beside what `vit` and `t5` say of the shared trainings.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from lazyneuron.paper import density_claims as density
from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.comparison_claims import comparison, ratio, tested
from lazyneuron.paper.density_claims import mean_density, middle_density
from lazyneuron.paper.lines import DATA, SIZE, under
from lazyneuron.paper.models import T5_SIZES
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.scaling import FIG2C, FIG2DEF, FIG4A, FIG4BC
from lazyneuron.paper.trainings import t5, varied, vit
from lazyneuron.records.record import Record

SCALE_GAP = 0.25
_T5_SIZES = {"paper": ("small", "base", "large")}
_VIT_SIZES = {"paper": ("vit-s16", "vit-b16", "vit-l16")}


def fig2c(scale: Scale) -> Recipe:
    """All images against a tenth of them and against half of the classes. Costs two trainings of ViT.

    Compared at equal tokens: a tenth of the images is seen ten times as often.

    | | paper | here |
    | --- | --- | --- |
    | more data | ImageNet-21k: 14 million images, 21,000 classes | all that the shared ViT has |
    | less data | ImageNet-1k: 1.3 million, 1,000 classes | a tenth of the images; half of the classes |
    """
    run = vit(scale)
    fewer = (varied(run, "tenth", data_share=0.1), varied(run, "half-classes", class_share=0.5))
    settings = ("all", "a tenth of the images", "half of the classes")
    return Recipe(
        experiment=FIG2C,
        runs=(run, *fewer),
        claims=under(
            DATA,
            *(
                scale_of_data(less.name, "vit", on=f"vit against {setting}")
                for less, setting in zip(fewer, settings[1:], strict=True)
            ),
        ),
        setting="training data",
        settings=settings,
    )


def fig2d_f(scale: Scale) -> Recipe:
    """Costs a smaller and a larger training each of T5 and ViT (and ViT's middle size where the shared one is wider).

    Compared at equal tokens.

    | | paper | here |
    | --- | --- | --- |
    | T5 | several sizes | micro, tiny, mini (2 to 4 layers per stack); Small to Large at scale paper |
    | ViT | several sizes | micro, tiny, mini (3 to 5 layers); S, B, L at scale paper |
    | T5-3B and 11B | trained | not trained: they need model parallelism |
    """
    text, image = t5(scale), vit(scale)
    t5_sizes = _T5_SIZES.get(scale, ("micro", "tiny", "mini"))
    vit_sizes = _VIT_SIZES.get(scale, ("vit-micro", "vit-tiny", "vit-mini"))
    of_t5 = [text if size == text.task.size else varied(text, size, size=size) for size in t5_sizes]
    sized = [varied(image, size.removeprefix("vit-"), size=size, d_ff=None) for size in vit_sizes]
    of_vit = [image if run.task == image.task else run for run in sized]
    runs = (*of_t5, *of_vit)
    return Recipe(
        experiment=FIG2DEF,
        runs=runs,
        claims=(
            *density.sparsity_emerges_in(runs, "every-size-sparse", "Every size grows sparse.", "Fig. 2d-f"),
            *under(
                SIZE,
                larger_sparser(of_t5[0].name, of_t5[-1].name),
                larger_sparser(of_vit[0].name, of_vit[-1].name),
            ),
        ),
        setting="size",
        settings=(*(f"T5 {size}" for size in t5_sizes), *(f"ViT {size.removeprefix('vit-')}" for size in vit_sizes)),
    )


def fig4a(scale: Scale) -> Recipe:
    """Costs two trainings of T5, two and three times as deep as the shared one.

    Compared at equal tokens.

    | | paper | here |
    | --- | --- | --- |
    | layers per stack | up to 32 | 3, 6, 9; 12, 24, 32 at scale paper |
    | rate, steps, batch | not known | the shared T5's, at every depth |
    """
    run = t5(scale)
    depths = {"smoke": (3, 4), "paper": (12, 24, 32)}.get(scale, (3, 6, 9))
    runs = [run, *(varied(run, f"layers{depth}", num_layers=depth) for depth in depths[1:])]
    return Recipe(
        experiment=FIG4A,
        runs=tuple(runs),
        claims=under(SIZE, deeper_sparser("t5", runs[-1].name)),
        setting="layers per stack",
        settings=tuple(float(depth) for depth in depths),
    )


def fig4bc(scale: Scale) -> Recipe:
    """Costs three or four trainings of T5, with MLPs from as wide as the model to 16 times as wide.

    Compared at equal tokens.

    | | paper | here |
    | --- | --- | --- |
    | d_ff | not known | 1, 4, 8 and 16 times d_model, and the shared T5's |
    | rate, steps, batch | not known | the shared T5's, at every width |
    """
    run = t5(scale)
    size = T5_SIZES[run.task.size]
    times = {"smoke": (1, 8)}.get(scale, (1, 4, 8, 16))
    width = run.task.d_ff or size.d_ff
    widths = sorted({width, *(n * size.d_model for n in times)})
    runs = [run if d_ff == width else varied(run, f"ff{d_ff}", d_ff=d_ff) for d_ff in widths]
    narrow, wide = runs[0].name, runs[-1].name
    return Recipe(
        experiment=FIG4BC,
        runs=tuple(runs),
        claims=(
            *under(SIZE, wider_lower_fraction(narrow, wide), wider_higher_count(narrow, wide)),
            *(density.few_active(run.name) for run in runs[-1:] if run.name != "t5"),
        ),
        setting="d_ff",
        settings=tuple(float(d_ff) for d_ff in widths),
    )


def at_equal_tokens(claim: Claim) -> Claim:
    """The comparison of two trainings, which says at what it is made, with the final losses of both in its reason."""
    loss = tested("loss")

    def see(records: Records) -> Seen | None:
        if (seen := claim.see(records)) is None:
            return None
        losses = {run: loss(records[run]) for run in claim.runs}
        named = ", ".join(f"{run} {value:.4g}" for run, value in losses.items() if value is not None)
        return replace(seen, reason=f"{seen.reason}; final loss {named or 'not recorded'}")

    return replace(claim, metric=f"{claim.metric}, at equal tokens", see=see)


def scale_of_data(less: str, more: str, on: str) -> Claim:
    return at_equal_tokens(
        comparison(
            more,
            less,
            mean_density,
            lambda a, b: a / b - 1,
            name="data-matters-little",
            text="More data or more classes change the density little.",
            where="Fig. 2c",
            metric="relative change of mean density from less to more data",
            expected=f"between {-SCALE_GAP} and {SCALE_GAP} (ours)",
            reported="little",
            on=on,
            at_least=-SCALE_GAP,
            at_most=SCALE_GAP,
        )
    )


def larger_sparser(small: str, large: str) -> Claim:
    return at_equal_tokens(
        comparison(
            large,
            small,
            mean_density,
            ratio,
            name="larger-is-sparser",
            text="Larger models tend to be sparser.",
            where="Fig. 2d-f",
            metric="mean density of the largest over that of the smallest",
            expected="below 1",
            below=1,
        )
    )


def deeper_sparser(shallow: str, deep: str) -> Claim:
    return at_equal_tokens(
        comparison(
            deep,
            shallow,
            middle_density,
            ratio,
            name="deeper-is-sparser",
            text="Deeper models are sparser in their middle layers.",
            where="Fig. 4a",
            metric="density of the middle layers of the deepest over that of the shallowest with a middle",
            expected="below 1",
            reported="below 1 % in the middle of 32 layers",
            below=1,
        )
    )


def wider_lower_fraction(narrow: str, wide: str) -> Claim:
    return at_equal_tokens(
        comparison(
            wide,
            narrow,
            mean_density,
            ratio,
            name="wider-lower-fraction",
            text="In wider MLPs a lower fraction of the neurons is active.",
            where="Fig. 4b",
            metric="mean density of the widest over that of the narrowest",
            expected="below 1",
            below=1,
        )
    )


def wider_higher_count(narrow: str, wide: str) -> Claim:
    return at_equal_tokens(
        comparison(
            wide,
            narrow,
            mean_active,
            ratio,
            name="wider-higher-count",
            text="In wider MLPs more neurons are active.",
            where="Fig. 4c",
            metric="active neurons per token of the widest over those of the narrowest",
            expected="above 1",
            above=1,
        )
    )


def mean_active(records: Sequence[Record]) -> float | None:
    """Active neurons per token at the end on held-out data, mean over layers."""
    found = [r for r in records if r.what == "num_active" and r.split == "eval"]
    last = max((r.step or 0 for r in found), default=0)
    return fmean(r.value for r in found if r.step == last) if last else None
