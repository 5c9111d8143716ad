"""The folder of a run.

A folder holds `config.json` (what was asked), `records.jsonl` and `verdicts.jsonl` (what was seen), checkpoints and
`log.txt`. JSON lines are appended whole; a last line cut short by a crash is dropped with a note when it is read.
"""

import dataclasses
import functools
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.records.record import Record, Source, Verdict


def _without_defaults(item: Record) -> dict[str, Any]:
    fields = dataclasses.fields(item)
    return {f.name: v for f in fields if f.name != "source" and (v := getattr(item, f.name)) != f.default}


def _read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line; a last line without its newline is dropped with a warning."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        warnings.warn(f"{path}: dropped the last line, which a crash cut short", stacklevel=3)
    for number, line in enumerate(lines[:-1], 1):
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError("not an object")
            yield number, found
        except ValueError as error:
            raise LazyneuronError(f"{path} line {number} is damaged ({error}): remove that line, then go on") from None


def _append(path: Path, text: str) -> None:
    """Append in one write, on disk when it returns; first cut off a last line without its newline."""
    with path.open("ab+") as file:
        if end := file.tell():
            file.seek(end - 1)
            if file.read(1) != b"\n":
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class RunFolder:
    """A folder that holds one run: its config, records, verdicts, checkpoints and log.

    Opening it with a `config` creates it, or checks that it was made with that very config (`UsageError` if not), but
    for `command`: another one that goes on is added to what is kept. A folder that holds a config and no more is taken.
    Opening it without one reads a run that is there (`UsageError` if none is).
    """

    def __init__(self, path: str | Path, config: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        file = self.path / "config.json"
        if config is None:
            if not file.is_file():
                raise UsageError(f"{self.path} holds no run (no config.json): give a folder that a run wrote")
            self.config = self._read_config(file)
            return
        self.config = json.loads(json.dumps(config))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                _replace(file, json.dumps(self.config, indent=1) + "\n")
        except OSError as error:
            mend = "choose another --out or make room"
            raise UsageError(f"cannot write to {self.path} ({error.strerror}): {mend}") from error
        found = self._read_config(file)
        keys = sorted(k for k in found.keys() | self.config.keys() if found.get(k) != self.config.get(k))
        differing = ", ".join(key for key in keys if key != "command")
        if differing and any(path != file for path in self.path.iterdir()):
            raise UsageError(
                f"{self.path} holds a run with another config ({differing}): "
                "choose another --out, or remove that folder"
            )
        if keys == ["command"]:
            commands = [*found.get("command", "").split(" && "), self.config.get("command", "")]
            self.config["command"] = " && ".join(dict.fromkeys(filter(None, commands)))
        if self.config != found:
            _replace(file, json.dumps(self.config, indent=1) + "\n")

    @staticmethod
    def _read_config(file: Path) -> dict[str, Any]:
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LazyneuronError(f"{file} is damaged ({error}): remove the folder and run again") from None

    def append(self, records: Iterable[Record]) -> None:
        """Add records; their common source is written once, before the first that has it."""
        text = ""
        for record in records:
            if record.source is not None and record.source != self._last_source():
                self._source = record.source
                text += json.dumps({"source": dataclasses.asdict(record.source)}) + "\n"
            text += json.dumps(_without_defaults(record)) + "\n"
        if text:
            _append(self.path / "records.jsonl", text)

    @functools.cached_property
    def _source(self) -> Source | None:
        source = None
        for _, line in _read_lines(self.path / "records.jsonl"):
            if "source" in line:
                source = Source(**line["source"])
        return source

    def _last_source(self) -> Source | None:
        return self._source

    def records(self) -> list[Record]:
        """All records, in the order in which they were appended."""
        source, found = None, []
        path = self.path / "records.jsonl"
        for number, line in _read_lines(path):
            try:
                if "source" in line:
                    source = Source(**line["source"])
                else:
                    found.append(Record(**line, source=source))
            except TypeError as error:
                raise LazyneuronError(f"{path} line {number} is no record ({error}): remove that line") from None
        return found

    def write_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Put these verdicts in the place of all earlier ones."""
        lines = [json.dumps(dataclasses.asdict(verdict)) + "\n" for verdict in verdicts]
        _replace(self.path / "verdicts.jsonl", "".join(lines))

    def verdicts(self) -> list[Verdict]:
        """The verdicts last written; empty if none were."""
        return [Verdict(**line) for _, line in _read_lines(self.path / "verdicts.jsonl")]

    def write_recipes(self, recipes: Iterable[dict[str, Any]]) -> None:
        """Keep what each experiment is about: name, title, figure, what the paper reports, runs and settings."""
        _replace(self.path / "recipes.jsonl", "".join(json.dumps(recipe) + "\n" for recipe in recipes))

    def recipes(self) -> list[dict[str, Any]]:
        """What `write_recipes` kept; empty for other folders."""
        return [recipe for _, recipe in _read_lines(self.path / "recipes.jsonl")]

    def members(self) -> list["RunFolder"]:
        """The run folders directly below this one, by name; a saved model's folder, which has a config too, is none."""
        files = sorted(self.path.glob("*/config.json"))
        return [RunFolder(file.parent) for file in files if (file.parent / "records.jsonl").exists()]

    def log(self, text: str) -> None:
        """Add a line to log.txt: times and events, which are not part of the result."""
        _append(self.path / "log.txt", text.rstrip("\n") + "\n")

    def records_size(self) -> int:
        """Bytes of records written so far: `save_checkpoint` keeps it, `truncate_records` goes back to it."""
        path = self.path / "records.jsonl"
        return path.stat().st_size if path.exists() else 0

    def truncate_records(self, size: int) -> None:
        """Forget the records appended after the first `size` bytes (those of steps that will be run again)."""
        path = self.path / "records.jsonl"
        if self.records_size() < size:
            raise LazyneuronError(f"{path} is shorter than its checkpoint says: remove {self.path} and run again")
        if path.exists():
            os.truncate(path, size)
        self.__dict__.pop("_source", None)

    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "done").exists()

    def mark_done(self) -> None:
        """Say that the run has come to its end: it is never run again in this folder."""
        (self.path / "done").touch()

    def checkpoints(self, name: str = "checkpoint") -> list[Path]:
        """Checkpoint files, oldest first; a run of several stages calls those of each stage by another `name`."""
        return sorted(self.path.glob(f"{name}-[0-9]*.pt"))

    def save_checkpoint(self, step: int, state: dict[str, Any], keep: int = 2, name: str = "checkpoint") -> Path:
        """Write `state` for `step`, whole or not at all, and remove all but the newest `keep` of this `name`."""
        import torch

        path = self.path / f"{name}-{step:09d}.pt"
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state | {"step": step, "records_size": self.records_size()}, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        for old in self.checkpoints(name)[:-keep]:
            old.unlink()
        return path

    def load_checkpoint(self, map_location: str = "cpu", name: str = "checkpoint") -> dict[str, Any] | None:
        """The newest checkpoint's state, its `step` and `records_size` included; None if there is none."""
        import torch

        if not (found := self.checkpoints(name)):
            return None
        path = found[-1]
        try:
            with zipfile.ZipFile(path) as archive:
                if (member := archive.testzip()) is not None:
                    raise ValueError(f"{member} fails its checksum")
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:
            before = f"the run goes on from {found[-2].name}" if len(found) > 1 else "the run starts again"
            cause = str(error).splitlines()[0]
            raise LazyneuronError(f"checkpoint {path} is damaged ({cause}): remove it, and {before}") from error
