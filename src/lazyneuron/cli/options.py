"""What the commands share: how help looks, and the options of those that load a user's model."""

import sys
from argparse import RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, DefaultHelpFormatter

if TYPE_CHECKING:
    from rich.console import Console

_PIPED_WIDTH = 160


class HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps our line breaks, and shows defaults."""


def with_model_options(parser: ArgumentParser, verb: str) -> ArgumentParser:
    """The options of every command that loads a user's model and feeds it batches on any device."""
    parser.add_argument("--batch", type=int, default=8, help="sequences or images at a time")
    parser.add_argument("--length", type=int | None, help="tokens of a text window (default: 512 or the model's most)")
    parser.add_argument("--device", type=str | None, help="cpu, cuda, ... (default: cuda where there is one)")
    parser.add_argument("--out", type=str | None, help=f"result folder (default: runs/{verb}-MODEL)")
    return with_loading_options(parser)


def with_exploit_options(parser: ArgumentParser) -> ArgumentParser:
    """What `exploit` can do beside the MLPs, and the options of commands that load a model on the CPU."""
    parser.add_argument(
        "--head",
        type=int | None,
        help="certify the output layer's K largest logits: 1 for greedy, K for sampling from the K most likely",
        metavar="K",
    )
    parser.add_argument(
        "--projections", action="store_true", help="other linear layers on all threads too: as many bytes, read faster"
    )
    parser.add_argument("--length", type=int | None, help="tokens of a text window (default: 64)")
    return with_loading_options(parser)


def with_loading_options(parser: ArgumentParser) -> ArgumentParser:
    """The options of every command that loads a user's model."""
    parser.add_argument("--sites", type=str, default="auto", help="regular expression on the MLPs' module paths")
    parser.add_argument("--dtype", type=str | None, help="float32, bfloat16, float16 (default: the checkpoint's)")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the checkpoint")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    parser.add_argument("--config", action="config", help="a YAML file with any of these options")
    return parser


def output(is_quiet: bool = False) -> "Console":
    """Where results are printed: as wide as the terminal, or wide enough for a table where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, quiet=is_quiet)
