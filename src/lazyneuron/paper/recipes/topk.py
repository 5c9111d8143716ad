"""Section 4, Table 1 and the appendix: Top-k Transformers, how good, how robust and how fast they are."""

from dataclasses import replace

from lazyneuron.enforce.selection import StatisticalTopK, TopK
from lazyneuron.paper.claims import comparison, studies, timing, topk
from lazyneuron.paper.corruptions.corruption import CORRUPTIONS
from lazyneuron.paper.recipe import Recipe, Scale
from lazyneuron.paper.recipes.base import t5, varied, vit
from lazyneuron.paper.runs import Latency, Robustness, Skipping, Statistical, Training

DENSITIES = {"smoke": (0.08, 0.04, 0.01), "paper": (0.5, 0.25, 0.0833, 0.0417, 0.0208, 0.0104)}
_DENSITIES = (0.08, 0.04, 0.02, 0.01)
_ENOUGH = {"t5": 0.04, "vit": 0.08}
_TABLE1_DENSITY = 0.04
_NUM_IMAGES = {"smoke": 40, "paper": 50_000}
_REPORTED_NOISE = {
    "gaussian_noise": "0.0275 (42.29 against 39.54 %)",
    "impulse_noise": "0.0270 (40.07 against 37.37 %)",
    "shot_noise": "0.0212 (40.68 against 38.56 %)",
}


def with_topk(run: Training, density: float) -> Training:
    """The run with the `density` largest entries of each activation map kept, at every step."""
    return varied(run, f"top{100 * density:g}pct", selection=TopK(density=density))


def topk_accuracy(scale: Scale) -> Recipe:
    """Section 4. Reported: k = 128 (T5) and 256 (ViT) of 3,072 do as well as dense, within about 0.3 %.

    Costs four trainings each of T5 and ViT, and four short ones that check k = d_ff.
    """
    densities = DENSITIES.get(scale, _DENSITIES)
    families = [(run, [with_topk(run, density) for density in densities]) for run in (t5(scale), vit(scale))]
    short = [varied(run, "short", num_steps=min(100, run.num_steps)) for run in (t5(scale), vit(scale))]
    whole = [with_topk(run, 1.0) for run in short]
    claims, runs, settings = [], [], []
    for dense, sparse in families:
        by_density = dict(zip(densities, sparse, strict=True))
        enough = by_density[min(densities, key=lambda d: abs(d - _ENOUGH[dense.name]))]
        reported = "about -0.003 (k = 128, T5-3B)" if dense.name == "t5" else "about -0.003 (k = 256)"
        claims += [
            *(topk.at_most_k(run.name) for run in sparse),
            topk.sparse_from_start(enough.name),
            comparison.topk_enough(enough.name, dense.name, reported),
            comparison.smaller_k_costs_more(sparse[-1].name, enough.name),
        ]
        runs += [dense, *sparse]
        settings += [100.0, *(100 * density for density in densities)]
    claims += [comparison.topk_all_is_dense(one.name, run.name) for one, run in zip(whole, short, strict=True)]
    return Recipe(
        name="topk-accuracy",
        title="How few neurons per token are enough",
        figure="Section 4, accuracy of Top-k T5 and ViT against k",
        expected="k = 128 (4 % of 3,072) for T5 and 256 (8 %) for ViT do as well as dense, within about 0.3 points",
        runs=(*runs, *short, *whole),
        claims=tuple(claims),
        setting="neurons kept (% of d_ff)",
        settings=(*settings, *("short" for _ in (*short, *whole))),
    )


def latency(scale: Scale) -> Recipe:
    """Section 4. Reported: unbatched decoding gains, larger models more; T5-11B 10 % less time a token at k <= 128.

    Here the decoders of T5's sizes with random weights, dense against Top-k exploited without loss, and what skipping
    does to the outputs of trained models. Costs minutes; the timing runs alone.
    """
    sizes = {"smoke": ("small",), "quick": ("small", "base")}.get(scale, ("small", "base", "large"))
    budgets = {"smoke": (32, 512)}.get(scale, (32, 128, 512, 2048))
    tokens, repeats = {"smoke": (4, 1), "quick": (16, 2)}.get(scale, (32, 3))
    decoding = Latency(name="latency", sizes=sizes, budgets=budgets, num_tokens=tokens, repeats=repeats)
    skipping = Skipping(name="skipping", of=(t5(scale), vit(scale)), num_batches=4)
    return Recipe(
        name="latency",
        title="Unbatched decoding gains",
        figure="Section 4, wall time per token",
        expected="larger models gain more; T5-11B about 10 % less time a token for k <= 128 (TPUv4, approximate top-k)",
        runs=(decoding, skipping),
        claims=(
            studies.skipping_changes_nothing("skipping"),
            studies.flops_are_density("skipping"),
            *(timing.decoding_gains("latency", size, budgets[1 if len(budgets) > 2 else 0]) for size in sizes),
            *(timing.larger_gains_more("latency", sizes[0], size, budgets[0]) for size in sizes[1:][-1:]),
            timing.smaller_k_gains_more("latency", sizes[-1], budgets[0], budgets[-1]),
        ),
        setting="",
    )


