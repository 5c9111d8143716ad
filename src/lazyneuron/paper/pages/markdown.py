"""The page of a reproduction in Markdown, for a repository: claims, and each experiment's charts and numbers."""

import re
from pathlib import Path

import jinja2

from lazyneuron.errors import UsageError
from lazyneuron.pages import charts, tables
from lazyneuron.pages.slugs import slugs
from lazyneuron.paper.pages import sections
from lazyneuron.paper.pages.experiment import experiments, is_checked, runs_of
from lazyneuron.records.folder import RunFolder

_HERE = Path(__file__).parent


def write_markdown(folder: Path, out: Path) -> Path:
    """Write the page of a result folder of `lazyneuron reproduce` to `out`, its charts beside it.

    The charts are SVG files in a folder of the page's name. Charts and tables that wait for a click on the HTML page
    are left out. Returns `out`; raises `UsageError` for a folder of another kind.
    """
    top = RunFolder(folder)
    if not is_checked(top):
        raise UsageError(
            f"{folder} is no result folder of lazyneuron reproduce: its page is HTML, give --out PAGE.html"
        )
    verdicts = top.verdicts()
    found = experiments(top.recipes(), runs_of(folder.name, top), verdicts)
    shown = sections.sections({folder.name: found}, slugs)
    chart_folder = out.with_suffix("")
    chart_folder.mkdir(parents=True, exist_ok=True)
    for section in shown:
        for figure in section.parts[0].figures:
            charts.save(figure, chart_folder, ("svg",))
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True)
    env.undefined = jinja2.StrictUndefined
    env.filters |= {"number": tables.number, "interval": tables.interval, "says_no_numbers": sections.says_no_numbers}
    env.filters |= {"cell": _cell, "anchor": _anchor, "still": _still}
    page = env.get_template("page.md").render(
        config=top.config,
        claims=tables.claims({folder.name: verdicts}),
        tally=tables.tally(verdicts),
        interval_note=tables.interval_note(verdicts),
        sections=shown,
        not_begun=sections.not_begun({folder.name: found}),
        folder=folder.as_posix(),
        charts=chart_folder.name,
    )
    out.write_text(page, encoding="utf-8")
    return out


def _cell(text: str) -> str:
    """A text that stays within its cell, and no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _still(caption: str) -> str:
    """A caption without what it says of clicking."""
    return re.sub(r" ?Click [^.]*\.", "", caption)


def _anchor(title: str) -> str:
    """Where a heading's link leads, by GitHub's rule."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
