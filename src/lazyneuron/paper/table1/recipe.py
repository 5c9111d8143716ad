"""Table 1: a ViT against a Top-k ViT under label noise and input noise, and how well they are calibrated."""

from collections.abc import Callable, Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Records, Seen
from lazyneuron.paper.comparison_claims import QUALITY_GAP, comparison, difference, tested
from lazyneuron.paper.corruptions.corruption import CORRUPTIONS as ALL_CORRUPTIONS
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import Training
from lazyneuron.paper.table1 import CORRUPTIONS, HEAD, ROWS, TABLE1
from lazyneuron.paper.table1.run import Robustness
from lazyneuron.paper.trainings import varied, vit, with_topk
from lazyneuron.records.record import Record

_DENSITY = 0.04
_NUM_IMAGES = {"smoke": 40, "paper": 50_000}
_NOISES = {"gaussian_noise": "Gaussian", "impulse_noise": "impulse", "shot_noise": "shot"}


def table1(scale: Scale) -> Recipe:
    """Costs four trainings of ViT and the evaluation under three corruptions.

    k is 4 % of d_ff, as 128 of 3,072 in the paper.
    """
    run, noisy = vit(scale), _noisy(scale)
    sparse = with_topk(run, _DENSITY)
    study = Robustness(
        name="robustness",
        of=(run, sparse),
        corruptions=tuple(_NOISES),
        num_images=_NUM_IMAGES.get(scale, 10_000),
    )
    return Recipe(
        experiment=TABLE1,
        num_seeds=10,
        runs=(run, sparse, *noisy[40][::-1], *noisy[80][::-1], study),
        claims=(
            topk_natural(sparse.name, run.name),
            topk_label_noise(noisy[40][0].name, noisy[40][1].name, 40),
            topk_label_noise(noisy[80][0].name, noisy[80][1].name, 80),
            topk_noise_gains_grow((noisy[80][0].name, noisy[80][1].name), (noisy[40][0].name, noisy[40][1].name)),
            *(topk_input_noise("robustness", sparse.name, run.name, noise) for noise in _NOISES),
            topk_calibration(sparse.name, run.name),
        ),
        setting="training",
        settings=("ViT", "Top-k ViT", "ViT, 40 %", "Top-k ViT, 40 %", "ViT, 80 %", "Top-k ViT, 80 %", "input noise"),
    )


def _noisy(scale: Scale) -> dict[int, tuple[Training, Training]]:
    """By percent of random labels: the Top-k ViT and the dense one."""
    dense = {percent: varied(vit(scale), f"labels{percent}", random_labels=percent / 100) for percent in (40, 80)}
    return {percent: (with_topk(run, _DENSITY), run) for percent, run in dense.items()}


def corruptions(scale: Scale) -> Recipe:
    """All 15 corruptions of ImageNet-C (arXiv 1903.12261) and the mean corruption error. Costs minutes: no training."""
    run = vit(scale)
    sparse = with_topk(run, _DENSITY)
    images = {"smoke": 20, "laptop": 2_000}.get(scale, 10_000)
    study = Robustness(name="corruptions", of=(run, sparse), corruptions=ALL_CORRUPTIONS, num_images=images)
    return Recipe(
        experiment=CORRUPTIONS,
        num_seeds=10,
        runs=(study,),
        claims=(topk_all_corruptions("corruptions", sparse.name, run.name),),
    )


def _reported(column: str) -> str:
    """The paper's difference in a column of Table 1, and both of its numbers."""
    dense, sparse = (row[HEAD.index(column)] for row in ROWS.values())
    return f"{(sparse - dense) / 100:.4f} ({sparse:.2f} against {dense:.2f} %)"


def _effect(column: str) -> float:
    """The size of the paper's difference in a column of Table 1."""
    dense, sparse = (row[HEAD.index(column)] for row in ROWS.values())
    return abs(sparse - dense) / 100