def _noisy(scale: Scale) -> dict[int, tuple[Training, Training]]:
    """By percent of random labels: the Top-k ViT and the dense one."""
    dense = {percent: varied(vit(scale), f"labels{percent}", random_labels=percent / 100) for percent in (40, 80)}
    return {percent: (with_topk(run, _TABLE1_DENSITY), run) for percent, run in dense.items()}


def table1(scale: Scale) -> Recipe:
    """Table 1. Reported: Top-128 ViT is as accurate as ViT, and better under label noise, input noise and in ECE.

    k is 4 % of d_ff, as 128 of 3,072. Costs four trainings of ViT and the evaluation under three corruptions.
    """
    run, noisy = vit(scale), _noisy(scale)
    sparse = with_topk(run, _TABLE1_DENSITY)
    study = Robustness(
        name="robustness",
        of=(run, sparse),
        corruptions=studies.NOISES,
        num_images=_NUM_IMAGES.get(scale, 10_000),
    )
    return Recipe(
        name="table1",
        title="Top-k is more robust to noise, and better calibrated",
        figure="Table 1",
        expected="natural accuracy the same; label noise +2.7 (40 %) and +5.5 points (80 %); input noise +2.1 to +2.8 "
        "points; ECE 8.42 to 7.48 %",
        runs=(run, sparse, *noisy[40][::-1], *noisy[80][::-1], study),
        claims=(
            studies.topk_natural(sparse.name, run.name),
            studies.topk_label_noise(noisy[40][0].name, noisy[40][1].name, 40, "0.0269 (62.13 against 59.44 %)"),
            studies.topk_label_noise(noisy[80][0].name, noisy[80][1].name, 80, "0.0545 (30.80 against 25.35 %)"),
            studies.topk_noise_gains_grow(
                (noisy[80][0].name, noisy[80][1].name), (noisy[40][0].name, noisy[40][1].name)
            ),
            *(
                studies.topk_input_noise("robustness", sparse.name, run.name, noise, _REPORTED_NOISE[noise])
                for noise in studies.NOISES
            ),
            studies.topk_calibration(sparse.name, run.name),
        ),
        setting="training",
        settings=("ViT", "Top-k ViT", "ViT, 40 %", "Top-k ViT, 40 %", "ViT, 80 %", "Top-k ViT, 80 %", "input noise"),
    )


def corruptions(scale: Scale) -> Recipe:
    """Appendix of ours: all 15 corruptions of ImageNet-C (arXiv 1903.12261) and the mean corruption error.

    Costs minutes beside table1: no training.
    """
    run = vit(scale)
    sparse = with_topk(run, _TABLE1_DENSITY)
    images = {"smoke": 20, "laptop": 2_000}.get(scale, 10_000)
    study = Robustness(name="corruptions", of=(run, sparse), corruptions=CORRUPTIONS, num_images=images)
    return Recipe(
        name="corruptions",
        title="All 15 common corruptions",
        figure="Beyond Table 1",
        expected="the paper reports Gaussian, impulse and shot noise only",
        runs=(study,),
        claims=(studies.topk_all_corruptions("corruptions", sparse.name, run.name),),
    )


def statistical_topk(scale: Scale) -> Recipe:
    """Statistical top-k (arXiv 2506.06644): about k of Gaussian input in time linear in d, and what of real maps.

    Costs one training of ViT and a minute.
    """
    run = vit(scale)
    density = _ENOUGH["vit"]
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
        name="statistical-topk",
        title="Statistical top-k keeps about k",
        figure="Beyond the paper",
        expected="about k of Gaussian input, in O(d) (Spark Transformer, 8 % of the neurons)",
        runs=(statistical, exact, run, study),
        claims=(
            timing.keeps_about_k("statistical"),
            timing.statistical_is_linear("statistical"),
            *(timing.statistical_on_real_maps("statistical", name) for name in ("vit", "t5")),
            replace(
                comparison.topk_enough(statistical.name, exact.name, ""),
                name="statistical-is-enough",
                text="Trained with statistical top-k a ViT is as accurate as with exact top-k.",
                where="arXiv 2506.06644",
                metric="accuracy under statistical less that under exact top-k, held-out",
            ),
        ),
        setting="selection",
        settings=("statistical top-k, 8 %", "top-k, 8 %", "none", "maps"),
    )
