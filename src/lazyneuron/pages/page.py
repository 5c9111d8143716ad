"""The page: result folders in, one self-contained HTML file and a folder of charts out."""

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from lazyneuron.errors import UsageError
from lazyneuron.pages import (
    charts,
    enforce_charts,
    measure_charts,
    measure_tables,
    position_charts,
    tables,
    training_charts,
)
from lazyneuron.pages.charts import Figure, Run
from lazyneuron.pages.enforce_charts import is_enforced
from lazyneuron.pages.layers import is_dense, is_measured, layers_of
from lazyneuron.pages.slugs import slugs
from lazyneuron.paper.pages import sections
from lazyneuron.paper.pages.experiment import Experiment, experiments, is_checked, runs_of
from lazyneuron.paper.pages.markdown import write_markdown
from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Verdict

HERE = Path(__file__).parent


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the page for these result folders to `out` and its charts to `charts/` beside it; return `out`.

    Reads records, verdicts and configs only. Several folders are compared, each under its name. Where `out` ends in
    ".md" the page is in Markdown, of one folder of `lazyneuron reproduce`.
    """
    if not folders:
        raise UsageError("no result folder to report on: give at least one")
    if out.suffix not in (".html", ".htm", ".md"):
        raise UsageError(f"a page is HTML or Markdown: give --out a name that ends in .html or .md; got {out}")
    if out.suffix == ".md":
        if len(folders) > 1:
            raise UsageError("a page in Markdown is of one result folder: give one, or --out PAGE.html")
        return write_markdown(folders[0], out)
    runs, verdicts, commands = [], {}, {}
    checked: dict[str, list[Experiment]] = {}
    scales = []
    for label, path in zip(_labels(folders), folders, strict=True):
        top = RunFolder(path)
        if top.config.get("name") == "advise":
            raise UsageError(f"{path} is of lazyneuron advise, which prints what it found: it has no page")
        verdicts[label] = top.verdicts()
        commands[label] = top.config.get("command")
        found = runs_of(label, top)
        if is_checked(top):
            checked[label] = experiments(top.recipes(), found, verdicts[label])
            scales.append(top.config.get("scale"))
        runs += found
    models = _with_model_names([run for run in runs if is_measured(run) and run.label not in checked])
    converted = _with_model_names([run for run in runs if is_enforced(run)])
    others = [run for run in runs if run.label in checked or not (is_measured(run) or is_enforced(run))]
    claimed = {label: found for label, found in verdicts.items() if found}
    claimed |= {label: verdicts[label] for label in checked}
    trained = _training_sections([run for run in others if run.label not in checked])
    measured, sparse = _measured_sections(models), _enforced_sections(converted)
    tested = sections.sections(checked, slugs)
    figures = [figure for section in [*measured, *sparse, *trained] for figure in section["figures"].values()]
    figures += [figure for section in tested for part in section.parts for figure in part.all_figures]
    out.parent.mkdir(parents=True, exist_ok=True)
    chart_folder = out.parent / "charts"
    chart_folder.mkdir(exist_ok=True)
    for figure in figures:
        charts.save(figure, chart_folder)
    shown = {"labels": list(verdicts), "commands": commands, "models": models, "measured": measured}
    shown |= {"converted": converted, "enforced": sparse}
    shown["names_of_trained"] = _listed(list(dict.fromkeys(run.label for run in others if run.label not in checked)))
    shown["names_of_models"] = _listed([run.name for run in models])
    shown["names_of_converted"] = _listed([run.name for run in converted])
    shown["folders_of_models"] = _folders([*models, *converted])
    shown |= {"sections": trained, "experiments": tested, "experiments_of": list(checked), "checks": bool(claimed)}
    shown["not_begun"] = sections.not_begun(checked)
    shown["scales"] = [scale for scale in dict.fromkeys(scales) if scale and scale != "paper"]
    out.write_text(_html(shown, claimed, [*models, *converted, *others], figures), encoding="utf-8")
    return out


def _labels(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: its own, with its parents' where two are the same."""
    paths = [path.resolve() for path in folders]
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise UsageError(f"{folders[0]} or another result folder is given twice: give each once")


def _training_sections(runs: list[Run]) -> list[dict[str, Any]]:
    """One section per recipe that trained: its figures by key, its runs with their tables."""
    trained = [run for run in runs if any(run.pick(what) for what in ("density", "loss", "accuracy", "num_active"))]
    names = slugs([run.name for run in trained])
    sections = []
    for recipe in dict.fromkeys(run.name for run in trained):
        same, slug = [run for run in trained if run.name == recipe], names[recipe]
        compare = len(same) > 1
        own = slugs([run.label for run in same])
        found = {"mean": training_charts.mean_density(same, f"fig1-mean-{slug}") if compare else None}
        for run in same:
            name = f"fig1-{slug}-{own[run.label]}" if compare else f"fig1-{slug}"
            found[f"layers {run.label}"] = training_charts.density_over_training(run, name, compare)
        found["end"] = training_charts.density_by_layer(same, f"fig2-{slug}")
        found["loss"] = training_charts.loss_and_accuracy(same, f"loss-{slug}")
        shown = [(run, tables.density_rows(run), tables.density_summary(run), tables.progress(run)) for run in same]
        present = {key: figure for key, figure in found.items() if figure}
        title = charts.run_title(same[0])
        sections.append({"slug": slug, "title": title, "figures": present, "runs": shown, "compare": compare})
    return sections


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence; only how many, if there are many."""
    if len(names) > 4:
        return f"{len(names)} models"
    return tables.listed(names)


def _model_name(run: Run) -> str:
    """The short name that the measurement was given, or else the last part of the model's."""
    title = str(run.config.get("title") or "").strip()
    return title or str(run.config.get("model") or run.label).rstrip("/").rsplit("/", 1)[-1]


