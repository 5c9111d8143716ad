"""A command is a frozen dataclass: its fields are the options, its docstring is the help, and `run` does the work."""

import inspect
import json
import shlex
import sys
from argparse import SUPPRESS, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable
from contextlib import nullcontext, redirect_stdout
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from lazyneuron.errors import UsageError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

_PIPED_WIDTH = 160
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A field is `name: Annotated[type, help]` or `Annotated[type, help, METAVAR]`.

    The first paragraph of a command's docstring stands in the list of commands; it and the second stand above the
    options in --help, the others below them.
    """

    positional: ClassVar[str] = "model"
    debug: Annotated[bool, "show the traceback of a failure"] = False

    def run(self) -> None:
        """Do the work and print the results."""
        raise NotImplementedError

    @classmethod
    def name(cls) -> str:
        return cls.__name__.lower()

    @classmethod
    def about(cls) -> list[str]:
        """The paragraphs of the help."""
        return (inspect.getdoc(cls) or "").split("\n\n")

    @classmethod
    def parser(cls) -> "ArgumentParser":
        """The parser of this command's options, on the command line or in a YAML file."""
        above, below = ("\n\n".join(part) for part in (cls.about()[:2], cls.about()[2:]))
        parser = new_parser(description=above, epilog=below)
        types = get_type_hints(cls, include_extras=True)
        for name, field in cls._fields().items():
            kind, text, *metavar = types[name].__origin__, *types[name].__metadata__
            is_required, is_many = field.default is MISSING, get_origin(kind) is tuple
            how: dict[str, Any] = {"help": text.replace("COMMAND", cls.name())}
            how |= {"metavar": metavar[0]} if metavar else {}
            if kind is bool and not field.default:
                how |= {"action": "store_true"}
            elif get_origin(kind) is Literal:
                how |= {"choices": get_args(kind)}
            else:
                how |= {"type": get_args(kind)[0] if is_many else kind}
            if name == cls.positional:
                how |= {"nargs": "+" if is_required else "*"} if is_many else {}
                how |= {} if is_required else {"default": SUPPRESS}
            else:
                name = f"--{name.replace('_', '-')}"
                how |= {"nargs": "+"} if is_many else {}
                how |= {"required": True} if is_required else {"default": [] if is_many else field.default}
            parser.add_argument(name, **how)
        parser.add_argument("--config", action="config", help="a YAML file with any of these options")
        return parser

    @classmethod
    def of(cls, arguments: "Namespace") -> Self:
        """The command from parsed arguments; UsageError for values that are out of range."""
        given: dict[str, Any] = {}
        for name in filter(arguments.__contains__, cls._fields()):
            given[name] = tuple(arguments[name]) if isinstance(arguments[name], list) else arguments[name]
        return cls(**given)

    @classmethod
    def _fields(cls) -> dict[str, Field[Any]]:
        """The positional argument, the command's own options, then those that it shares with others."""
        found = {field.name: field for field in fields(cls)}
        names = [cls.positional, *(name for part in cls.__mro__ for name in inspect.get_annotations(part))]
        return {name: found[name] for name in names if name in found}

    @property
    def command(self) -> str:
        """The command line that asks for this: the options that differ from their defaults."""
        words = ["lazyneuron", self.name()]
        for name, field in self._fields().items():
            value = getattr(self, name)
            if value == field.default or name in ("debug", "json"):
                continue
            words += [f"--{name.replace('_', '-')}"] * (name != self.positional)
            words += [] if value is True else _words(value)
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True)
class ModelCommand(Command):
    """The options of every command that loads a user's model."""

    model: Annotated[str, "the model (see below)", "MODEL"]
    json: Annotated[bool, "print the numbers as JSON, and nothing else"] = False
    sites: Annotated[str, "regular expression for the module paths of the MLPs"] = "auto"
    dtype: Annotated[str | None, "float32, bfloat16 or float16 (default: the checkpoint's)"] = None
    trust_remote_code: Annotated[bool, "run code that comes with the checkpoint"] = False

    def work(self, function: "Callable[[Self, Console], T]") -> T:
        """`function(self, console)`; with --json, whatever it or the user's own code prints goes to standard error."""
        from rich.console import Console

        with redirect_stdout(sys.stderr) if self.json else nullcontext():
            return function(self, Console(stderr=True))

    @property
    def folder(self) -> Path:
        """Where results go: `out` if given, or else a folder named after the command and the model."""
        from lazyneuron.load.models import default_folder

        return getattr(self, "out", None) or default_folder(self.name(), self.model)

    def show(self, numbers: dict[str, Any], tables: Iterable[Any], lines: Iterable[str]) -> None:
        """Print the numbers for --json, or else the tables and the lines."""
        if self.json:
            print(json.dumps({"model": self.model} | numbers, indent=1))
            return
        console = output()
        for table in tables:
            console.print(table, highlight=False)
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True)
class FeedCommand(ModelCommand):
    """The options of commands that feed a model batches on any device."""

    batch: Annotated[int, "sequences or images per batch"] = 8
    length: Annotated[int | None, "tokens per text window (default: 512 or the model's maximum)"] = None
    device: Annotated[str | None, "cpu, cuda, ... (default: cuda if available)"] = None
    out: Annotated[Path | None, "result folder (default: runs/COMMAND-MODEL)"] = None
    tokens: int

    def __post_init__(self) -> None:
        for name in ("tokens", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be 1 or more; got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ExploitCommand(ModelCommand):
    """The options of commands that exploit sparsity on the CPU."""

    text: str | None
    head: Annotated[
        int | None, "certify the K largest logits of the output layer: 1 for greedy, K to sample from K tokens", "K"
    ] = None
    projections: Annotated[bool, "run other linear layers on all threads: the same bytes, read faster"] = False
    length: Annotated[int | None, "tokens per text window (default: 64)"] = None


def new_parser(**settings: Any) -> "ArgumentParser":
    """A parser whose help keeps our line breaks, and shows types and defaults where they say something."""
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        def _expand_help(self, action: Any) -> str:
            text = super()._expand_help(action)
            return text.replace(" | null", "").replace(", default: null", "").replace(" (default: False)", "")

    return ArgumentParser(**settings, formatter_class=Formatter)


def output(is_quiet: bool = False) -> "Console":
    """Where results are printed: as wide as the terminal, or wide enough for a table where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, quiet=is_quiet)


def _words(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [",".join(f"{key}={each}" for key, each in value.items())]
    return [str(each) for each in value] if isinstance(value, tuple) else ["false" if value is False else str(value)]
