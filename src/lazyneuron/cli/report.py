"""`lazyneuron report`: its options, and what it prints."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lazyneuron.cli.options import HelpFormatter

_REPORT = """\
Build the HTML page, and each chart as PNG and SVG, from the records of one or several result folders.
One folder's page goes into it; several are compared on one page. --out PAGE.md writes the page of a folder
of `lazyneuron reproduce` in Markdown, its charts as SVG, for a repository."""


def build_parser() -> ArgumentParser:
    """The options of `lazyneuron report`."""
    parser = ArgumentParser(description=_REPORT, formatter_class=HelpFormatter)
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="result folders")
    parser.add_argument("--out", type=str | None, help="the page (default: RUN/report.html, or comparison.html)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser


def run(arguments: Namespace) -> None:
    """Carry out `lazyneuron report` and print what it found."""
    from lazyneuron.pages import write_report

    folders = [Path(run) for run in arguments.runs]
    default = folders[0] / "report.html" if len(folders) == 1 else Path("comparison.html")
    print(write_report(folders, Path(arguments.out) if arguments.out else default))
