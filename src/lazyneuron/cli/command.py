"""A command is a frozen dataclass: its fields are the options, its docstring is the help, and `run` does the work."""

import inspect
import shlex
import sys
from argparse import SUPPRESS
from dataclasses import MISSING, Field, dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from rich.console import Console

_PIPED_WIDTH = 160


@dataclass(frozen=True, kw_only=True)
class Command:
    """A field is `name: Annotated[type, help]` or `Annotated[type, help, METAVAR]`.

    The docstring's first paragraph stands in the list of commands; it and the second above the options, the rest below.
    """

    positional: ClassVar[str] = "model"
    debug: Annotated[bool, "show the traceback of a failure"] = False

    def run(self) -> None:
        """Do the work and print the results."""
        raise NotImplementedError

    @classmethod
    def parser(cls) -> "ArgumentParser":
        """The parser of this command's options; they can also be given in a YAML file."""
        from argparse import RawDescriptionHelpFormatter

        from jsonargparse import ArgumentParser, DefaultHelpFormatter

        formatter = type("Formatter", (DefaultHelpFormatter, RawDescriptionHelpFormatter), {})
        summary, about, *more = (inspect.getdoc(cls) or "").split("\n\n")
        parser = ArgumentParser(
            description=f"{summary}\n\n{about}", epilog="\n\n".join(more), formatter_class=formatter
        )
        types = get_type_hints(cls, include_extras=True)
        for name, field in cls._fields().items():
            kind, about, *metavar = types[name].__origin__, *types[name].__metadata__
            how: dict[str, Any] = {"help": about, "type": kind, "default": field.default}
            if metavar:
                how["metavar"] = metavar[0]
            if get_origin(kind) is tuple:
                how |= {"type": get_args(kind)[0], "nargs": "+", "default": []}
            if field.default is MISSING:
                how = {key: value for key, value in how.items() if key != "default"} | {"required": True}
            if kind is bool and not field.default:
                how = {"help": about, "action": "store_true"}
            if name == cls.positional:
                if not how.pop("required", False):
                    how |= {"nargs": "*", "default": SUPPRESS}
                parser.add_argument(name, **how)
            else:
                parser.add_argument(f"--{name.replace('_', '-')}", **how)
        parser.add_argument("--config", action="config", help="a YAML file with any of these options")
        return parser

    @classmethod
    def of(cls, arguments: "Namespace") -> Self:
        """The command of parsed arguments; UsageError for values that cannot be."""
        given: dict[str, Any] = {}
        for name in filter(arguments.__contains__, cls._fields()):
            given[name] = tuple(arguments[name]) if isinstance(arguments[name], list) else arguments[name]
        return cls(**given)

    @classmethod
    def _fields(cls) -> dict[str, Field[Any]]:
        """A command's own options before those that it shares with others."""
        found = {field.name: field for field in fields(cls)}
        return {name: found[name] for part in cls.__mro__ for name in inspect.get_annotations(part) if name in found}

    @property
    def command(self) -> str:
        """The command line that asks for this: every option that differs from its default."""
        words = ["lazyneuron", type(self).__name__.lower()]
        for name, field in self._fields().items():
            value = getattr(self, name)
            if value == field.default or name in ("debug", "json"):
                continue
            words += [f"--{name.replace('_', '-')}"] * (name != self.positional)
            if value is not True:
                words += _words(value)
        return shlex.join(words)


def _words(value: Any) -> list[str]:
    if isinstance(value, tuple):
        return [str(each) for each in value]
    if isinstance(value, dict):
        return [",".join(f"{key}={each:g}" for key, each in value.items())]
    return [f"{value:g}" if isinstance(value, float) else str(value).lower() if value is False else str(value)]


def output(is_quiet: bool = False) -> "Console":
    """Where results are printed: as wide as the terminal, or wide enough for a table where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, quiet=is_quiet)
