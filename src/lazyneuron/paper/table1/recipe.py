"""Table 1: a ViT against a Top-k ViT under label noise and input noise, and how well they are calibrated."""

from collections.abc import Sequence
from statistics import fmean

from lazyneuron.paper.claim import Claim, Condition, Records, Seen
from lazyneuron.paper.comparison_claims import QUALITY_GAP, comparison, difference, if_mlps_are_used, tested
from lazyneuron.paper.corruptions.corruption import CORRUPTIONS as ALL_CORRUPTIONS
from lazyneuron.paper.lines import ROBUST, under
from lazyneuron.paper.options import Scale
from lazyneuron.paper.recipe import Recipe
from lazyneuron.paper.runs import Training
from lazyneuron.paper.table1 import CORRUPTIONS, HEAD, ROWS, TABLE1
from lazyneuron.paper.table1.run import Robustness
from lazyneuron.paper.trainings import few_images, varied, with_topk, without_mlps
from lazyneuron.records.record import Record

DENSITY = 128 / 3072
OVERCONFIDENT = 0.05
_NUM_IMAGES = {"smoke": 40, "paper": 50_000}
NOISES = {"gaussian_noise": "Gaussian", "impulse_noise": "impulse", "shot_noise": "shot"}


def table1(scale: Scale) -> Recipe:
    """Costs six trainings of `few_images`, a control, and the evaluation under three corruptions.

    Dense and Top-k differ in the selection alone. Beside what differs there:

    | | the paper | here |
    | --- | --- | --- |
    | k | 128 of 3,072 | the same share of d_ff (21 of 512), from the first step on |
    | input noise | ImageNet-C, 224 x 224 pixels in colour | its constants on the images as they are (28 x 28, grey) |
    | judged by | accuracy | label noise: accuracy; input noise: what accuracy falls by |
    | calibration | ECE | ECE, where the dense model's is above 5 % |
    | repeats | not known | 10 seeds: weights, batches, images and redrawn labels; both trainings of a seed share them |
    """
    by_noise = {percent: _pair(scale, percent) for percent in (0, 40, 80)}
    run, sparse = by_noise[0]
    trainings = [training for pair in by_noise.values() for training in pair]
    num_images = _NUM_IMAGES.get(scale, 10_000)
    robustness = Robustness(
        name="robustness", of=(run, sparse), corruptions=tuple(NOISES), constants="ImageNet-C", num_images=num_images
    )
    names = {percent: (topk.name, dense.name) for percent, (dense, topk) in by_noise.items()}
    return Recipe(
        experiment=TABLE1,
        num_seeds=10,
        runs=(*trainings, without_mlps(run), robustness),
        claims=if_mlps_are_used(
            run,
            topk_natural(*names[0]),
            *under(
                ROBUST,
                topk_label_noise(*names[40], 40),
                topk_label_noise(*names[80], 80),
                *(topk_input_noise("robustness", *names[0], noise) for noise in NOISES),
                topk_calibration(*names[0]),
            ),
            topk_noise_gains_grow(names[80], names[40]),
        ),
        setting="training",
        settings=(
            *("ViT", "Top-k ViT", "ViT, 40 %", "Top-k ViT, 40 %", "ViT, 80 %", "Top-k ViT, 80 %"),
            *("ViT, no MLPs", "input noise"),
        ),
    )


def _pair(scale: Scale, percent: int) -> tuple[Training, Training]:
    """The dense ViT and the Top-k one, `percent` of their training labels redrawn."""
    run = few_images(scale)
    dense = varied(run, f"labels{percent}", random_labels=percent / 100) if percent else run
    return dense, with_topk(dense, DENSITY)


def corruptions(scale: Scale) -> Recipe:
    """All 15 corruptions of ImageNet-C (arXiv 1903.12261) and the mean corruption error. Costs minutes: no training.

    Beyond the paper. With ImageNet-C's constants at scale paper; its authors' constants for CIFAR-10-C elsewhere, where
    images are small. Frost is drawn, not photographed.
    """
    run, sparse = _pair(scale, 0)
    study = Robustness(
        name="corruptions",
        of=(run, sparse),
        corruptions=ALL_CORRUPTIONS,
        constants="ImageNet-C" if scale == "paper" else "CIFAR-10-C",
        num_images={"smoke": 20, "laptop": 2_000}.get(scale, 10_000),
    )
    return Recipe(
        experiment=CORRUPTIONS,
        num_seeds=10,
        runs=(study,),
        claims=if_mlps_are_used(run, topk_all_corruptions("corruptions", sparse.name, run.name)),
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
        found = [accuracies(records[study], run, corruption) for run in (dense, topk)]
        if None in found:
            return None
        (clean, noisy), (clean_topk, noisy_topk) = (pair for pair in found if pair)
        fall, fall_topk = clean - noisy, clean_topk - noisy_topk
        return Seen(
            fall - fall_topk,
            f"{dense} falls by {fall:.4f} from {clean:.4f}, {topk} by {fall_topk:.4f} from {clean_topk:.4f}; "
            f"accuracies under noise differ by {noisy_topk - noisy:+.4f}",
        )

    fall, fall_topk = (row[HEAD.index("natural")] - row[HEAD.index(NOISES[corruption])] for row in ROWS.values())
    return Claim(
        name=f"topk-{corruption.replace('_', '-')}",
        text=f"Top-k loses less accuracy under {corruption.removesuffix('_noise')} noise.",
        where="Table 1",
        metric="what the dense model's accuracy falls by, mean of 5 severities, less what that under Top-k falls by",
        expected="above 0",
        reported=f"{(fall - fall_topk) / 100:.4f} ({fall:.2f} against {fall_topk:.2f} points); accuracies differ by "
        + _reported(NOISES[corruption]),
        runs=(study,),
        on=f"{topk} against {dense}",
        see=see,
        above=0,
        compares=True,
        unit="points",
        effect=(fall - fall_topk) / 100,
    )


def accuracies(records: Sequence[Record], run: str, corruption: str) -> tuple[float, float] | None:
    """Accuracy of a study's model on clean images, and its mean over severities of a corruption; None without both."""

    def under(name: str) -> list[float]:
        return [r.value for r in records if r.what == "accuracy" and r.case == f"{run} {name}"]

    clean, corrupted = under("clean"), under(corruption)
    return (fmean(clean), fmean(corrupted)) if clean and corrupted else None


def topk_calibration(topk: str, dense: str) -> Claim:
    error = tested("ece")
    is_overconfident = Condition(
        "the dense model's calibration error",
        lambda records: error(records[dense]),
        OVERCONFIDENT,
        lambda value: f"the dense model is calibrated already ({100 * value:.1f} %)",
    )
    return comparison(
        topk,
        dense,
        error,
        difference,
        name="topk-calibration",
        text="Top-k lowers the expected calibration error.",
        where="Table 1",
        metric="ECE under Top-k less that of the dense model",
        expected=f"below 0, where the dense model's is at least {100 * OVERCONFIDENT:g} % (ours)",
        reported=_reported("ECE"),
        below=0,
        unit="points",
        effect=_effect("ECE"),
        needs=(is_overconfident,),
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
