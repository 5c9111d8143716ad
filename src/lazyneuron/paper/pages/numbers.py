"""Tables of experiments: what each setting came to over seeds, in numbers and, for Table 1, in the paper's layout."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lazyneuron.pages.charts import Run
from lazyneuron.paper.pages.experiment import Experiment, Member, Spread, at_end, family, over_seeds, quality, spread
from lazyneuron.paper.pages.firing_charts import firing_numbers
from lazyneuron.paper.pages.latency_charts import WAYS, latency_rows
from lazyneuron.paper.pages.paper_side import TABLE1, TABLE1_HEAD
from lazyneuron.paper.pages.robustness_charts import mean_under, models
from lazyneuron.paper.pages.sweep_charts import said_setting
from lazyneuron.paper.pages.topk_charts import differences, has_selections

Cell = tuple[str, str]
_RANGE = "Small: the range over seeds."
_NOISES = ("gaussian_noise", "impulse_noise", "shot_noise")


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A table: titles and whether each column is of numbers; cells are a text and, smaller below it, another."""

    title: str
    head: list[tuple[str, bool]]
    rows: list[list[Cell]]
    note: str = ""


def cell(found: Spread | None, scale: float = 100.0, form: str = ".2f", sign: bool = False) -> Cell:
    """A mean over seeds and, where there are several that differ, its range."""
    if found is None:
        return ("", "")

    def said(value: float) -> str:
        return f"{scale * value:{'+' if sign else ''}{form}}"

    is_range = found.count > 1 and found.low != found.high
    joint = "\u2013" if found.low >= 0 and not sign else " to "
    return (said(found.mean), f"{said(found.low)}{joint}{said(found.high)}" if is_range else "")


def by_setting(experiment: Experiment) -> Numbers | None:
    """What every training of an experiment came to; columns that none has are left out."""
    members = [m for m in experiment.members if m.run.config.get("kind", "training") == "training" and m.run.records]
    members = [m for m in members if m.run.pick("density") or m.run.pick("loss")]
    if not members:
        return None
    paired = {
        member.run.name: found
        for kind in dict.fromkeys(family(member.run) for member in experiment.trained)
        for member, found in differences([m for m in experiment.trained if family(m.run) == kind], "accuracy")
    }
    kinds = [family(member.run) for member in members]
    is_said = all(kind in said_setting(member.setting) for kind, member in zip(kinds, members, strict=True))
    several = len(set(kinds)) > 1 and not is_said
    counts = {len({record.seed for record in member.run.records}) for member in members}
    hidden = {"seeds"} if len(counts) == 1 else set()
    if any(member.run.pick("natural_density") for member in members):
        hidden |= {"sparsest\nlayer (%)", "densest\nlayer (%)"}
    rows: list[list[tuple[str, Cell]]] = []
    for member in members:
        run, row = member.run, [(experiment.axis, (said_setting(member.setting), member.run.name))]
        if several:
            row.append(("model", (family(run), "")))
        row += [
            (title, cell(spread(values), scale, form))
            for title, values, scale, form in _columns(run)
            if title not in hidden
        ]
        if has_selections(experiment):
            found = paired.get(run.name, {})
            row.append(("accuracy less\ndense (points)", cell(spread(found.values()), sign=True)))
        rows.append(row)
    used = [number for number in range(len(rows[0])) if any(row[number][1][0] for row in rows)]
    head = [(rows[0][number][0], number > int(several)) for number in used]
    has_range = any(small for row in rows for _, (_, small) in row[1:])
    cells = [[row[number][1] for number in used] for row in rows]
    note = "Density and active neurons: mean over layers, held-out data, at the last step. "
    if len(counts) == 1:
        note += f"{(count := counts.pop())} seed{'s' * (count > 1)} each. "
    return Numbers(title="In numbers", head=head, rows=cells, note=f"{note}{_RANGE if has_range else ''}".strip())