def _folders(runs: list[Run]) -> list[tuple[str, str]]:
    """Models and their result folders, of those that the folder's name alone, or on the page already, does not tell."""
    found = []
    for run in runs:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", _model_name(run)).strip(".-")
        told = (stem, f"measure-{stem}", f"enforce-{stem}", _model_name(run))
        if run.label not in told and not run.name.endswith(f"({run.label})"):
            found.append((run.name, run.label))
    return found


def _with_model_names(runs: list[Run]) -> list[Run]:
    """Each run under its model's short name, with its folder's where two have the same."""
    names = [_model_name(run) for run in runs]
    count = Counter(names)
    shown = [f"{name} ({run.label})" if count[name] > 1 else name for name, run in zip(names, runs, strict=True)]
    return [replace(run, name=name) for name, run in zip(shown, runs, strict=True)]


def _measured_sections(runs: list[Run]) -> list[dict[str, Any]]:
    """One section per measured model, after one that compares them where there are several."""
    names, sections = slugs([run.name for run in runs]), []
    if len(runs) > 1:
        found = {"depth": measure_charts.compared_by_depth(runs, "compared")}
        sections.append({"slug": "compared", "title": "Models compared", "run": None, "charts": found})
        sections[0]["table"] = measure_tables.compared(runs)
    for run in runs:
        slug = names[run.name]
        found = {
            "shares": measure_charts.shares_by_layer(run, f"density-{slug}"),
            "kinds": measure_charts.kinds_of_token(run, f"class-token-{slug}"),
        }
        if not is_dense(layers_of(run)):
            found |= {
                "firing": measure_charts.firing_rate(run, f"firing-{slug}"),
                "tokens": measure_charts.active_per_token(run, f"tokens-{slug}"),
                "position": position_charts.density_by_position(run, f"position-{slug}"),
            }
        section = {"slug": f"model-{slug}", "title": run.name, "run": run, "charts": found}
        sections.append(section | {"table": measure_tables.by_layer(run), "summary": measure_tables.summary(run)})
        sections[-1]["origin"] = measure_tables.origin(run)
        sections[-1] |= {"warnings": measure_tables.warnings(run), "notes": measure_tables.notes(run)}
    return [section | {"figures": {k: f for k, f in section["charts"].items() if f}} for section in sections]


def _enforced_sections(runs: list[Run]) -> list[dict[str, Any]]:
    """One section per converted model, after one that compares them where there are several."""
    names, sections = slugs([run.name for run in runs]), []
    if len(runs) > 1:
        found = enforce_charts.compared(runs, "compared-quality")
        figures = {"quality": found} if found else {}
        section = {"slug": "quality-against-density", "title": "Quality against density, compared", "run": None}
        sections.append(section | {"figures": figures, "table": enforce_charts.compared_table(runs)})
    for run in runs:
        figure = enforce_charts.quality_against_density(run, f"enforced-{names[run.name]}")
        title = "Quality against density" + (f": {run.name}" if len(runs) > 1 else "")
        section = {"slug": f"quality-{names[run.name]}", "title": title, "run": run}
        section |= {"figures": {"quality": figure} if figure else {}, "table": enforce_charts.enforced_table(run)}
        section |= {"summary": enforce_charts.enforced_summary(run), "origin": enforce_charts.enforced_origin(run)}
        sections.append(section)
    return sections


def _script_json(value: Any) -> str:
    """JSON that may stand in a script element: no `</script>`, no `<!--`, no nan."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _html(shown: dict[str, Any], verdicts: dict[str, list[Verdict]], runs: list[Run], figures: list[Figure]) -> str:
    """The page of what is `shown`, of the verdicts by label, of where the runs come from and of all figures."""
    specs = {f.name: f.spec | {"description": f"{f.title}. {f.caption}"} for f in figures}
    claims = tables.claims(verdicts)
    cells = [cell for group in claims for row in group for cell in row.cells]
    return _template().render(
        **shown,
        interval_note=tables.interval_note(verdict for found in verdicts.values() for verdict in found),
        tallies={label: tables.tally(found) for label, found in verdicts.items()},
        claims=claims,
        one_each=len(verdicts) == 1 and all(len(cell) == 1 for cell in cells),
        provenance=[tables.provenance(run) for run in runs],
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
    env.filters |= {"percent": tables.percent, "number": tables.number, "shortened": tables.shortened}
    env.filters |= {"interval": tables.interval, "says_no_numbers": sections.says_no_numbers}
    return env.get_template("page.html")


@cache
def _vega() -> str:
    """The script that draws the charts, to be put in a page; bundling it takes more than a second."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", vl_version=charts.VEGALITE_VERSION)
    return bundle.replace("</script", "<\\/script")
