"""The command line: each command is parsed here; what its work needs is imported when it runs."""

import os
import sys
import traceback
from typing import TYPE_CHECKING

from lazyneuron.cli.advise import Advise
from lazyneuron.cli.command import Command, new_parser
from lazyneuron.cli.enforce import Enforce
from lazyneuron.cli.exploit import Exploit
from lazyneuron.cli.measure import Measure
from lazyneuron.cli.report import Report
from lazyneuron.cli.reproduce import Reproduce
from lazyneuron.errors import LazyneuronError, StoppedError, UsageError, explained_imports

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

USAGE_FAILED, RUN_FAILED, INTERRUPTED = 2, 1, 130

_ABOUT = """\
In a trained Transformer only a few percent of the neurons of each MLP are active for any one token
("The Lazy Neuron Phenomenon", arXiv 2210.06313). lazyneuron measures that in any model, enforces it, exploits it for
speed, and checks the paper."""

_COMMANDS: dict[str, type[Command]] = {
    command.name(): command for command in (Measure, Enforce, Advise, Exploit, Reproduce, Report)
}


def _parser() -> "ArgumentParser":
    parser = new_parser(prog="lazyneuron", description=_ABOUT, version=_version())
    commands = parser.add_subcommands(required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        commands.add_subcommand(name, command.parser(), help=command.about()[0].removesuffix("."))
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lazyneuron")
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Run a command; exit with 2 for wrong usage, 1 for a failure, 130 after Ctrl-C, each with one line."""
    is_debug = "--debug" in sys.argv
    try:
        with explained_imports("the command line"):
            arguments = _parser().parse_args()
        name = arguments.subcommand
        is_debug = arguments[name].debug
        with explained_imports(name, "paper" if name == "reproduce" else None):
            _COMMANDS[name].of(arguments[name]).run()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(RUN_FAILED)
    except (LazyneuronError, OSError, KeyboardInterrupt) as error:
        if is_debug:
            traceback.print_exc()
        print(f"lazyneuron: {_line(error)}", file=sys.stderr)
        sys.exit(_exit_code(error))


def _line(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}: make it writable or free some space, then run again to resume"
    return str(error) or "stopped; the same command resumes"


def _exit_code(error: BaseException) -> int:
    if isinstance(error, UsageError):
        return USAGE_FAILED
    return INTERRUPTED if isinstance(error, KeyboardInterrupt | StoppedError) else RUN_FAILED
