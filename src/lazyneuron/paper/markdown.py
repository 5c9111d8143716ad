"""The page of a reproduction in Markdown, for a repository: claims, and each experiment's charts and numbers."""

import re
from collections.abc import Sequence
from pathlib import Path

import jinja2

from lazyneuron.pages import charts, claims_table, lines
from lazyneuron.pages.prose import number
from lazyneuron.pages.section import Section
from lazyneuron.records.folder import RunFolder

_HERE = Path(__file__).parent


def write_markdown(folder: Path, top: RunFolder, sections: Sequence[Section], not_begun: list[str], out: Path) -> Path:
    """Write the page of the result folder `top`, named `folder` on it, to `out`; return `out`.

    The charts are SVG files in a folder of the page's name. What opens at a click on the HTML page is left out.
    """
    chart_folder = out.with_suffix("")
    chart_folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for figure in section.parts[0].figures:
            charts.save(figure, chart_folder, ("svg",))
    env = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True)
    env.undefined = jinja2.StrictUndefined
    env.filters |= {"number": number, "seen": lines.seen}
    env.filters |= {"interval": claims_table.interval, "bootstrap": claims_table.bootstrap}
    env.filters |= {"cell": _cell, "anchor": _anchor, "still": _still}
    verdicts = top.verdicts()
    page = env.get_template("page.md").render(
        config=top.config,
        lines=lines.lines({folder.name: verdicts}),
        claim_tables=claims_table.claim_tables({folder.name: verdicts}),
        tally=claims_table.tally(verdicts),
        sections=sections,
        not_begun=not_begun,
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
