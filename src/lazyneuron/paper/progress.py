"""How far runs are: sent by each run, shown together as bars in a terminal and as plain lines elsewhere."""

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_SECONDS_BETWEEN_LINES = 20.0


@dataclass(frozen=True)
class Progress:
    """How far a run is: shown while it goes, never kept.

    `density` holds one fraction per layer, as last measured; a `warning` gets a line of its own.
    """

    name: str
    step: int
    num_steps: int
    loss: float | None = None
    density: tuple[float, ...] = ()
    note: str = ""
    warning: str = ""


@dataclass
class Display:
    """Shows the progress of several runs; a context manager."""

    console: Console
    _bars: Bars = field(init=False)
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _shown: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._bars = Bars(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.__exit__(kind, error, traceback)

    def update(self, progress: Progress) -> None:
        """Move the run's bar, or print a line: at its start, its end, and now and then between."""
        if progress.warning:
            self.console.print(f"{progress.name}: {progress.warning}", highlight=False, markup=False, soft_wrap=True)
            return
        text = _text(progress)
        if self.console.is_terminal:
            if progress.name not in self._tasks:
                self._tasks[progress.name] = self._bars.add_task(progress.name, text="")
            task = self._tasks[progress.name]
            self._bars.update(task, completed=progress.step, total=progress.num_steps, text=text)
            return
        now, at_end = time.monotonic(), progress.step in (0, progress.num_steps)
        if at_end or now - self._shown.get(progress.name, -_SECONDS_BETWEEN_LINES) >= _SECONDS_BETWEEN_LINES:
            self._shown[progress.name] = now
            line = f"{progress.name} {progress.step}/{progress.num_steps} {text}".rstrip()
            self.console.print(line, highlight=False, soft_wrap=True)

    def done(self, name: str, num_done: int, num_all: int) -> None:
        """Say that a run has come to its end, and take its bar away."""
        if name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        self.console.print(f"{name} is done ({num_done} of {num_all})", highlight=False, soft_wrap=True)


def _text(progress: Progress) -> str:
    parts = [progress.note] if progress.note else []
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.2f}")
    if progress.density:
        parts.append("density % " + " ".join(f"{100 * d:.0f}" for d in progress.density))
    return " ".join(parts)
