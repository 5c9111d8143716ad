"""Figures 2c to 2f and 4: trainings that differ in the data, the size, the depth or the width."""

from collections.abc import Sequence
from statistics import fmean

from lazyneuron.paper import density_claims as density
from lazyneuron.paper.claim import Claim
from lazyneuron.paper.comparison_claims import comparison, ratio
from lazyneuron.paper.density_claims import mean_density, middle_density
from lazyneuron.paper.lines import DATA, SIZE, WIDTH, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.scaling import FIG2C, FIG2DEF, FIG4A, FIG4BC
from lazyneuron.paper.trainings import t5, varied, vit
from lazyneuron.records.record import Record

SCALE_GAP = 0.25
_T5_SIZES = {"paper": ("small", "base", "large")}
_VIT_SIZES = {"paper": ("vit-s16", "vit-b16", "vit-l16")}


def fig2c(scale: Scale) -> Recipe:
    """All images against a tenth of them and against half of the classes. Costs two trainings of ViT."""
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

    The paper's T5-3B needs model parallelism, which is not implemented here.
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
    """Costs two trainings of T5, two and three times as deep as the shared one."""
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
    """Costs two trainings of T5, a quarter and four times as wide as the shared one."""
    run = t5(scale)
    width = {"paper": 3072}.get(scale, 512)
    widths = {"smoke": (width // 4, width)}.get(scale, (width // 4, width, 4 * width))
    runs = [run if d_ff == width else varied(run, f"ff{d_ff}", d_ff=d_ff) for d_ff in widths]
    narrow, wide = runs[0].name, runs[-1].name
    return Recipe(
        experiment=FIG4BC,
        runs=tuple(runs),
        claims=(
            *under(WIDTH, wider_lower_fraction(narrow, wide), wider_higher_count(narrow, wide)),
            *(density.few_active(run.name) for run in runs[-1:] if run.name != "t5"),
        ),
        setting="d_ff",
        settings=tuple(float(d_ff) for d_ff in widths),
    )


def scale_of_data(less: str, more: str, on: str) -> Claim:
    return comparison(
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


def larger_sparser(small: str, large: str) -> Claim:
    return comparison(
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


def deeper_sparser(shallow: str, deep: str) -> Claim:
    return comparison(
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


def wider_lower_fraction(narrow: str, wide: str) -> Claim:
    return comparison(
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


def wider_higher_count(narrow: str, wide: str) -> Claim:
    return comparison(
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


def mean_active(records: Sequence[Record]) -> float | None:
    """Active neurons per token at the end on held-out data, mean over layers."""
    found = [r for r in records if r.what == "num_active" and r.split == "eval"]
    last = max((r.step or 0 for r in found), default=0)
    return fmean(r.value for r in found if r.step == last) if last else None