def _columns(run: Run) -> list[tuple[str, Iterable[float], float, str]]:
    start = over_seeds(r for r in run.pick("density") if r.step == 0 and r.split in ("eval", ""))
    natural = at_end(run, "natural_density")
    by_layer: dict[int, list[float]] = {}
    for record in at_end(run):
        by_layer.setdefault(record.seed, []).append(record.value)
    return [
        ("seeds", [len({r.seed for r in run.records})], 1, ".0f"),
        ("at step 0\n(%)", start.values(), 100, ".1f"),
        ("density,\nend (%)", over_seeds(at_end(run)).values(), 100, ".2f"),
        ("sparsest\nlayer (%)", [min(found) for found in by_layer.values()], 100, ".2f"),
        ("densest\nlayer (%)", [max(found) for found in by_layer.values()], 100, ".2f"),
        ("active\nper token", over_seeds(at_end(run, "num_active")).values(), 1, ".1f"),
        ("natural,\nend (%)", over_seeds(natural).values(), 100, ".2f"),
        ("accuracy\n(%)", quality(run, "accuracy").values(), 100, ".2f"),
        ("loss\n(nats)", quality(run, "loss").values(), 1, ".4f"),
    ]


def table1(experiment: Experiment) -> Numbers | None:
    """The paper's Table 1, and below it what was seen here in the same layout; differences are paired by seed."""
    studies = experiment.studies("robustness")
    trained = [m for m in experiment.trained if family(m.run) == "ViT"]

    def noise_of(member: Member) -> float:
        return round(100 * (member.run.config.get("task") or {}).get("random_labels", 0.0))

    def column(member: Member | None, what: str) -> dict[int, float]:
        return quality(member.run, what) if member else {}

    found: dict[str, list[dict[int, float]]] = {}
    for is_sparse, title in ((False, "ViT"), (True, "Top-k ViT")):
        own = {noise_of(m): m for m in trained if ("selection" in m.run.config) == is_sparse}
        columns = [column(own.get(noise), "accuracy") for noise in (0, 40, 80)]
        name = own[0].run.name if 0 in own else ""
        columns += [mean_under(studies[0], name, noise) if studies else {} for noise in _NOISES]
        found[title] = [*columns, column(own.get(0), "ece")]
    if not any(values for columns in found.values() for values in columns):
        return None
    rows = [[(name, "the paper"), *((f"{value:.2f}", "") for value in values)] for name, values in TABLE1.items()]
    dense, sparse = TABLE1.values()
    rows.append([("difference", "the paper"), *((f"{b - a:+.2f}", "") for a, b in zip(dense, sparse, strict=True))])
    rows += [[(title, "here"), *(cell(spread(v.values())) for v in columns)] for title, columns in found.items()]
    pairs = zip(found["ViT"], found["Top-k ViT"], strict=True)
    rows.append([("difference", "here"), *(cell(spread(_paired(b, a).values()), sign=True) for a, b in pairs)])
    titles = ("natural", "labels\n40 %", "labels\n80 %", *TABLE1_HEAD[3:])
    note = f"Accuracy and ECE in %; differences here are paired by seed. {_RANGE}"
    head = [("", False), *((title, True) for title in titles)]
    return Numbers(title="Table 1, the paper's and ours", head=head, rows=rows, note=note)


