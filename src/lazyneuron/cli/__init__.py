"""The command line: each command is parsed here, and imported only when it runs."""

import os
import sys
import traceback
from typing import Any

from jsonargparse import ArgumentParser

from lazyneuron.cli import advise, enforce, exploit, measure
from lazyneuron.cli.options import HelpFormatter
from lazyneuron.cli.report import Report
from lazyneuron.cli.reproduce import Reproduce
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError

USAGE_FAILED, RUN_FAILED, INTERRUPTED = 2, 1, 130

_ABOUT = """\
In a trained Transformer only a few percent of the neurons of each MLP are active for any one token
("The Lazy Neuron Phenomenon", arXiv 2210.06313). lazyneuron measures that in any model, enforces it, exploits it for
speed, and checks the paper."""

_COMMANDS = {
    "measure": measure,
    "enforce": enforce,
    "advise": advise,
    "exploit": exploit,
    "reproduce": Reproduce,
    "report": Report,
}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="lazyneuron", description=_ABOUT, version=_version(), formatter_class=HelpFormatter)
    commands = parser.add_subcommands(required=True, metavar="COMMAND")
    commands.add_subcommand("measure", measure.build_parser(), help="count the active neurons of any model")
    commands.add_subcommand("enforce", enforce.build_parser(), help="make a checkpoint sparse, fine-tune, judge, save")
    commands.add_subcommand("advise", advise.build_parser(), help="what would exploiting gain, on this machine?")
    commands.add_subcommand(
        "exploit", exploit.build_parser(), help="continue a prompt dense and exploited, side by side"
    )
    commands.add_subcommand("reproduce", Reproduce.parser(), help="train, measure, judge the paper's claims")
    commands.add_subcommand("report", Report.parser(), help="records to one HTML page; compare runs")
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lazyneuron")
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Run a command; exit with 2 for wrong usage, 1 for a failure, 130 after Ctrl-C, each with one line."""
    arguments = _parser().parse_args()
    options = arguments[arguments.subcommand]
    try:
        command: Any = _COMMANDS[arguments.subcommand]
        command.of(options).run() if isinstance(command, type) else command.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(RUN_FAILED)
    except (LazyneuronError, OSError, KeyboardInterrupt) as error:
        if options.debug:
            traceback.print_exc()
        print(f"lazyneuron: {_line(error)}", file=sys.stderr)
        sys.exit(_exit_code(error))


def _line(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}: make it writable or make room, then run again to go on"
    return str(error) or "stopped; the same command goes on"


def _exit_code(error: BaseException) -> int:
    if isinstance(error, UsageError):
        return USAGE_FAILED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt | StoppedError) else RUN_FAILED
