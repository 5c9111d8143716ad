"""The errors a user meets."""

from collections.abc import Iterator
from contextlib import contextmanager

_EXTRA_OF = {
    "PIL": "cli",
    "accelerate": "paper",
    "altair": "cli",
    "datasets": "hub",
    "gguf": "gguf",
    "huggingface_hub": "cli",
    "jinja2": "cli",
    "jsonargparse": "cli",
    "lightning": "lightning",
    "narwhals": "frames",
    "polars": "frames",
    "rich": "cli",
    "scipy": "paper",
    "sentencepiece": "cli",
    "sklearn": "cli",
    "tensorboard": "tensorboard",
    "transformers": "cli",
    "vl_convert": "cli",
}


class LazyneuronError(Exception):
    """A failure that is reported in one line: the thing, the value, and what to do about it."""


class UsageError(LazyneuronError):
    """The request cannot be carried out; the message names the argument, file or folder to change."""


class StoppedError(LazyneuronError):
    """The user stopped the work; its state is saved."""


@contextmanager
def explained_imports(who: str, extra: str | None = None) -> Iterator[None]:
    """Turn a missing optional dependency into one line: what `who` needs, and the extra that installs it.

    `extra` overrides the smallest extra that brings the module, for those that need more than it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRA_OF:
            raise
        raise UsageError(f"{who} needs {module}: pip install 'lazyneuron[{extra or _EXTRA_OF[module]}]'") from error
