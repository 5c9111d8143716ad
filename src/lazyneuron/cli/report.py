"""`lazyneuron report`: its options, and what it prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lazyneuron.cli.command import Command


@dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Build one HTML page, and its charts as PNG and SVG, from result folders.

    The page of one folder is written into it; several folders are compared on one page. --out PAGE.md writes the page
    of a folder of `lazyneuron reproduce` as Markdown with SVG charts, for a repository.
    """

    positional = "runs"
    runs: Annotated[tuple[str, ...], "result folders", "RUN"]
    out: Annotated[Path | None, "the page (default: RUN/report.html, or comparison.html)"] = None

    def run(self) -> None:
        from lazyneuron.paper.page import write_report

        folders = [Path(run) for run in self.runs]
        default = folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html")
        print(write_report(folders, self.out or default))