def topk_natural(topk: str, dense: str) -> Claim:
    return comparison(
        topk,
        dense,
        tested("accuracy"),
        difference,
        name="topk-natural-accuracy",
        text="Top-k leaves natural accuracy as it is.",
        where="Table 1",
        metric="accuracy under Top-k less that of the dense model",
        expected=f"between {-QUALITY_GAP} and {QUALITY_GAP} (ours)",
        reported=_reported("natural"),
        at_least=-QUALITY_GAP,
        at_most=QUALITY_GAP,
        unit="points",
    )


def topk_label_noise(topk: str, dense: str, percent: int) -> Claim:
    return comparison(
        topk,
        dense,
        tested("accuracy"),
        difference,
        name=f"topk-label-noise-{percent}",
        text=f"Top-k raises accuracy where {percent} % of the training labels are random.",
        where="Table 1",
        metric="accuracy under Top-k less that of the dense model",
        expected="above 0",
        reported=_reported(f"labels {percent} %"),
        above=0,
        unit="points",
        effect=_effect(f"labels {percent} %"),
    )


def topk_noise_gains_grow(at_80: tuple[str, str], at_40: tuple[str, str]) -> Claim:
    accuracy = tested("accuracy")

    def see(records: Records) -> Seen | None:
        gains = []
        for topk, dense in (at_80, at_40):
            a, b = accuracy(records[topk]), accuracy(records[dense])
            if a is None or b is None:
                return None
            gains.append(a - b)
        return Seen(gains[0] - gains[1], f"{gains[0]:+.3f} at 80 %, {gains[1]:+.3f} at 40 %")

    return Claim(
        name="topk-label-noise-grows",
        text="Top-k gains more at 80 % label noise than at 40 %.",
        where="Table 1",
        metric="gain in accuracy at 80 % less that at 40 %",
        expected="above 0",
        reported="0.0276 (5.45 against 2.69 points)",
        runs=(*at_80, *at_40),
        on=f"{at_80[0]}, {at_40[0]}",
        see=see,
        above=0,
        compares=True,
        unit="points",
        effect=_effect("labels 80 %") - _effect("labels 40 %"),
    )


def topk_input_noise(study: str, topk: str, dense: str, corruption: str) -> Claim:
    def see(records: Records) -> Seen | None:
        a, b = (_corrupted(run, corruption)(records[study]) for run in (topk, dense))
        return None if a is None or b is None else Seen(a - b, f"{topk} {a:.4f}, {dense} {b:.4f}")

    return Claim(
        name=f"topk-{corruption.replace('_', '-')}",
        text=f"Top-k raises accuracy under {corruption.removesuffix('_noise')} noise.",
        where="Table 1",
        metric="accuracy, mean of 5 severities, under Top-k less that of the dense model",
        expected="above 0",
        reported=_reported(_NOISES[corruption]),
        runs=(study,),
        on=f"{topk} against {dense}",
        see=see,
        above=0,
        compares=True,
        unit="points",
        effect=_effect(_NOISES[corruption]),
    )


def topk_calibration(topk: str, dense: str) -> Claim:
    return comparison(
        topk,
        dense,
        tested("ece"),
        difference,
        name="topk-calibration",
        text="Top-k lowers the expected calibration error.",
        where="Table 1",
        metric="ECE under Top-k less that of the dense model",
        expected="below 0",
        reported=_reported("ECE"),
        below=0,
        unit="points",
        effect=_effect("ECE"),
    )


def topk_all_corruptions(study: str, topk: str, dense: str) -> Claim:
    def see(records: Records) -> Seen | None:
        found = [r.value for r in records[study] if r.what == "mce" and r.case == topk]
        return Seen(found[0], f"the mean over corruptions of {topk}'s error over {dense}'s") if found else None

    return Claim(
        name="topk-corruptions",
        text="Top-k lowers the error under common corruptions.",
        where="Appendix, beyond the paper's three",
        metric="mean corruption error, the dense model's being 1",
        expected="below 1",
        runs=(study,),
        on=f"{topk} against {dense}",
        see=see,
        below=1,
        compares=True,
    )


def _corrupted(run: str, corruption: str) -> Callable[[Sequence[Record]], float | None]:
    def metric(records: Sequence[Record]) -> float | None:
        case = f"{run} {corruption}"
        found = [r.value for r in records if r.what == "accuracy" and r.case == case]
        return fmean(found) if found else None

    return metric