def _paired(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    return {seed: one[seed] - other[seed] for seed in one if seed in other}


def firing_table(run: Run) -> Numbers | None:
    """How the first encoder layer's neurons fire, beside the paper's."""
    rows = firing_numbers(run)
    if not any(found for _, _, found in rows):
        return None
    cells = [[(text, ""), (paper, ""), cell(found, 1, ".4g")] for text, paper, found in rows]
    head = [("first encoder layer", False), ("the paper (%)", True), ("here (%)", True)]
    return Numbers(title="In numbers", head=head, rows=cells, note=f"Shares of neurons or of tokens. {_RANGE}")


def mce_table(experiment: Experiment, run: Run) -> Numbers | None:
    """Clean accuracy, mean accuracy under corruption and mean corruption error of each model."""
    rows = []
    corruptions = dict.fromkeys(r.case.partition(" ")[2] for r in run.tested("accuracy"))
    for model in models(run):
        clean = mean_under(run, model, "clean")
        by_corruption = [mean_under(run, model, name) for name in corruptions if name and name != "clean"]
        means = {s: sum(v[s] for v in by_corruption if s in v) / len(by_corruption) for s in clean if by_corruption}
        mce = {r.seed: r.value for r in run.pick("mce") if r.case == model}
        values = (cell(spread(v.values())) for v in (clean, means, mce))
        rows.append([(experiment.model(model), model), *values])
    if not rows:
        return None
    titles = ("clean\naccuracy (%)", "corrupted\naccuracy (%)", "mCE (% of\nthe first's)")
    head = [("model", False), *((title, True) for title in titles)]
    return Numbers(title="In numbers", head=head, rows=rows, note=f"Means over corruptions and severities. {_RANGE}")


def latency_table(run: Run) -> Numbers | None:
    """Milliseconds by size and k, and the speed-up."""
    rows = latency_rows(run)
    found = {(row["size"], row["way"], row["k"]): row for row in rows}
    dense = {row["size"]: row for row in rows if row["way"] == WAYS["dense"]}
    gains: dict[tuple[str, float], list[float]] = {}
    for record in run.pick("speedup"):
        gains.setdefault((record.case, record.x or 0), []).append(record.value)

    def ms(row: dict[str, float] | None) -> Cell:
        return (f"{row['value']:.4g}", "") if row else ("", "")

    ways = (WAYS["top-k"], WAYS["exploited"])
    cells = [
        [
            (f"T5 {size}", ""), (f"{k:,.0f}", ""), ms(dense.get(size)),
            *(ms(found.get((size, way, k))) for way in ways),
            cell(spread(gains.get((size, k), [])), 1, ".2f"),
        ]
        for size, k in dict.fromkeys((row["size"], row["k"]) for row in rows if row["way"] in ways)
    ]  # fmt: skip
    if not cells:
        return None
    titles = ("k", "dense\n(ms)", "top-k,\nmasked (ms)", "top-k,\nexploited (ms)", "speed-up")
    head = [("model", False), *((title, True) for title in titles)]
    note = (
        "Milliseconds per token; top-k alone only masks, and saves nothing. Exploited at k = d_ff leaves nothing out: "
    )
    note += "what our threads alone gain. Speed-up: the fastest of it and of dense over exploited."
    return Numbers(title="In numbers", head=head, rows=cells, note=note)


def skipping_table(experiment: Experiment, run: Run) -> Numbers | None:
    """What skipping inactive neurons does to the down projections: error, and FLOPs beside the density."""
    rows = []
    for name in dict.fromkeys(record.case for record in run.pick("skip_error")):

        def by_seed(what: str, how: Callable[[list[float]], float], name: str = name) -> Spread | None:
            values: dict[int, list[float]] = {}
            for record in run.pick(what):
                if record.case == name:
                    values.setdefault(record.seed, []).append(record.value)
            return spread(how(found) for found in values.values())

        numbers = [
            cell(by_seed("skip_error", max), 1, ".3f"),
            *(cell(by_seed(what, _mean)) for what in ("skip_flops_share", "density")),
        ]
        rows.append([(experiment.model(name), name), *numbers])
    if not rows:
        return None
    titles = ("largest error,\nof the bound", "FLOPs read,\nof dense's (%)", "density\n(%)")
    head = [("model", False), *((title, True) for title in titles)]
    note = "Down projections of trained models with the rows of inactive neurons skipped: the error against float64, "
    note += (
        "largest over layers, over what rounding can make of that many products in float32; FLOPs and density, means "
    )
    note += f"over layers. {_RANGE}"
    return Numbers(title="Skipping inactive neurons", head=head, rows=rows, note=note)


def statistical_table(experiment: Experiment, run: Run) -> Numbers | None:
    """Kept over asked for, its deviation over tokens and overlap with exact top-k, by input and density asked for."""
    titles = {"kept_ratio": "kept, of\nthose asked", "kept_deviation": "deviation\nover tokens"}
    titles["kept_overlap"] = "overlap with\nexact top-k"
    places = dict.fromkeys((record.case, record.x) for record in run.pick("kept_ratio"))
    rows = []
    for case, x in places:
        values = [over_seeds(r for r in run.pick(what) if (r.case, r.x) == (case, x)) for what in titles]
        name = "Gaussian input" if case == "gaussian" else experiment.model(case)
        rows.append([(name, ""), (f"{100 * (x or 0):g}", ""), *(cell(spread(v.values()), 1, ".3f") for v in values)])
    if not rows:
        return None
    head = [("input", False), ("asked for\n(%)", True), *((title, True) for title in titles.values())]
    note = "Means over layers. Overlap: neurons that it and exact top-k both keep, over those that either keeps. "
    note += _RANGE
    return Numbers(title="Statistical top-k in numbers", head=head, rows=rows, note=note)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
