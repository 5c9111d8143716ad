"""The page: result folders in, one self-contained HTML file and a folder of charts out."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from lazyneuron.errors import UsageError
from lazyneuron.pages import (
    charts,
    claims_table,
    enforce_charts,
    lines,
    measure_charts,
    measure_sentences,
    measure_tables,
    position_charts,
    training_charts,
    training_tables,
)
from lazyneuron.pages.charts import Figure, Run
from lazyneuron.pages.enforce_charts import is_enforced
from lazyneuron.pages.measured_layers import is_dense, is_measured, layers_of
from lazyneuron.pages.neurons import has_examples, write_neurons
from lazyneuron.pages.prose import listed, number
from lazyneuron.pages.section import ModelSection, Section, unique_ids
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Verdict
from lazyneuron.records.table import Table

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was checked in result folders: their runs by the folder's label, and the sections that show them."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    sections: list[Section] = field(default_factory=list)
    not_begun: list[str] = field(default_factory=list)


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the page of folders with measured, converted or trained models to `out`; return `out`.

    Its charts are written to `charts/` beside it. Several folders are compared, each under its name.
    """
    return write_page(labelled(folders), out, Checked())


def labelled(folders: Sequence[Path]) -> dict[str, RunFolder]:
    """The result folders by a short name: the folder's own, with its parents' where two are the same."""
    if not folders:
        raise UsageError("no result folder to report on: give at least one")
    paths = [path.resolve() for path in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return {label: RunFolder(path) for label, path in zip(labels, folders, strict=True)}
    raise UsageError(f"{folders[0]} or another result folder is given twice: give each once")


def write_page(tops: dict[str, RunFolder], out: Path, checked: Checked) -> Path:
    """Write the page of result folders by label to `out` and its charts beside it, from records, verdicts and configs.

    The runs of a folder that is not among those `checked` are shown as they are.
    """
    if out.suffix not in (".html", ".htm"):
        raise UsageError(f"a page is HTML or Markdown: give --out a name that ends in .html or .md; got {out}")
    runs: list[Run] = []
    for label, top in tops.items():
        if top.config.get("name") == "advise":
            raise UsageError(f"{top.path} holds results of lazyneuron advise, which prints them: it has no page")
        runs += checked.runs.get(label) or _runs_of(label, top)
    verdicts = {label: top.verdicts() for label, top in tops.items()}
    models = _with_model_names([run for run in runs if is_measured(run) and run.label not in checked.runs])
    converted = _with_model_names([run for run in runs if is_enforced(run)])
    others = [run for run in runs if run.label in checked.runs or not (is_measured(run) or is_enforced(run))]
    claimed = {label: found for label, found in verdicts.items() if found or label in checked.runs}
    own_trainings = [run for run in others if run.label not in checked.runs]
    trained = _training_sections(own_trainings)
    out.parent.mkdir(parents=True, exist_ok=True)
    browsers = _neuron_browsers(models, tops, out.parent)
    measured, sparse = _measured_sections(models, browsers), _enforced_sections(converted)
    figures = [figure for section in [*measured, *sparse, *trained] for figure in section.figures]
    figures += [figure for section in checked.sections for figure in section.all_figures]
    chart_folder = out.parent / "charts"
    chart_folder.mkdir(exist_ok=True)
    for figure in figures:
        charts.save(figure, chart_folder)
    shown = {"labels": list(tops), "commands": {label: top.config.get("command") for label, top in tops.items()}}
    shown |= {"models": models, "converted": converted, "sections": [*measured, *sparse, *trained]}
    shown["names_of_trained"] = _listed(list(dict.fromkeys(run.label for run in own_trainings)))
    shown["names_of_models"] = _listed([run.name for run in models])
    shown["names_of_converted"] = _listed([run.name for run in converted])
    shown["folders_of_models"] = _folders([*models, *converted])
    shown |= {"experiments": checked.sections, "experiments_of": list(checked.runs)}
    shown |= {"checks": bool(claimed), "not_begun": checked.not_begun}
    scales = dict.fromkeys(tops[label].config.get("scale") for label in checked.runs)
    shown["scales"] = [scale for scale in scales if scale and scale != "paper"]
    out.write_text(_html(shown, claimed, [*models, *converted, *others], figures), encoding="utf-8")
    return out


def _runs_of(label: str, top: RunFolder) -> list[Run]:
    """The runs of a result folder, or its own records where it has no members."""
    pairs = [(member, member.path.name) for member in top.members()] or [(top, str(top.config.get("name", label)))]
    return [Run(label=label, name=name, config=folder.config, records=folder.records()) for folder, name in pairs]


def _training_sections(runs: list[Run]) -> list[ModelSection]:
    """One section per recipe that trained, of the runs of all folders."""
    trained = [run for run in runs if any(run.pick(what) for what in ("density", "loss", "accuracy", "num_active"))]
    names = unique_ids([run.name for run in trained])
    sections = []
    for recipe in dict.fromkeys(run.name for run in trained):
        same, slug = [run for run in trained if run.name == recipe], names[recipe]
        is_comparison = len(same) > 1
        own = unique_ids([run.label for run in same])
        figures = [training_charts.mean_density(same, f"fig1-mean-{slug}") if is_comparison else None]
        tables_of, warnings = [], []
        for run in same:
            name = f"fig1-{slug}-{own[run.label]}" if is_comparison else f"fig1-{slug}"
            figures.append(training_charts.density_over_training(run, name, is_comparison))
            figures.append(
                training_charts.neurons_over_training(run, name.replace("fig1", "neurons", 1), is_comparison)
            )
            table = training_tables.density_table(run)
            tables_of.append(replace(table, title=f"{table.title}: {run.label}") if is_comparison else table)
            for warning in [*filter(None, [training_tables.progress(run)]), *measure_sentences.unlike_config(run)]:
                warnings.append(f"{run.label}: {warning}" if is_comparison else warning)
        figures += [training_charts.density_by_layer(same, f"fig2-{slug}")]
        figures += [training_charts.loss_and_accuracy(same, f"loss-{slug}")]
        title = charts.run_title(same[0])
        sections.append(_section(slug, title, figures, tables_of, warnings=warnings))
    return sections


def _section(
    slug: str, title: str, figures: Sequence[Figure | None], tables: Sequence[Table], **more: Any
) -> ModelSection:
    """A section of the figures and tables that have something to show."""
    drawn, filled = [figure for figure in figures if figure], [table for table in tables if table.rows]
    return ModelSection(slug=slug, title=title, figures=drawn, tables=filled, **more)


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; only how many, if there are many."""
    if len(names) > 4:
        return f"{len(names)} models"
    return listed(names)


def _model_name(run: Run) -> str:
    """The short name that the measurement was given, or else the last part of the model's."""
    title = str(run.config.get("title") or "").strip()
    return title or str(run.config.get("model") or run.label).rstrip("/").rsplit("/", 1)[-1]


def _folders(runs: list[Run]) -> list[tuple[str, str]]:
    """Names and result folders of the models whose folder has another name than they have on the page."""
    found = []
    for run in runs:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", _model_name(run)).strip(".-")
        obvious = (stem, f"measure-{stem}", f"enforce-{stem}", _model_name(run))
        if run.label not in obvious and not run.name.endswith(f"({run.label})"):
            found.append((run.name, run.label))
    return found


def _with_model_names(runs: list[Run]) -> list[Run]:
    """Each run under its model's short name, with its folder's where two have the same."""
    names = [_model_name(run) for run in runs]
    count = Counter(names)
    shown = [f"{name} ({run.label})" if count[name] > 1 else name for name, run in zip(names, runs, strict=True)]
    return [replace(run, name=name) for name, run in zip(shown, runs, strict=True)]


def _neuron_browsers(runs: list[Run], tops: dict[str, RunFolder], beside: Path) -> dict[str, str]:
    """Write the neuron browser of each measured model with top examples; the file names by the model's name."""
    slugs = unique_ids([run.name for run in runs])
    names = {run.name: f"neurons-{slugs[run.name]}.html" if len(runs) > 1 else "neurons.html" for run in runs}
    shown = [run for run in runs if has_examples(tops[run.label])]
    return {run.name: write_neurons(tops[run.label], run.name, beside / names[run.name]).name for run in shown}


def _measured_sections(runs: list[Run], browsers: dict[str, str]) -> list[ModelSection]:
    """One section per measured model, after one that compares them where there are several."""
    names, sections = unique_ids([run.name for run in runs]), []
    if len(runs) > 1:
        by_depth = measure_charts.compared_by_depth(runs, "compared")
        sections.append(_section("compared", "Models compared", [by_depth], [measure_tables.compared(runs)]))
    for run in runs:
        slug = names[run.name]
        figures = [measure_charts.shares_by_layer(run, f"density-{slug}")]
        figures += [measure_charts.kinds_of_token(run, f"class-token-{slug}")]
        if not is_dense(layers_of(run)):
            figures += [measure_charts.firing_rate(run, f"firing-{slug}")]
            figures += [measure_charts.activity_over_the_data(run, f"activity-{slug}")]
            figures += [measure_charts.active_per_token(run, f"tokens-{slug}")]
            figures += [position_charts.density_by_position(run, f"position-{slug}")]
        texts = [measure_sentences.origin(run), " ".join(measure_sentences.summary(run)), *measure_sentences.notes(run)]
        warnings, tables = measure_sentences.warnings(run), [measure_tables.by_layer(run)]
        if not is_dense(layers_of(run)):
            tables.append(measure_tables.spread_by_layer(run))
        more = {"texts": texts, "warnings": warnings, "neurons": browsers.get(run.name, "")}
        sections.append(_section(f"model-{slug}", run.name, figures, tables, **more))
    return sections


def _enforced_sections(runs: list[Run]) -> list[ModelSection]:
    """One section per converted model, after one that compares them where there are several."""
    names, sections = unique_ids([run.name for run in runs]), []
    if len(runs) > 1:
        figure, table = enforce_charts.compared(runs, "compared-quality"), enforce_charts.compared_table(runs)
        sections.append(_section("quality-against-density", "Quality against density, compared", [figure], [table]))
    for run in runs:
        figure = enforce_charts.quality_against_density(run, f"enforced-{names[run.name]}")
        title = "Quality against density" + (f": {run.name}" if len(runs) > 1 else "")
        texts = [enforce_charts.enforced_origin(run), " ".join(enforce_charts.enforced_summary(run))]
        note = "Nothing has been judged yet: these records hold no quality."
        table = enforce_charts.enforced_table(run)
        sections.append(_section(f"quality-{names[run.name]}", title, [figure], [table], texts=texts, note=note))
    return sections


def provenance(run: Run) -> dict[str, Any]:
    """Where the run's numbers come from: config, sources, seeds and the number of records."""
    sources: dict[str, Any] = {}
    for record in run.records:
        if record.source is not None:
            source = record.source
            sources[json.dumps([source.commit, source.device, source.num_threads, source.versions])] = source
    return {
        "run": run,
        "command": run.config.get("command"),
        "num_records": len(run.records),
        "seeds": sorted({record.seed for record in run.records}),
        "sources": list(sources.values()),
        "config": {key: _config_value(key, value) for key, value in run.config.items()},
    }


def _config_value(key: str, value: Any) -> str:
    if key == "sites" and isinstance(value, list):
        return f"{len(value)}, listed above and in config.json"
    return value if isinstance(value, str) else json.dumps(value)


def _script_json(value: Any) -> str:
    """JSON that may stand in a script element: no `</script>`, no `<!--`, no nan."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _html(shown: dict[str, Any], verdicts: dict[str, list[Verdict]], runs: list[Run], figures: list[Figure]) -> str:
    """The page of what is `shown`, of the verdicts by label, of where the runs come from and of all figures."""
    specs = {f.name: f.spec | {"description": f"{f.title}. {f.caption}"} for f in figures}
    return _template().render(
        **shown,
        tallies={label: claims_table.tally(found) for label, found in verdicts.items()},
        claim_tables=claims_table.claim_tables(verdicts),
        lines=lines.lines(verdicts),
        provenance=[provenance(run) for run in runs],
        rebuild=shlex.join(["lazyneuron", "report", *shown["labels"]]),
        css=(HERE / "page.css").read_text(encoding="utf-8"),
        vega=_vega(),
        figures=_script_json(specs),
        themes=_script_json({"light": charts.theme() | {"background": "transparent"}, "dark": charts.theme(dark=True)}),
    )


@cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.undefined = jinja2.StrictUndefined
    env.filters |= {"number": number, "seen": lines.seen}
    env.filters |= {"interval": claims_table.interval, "bootstrap": claims_table.bootstrap}
    return env.get_template("page.html")


@cache
def _vega() -> str:
    """The script that draws the charts, to be put in a page; bundling it takes more than a second."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version=charts.VEGALITE_VERSION)
    return bundle.replace("</script", "<\\/script")
