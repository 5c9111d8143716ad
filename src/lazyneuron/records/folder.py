"""The folder of a run, as the run writes it or packed.

A folder holds `config.json` (what was asked), `records.jsonl` and `verdicts.jsonl` (what was measured), checkpoints and
`log.txt`. JSON lines are appended whole; reading drops a last line that a crash cut short, with a warning. A folder of
several runs can keep them in one archive, `members.zip` (see `records.pack`): it is read in the same way, not written.
"""

import dataclasses
import functools
import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lazyneuron.errors import LazyneuronError, UsageError
from lazyneuron.records.record import Record, Source, Verdict

PACKED = "members.zip"


def _without_defaults(item: Record) -> dict[str, Any]:
    fields = dataclasses.fields(item)
    return {f.name: v for f in fields if f.name != "source" and (v := getattr(item, f.name)) != f.default}


def _read_lines(path: Path | zipfile.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line; a last line without its newline is dropped with a warning."""
    if not path.exists():
        return
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        warnings.warn(f"{path}: dropped the last line, which a crash cut short", stacklevel=3)
    for number, line in enumerate(lines[:-1], 1):
        try:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise ValueError("not an object")
            yield number, content
        except ValueError as error:
            raise LazyneuronError(f"{path} line {number} is damaged ({error}): remove that line and continue") from None


@functools.lru_cache(maxsize=8)
def _archive(path: Path, changed: int) -> zipfile.Path:
    """A packed folder's runs, in memory; `changed` is the file time, so that a changed file is read again."""
    archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
    archive.filename = str(path)
    return zipfile.Path(archive)


def _unpacked(folder: Path) -> zipfile.Path | None:
    """The archive of the runs in `folder`, if it is packed."""
    path = folder / PACKED
    try:
        return _archive(path, path.stat().st_mtime_ns) if path.is_file() else None
    except zipfile.BadZipFile as error:
        raise LazyneuronError(f"{path} is damaged ({error}): get that file again") from None


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


def cache_folder() -> Path:
    """What can be made again is kept here: $LAZYNEURON_CACHE, or `lazyneuron` below the user's cache folder."""
    if named := os.environ.get("LAZYNEURON_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lazyneuron"


def write_whole(path: Path, text: str) -> None:
    """Write a file as a whole or, if that fails, not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class RunFolder:
    """A folder that holds one run: its config, records, verdicts, checkpoints and log.

    Opening it with a `config` creates it, or checks that it was made with that config (`UsageError` if not), except for
    `command`: a different command is added to those kept. A folder that holds nothing but a config is taken over.
    Opening it without one reads an existing run (`UsageError` if there is none), from a packed folder too.
    """

    def __init__(self, path: str | Path, config: dict[str, Any] | None = None) -> None:
        self.path = Path(path)
        self._files: Path | zipfile.Path = self.path
        file = self.path / "config.json"
        if config is None:
            if not file.is_file() and (archive := _unpacked(self.path.parent)) is not None:
                self._files = archive / self.path.name
            if not (self._files / "config.json").is_file():
                raise UsageError(f"{self.path} holds no run (no config.json): give a folder that a run wrote")
            self.config = self._read_config()
            return
        self.config = json.loads(json.dumps(config))
        if (self.path / PACKED).exists():
            raise UsageError(
                f"{self.path} is packed, so nothing can be added to it: choose another --out, or unpack {PACKED} there "
                "and remove it"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                write_whole(file, json.dumps(self.config, indent=1) + "\n")
        except OSError as error:
            raise UsageError(
                f"cannot write to {self.path} ({error.strerror}): choose another --out or make room"
            ) from error
        kept = self._read_config()
        keys = sorted(k for k in kept.keys() | self.config.keys() if kept.get(k) != self.config.get(k))
        differing = ", ".join(key for key in keys if key != "command")
        if differing and any(path != file for path in self.path.iterdir()):
            raise UsageError(
                f"{self.path} holds a run with another config ({differing}): "
                "choose another --out, or remove that folder"
            )
        if keys == ["command"]:
            commands = [*kept.get("command", "").split(" && "), self.config.get("command", "")]
            self.config["command"] = " && ".join(dict.fromkeys(filter(None, commands)))
        if self.config != kept:
            write_whole(file, json.dumps(self.config, indent=1) + "\n")

    def _read_config(self) -> dict[str, Any]:
        file = self._files / "config.json"
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise LazyneuronError(f"{file} is damaged ({error}): remove the folder and run again") from None

    def _to_write(self, name: str) -> Path:
        """The file of this name, to be written; UsageError for a run in a packed folder."""
        if self._files is not self.path:
            raise UsageError(
                f"{self.path} is packed in {self.path.parent / PACKED}, which is only read: unpack it first"
            )
        return self.path / name

    def append(self, records: Iterable[Record]) -> None:
        """Add records; their common source is written once, before the first that has it."""
        text = ""
        for record in records:
            if record.source is not None and record.source != self._source:
                self._source = record.source
                text += json.dumps({"source": dataclasses.asdict(record.source)}) + "\n"
            text += json.dumps(_without_defaults(record)) + "\n"
        if text:
            _append(self._to_write("records.jsonl"), text)

    @functools.cached_property
    def _source(self) -> Source | None:
        """The source of the last record."""
        lines = [line for _, line in _read_lines(self._files / "records.jsonl") if "source" in line]
        return Source(**lines[-1]["source"]) if lines else None

    def records(self) -> list[Record]:
        """All records, in the order in which they were appended."""
        source, records = None, []
        path = self._files / "records.jsonl"
        for number, line in _read_lines(path):
            try:
                if "source" in line:
                    source = Source(**line["source"])
                else:
                    records.append(Record(**line, source=source))
            except TypeError as error:
                raise LazyneuronError(f"{path} line {number} is no record ({error}): remove that line") from None
        return records

    def write_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Replace all earlier verdicts by these."""
        lines = [json.dumps(dataclasses.asdict(verdict)) + "\n" for verdict in verdicts]
        write_whole(self._to_write("verdicts.jsonl"), "".join(lines))

    def verdicts(self) -> list[Verdict]:
        """The verdicts last written; empty if none were."""
        return [Verdict(**line) for _, line in _read_lines(self._files / "verdicts.jsonl")]

    def write_recipes(self, recipes: Iterable[dict[str, Any]]) -> None:
        """Keep what each experiment is about: name, title, figure, what the paper reports, runs and settings."""
        write_whole(self._to_write("recipes.jsonl"), "".join(json.dumps(recipe) + "\n" for recipe in recipes))

    def recipes(self) -> list[dict[str, Any]]:
        """What `write_recipes` kept; empty for other folders."""
        return [recipe for _, recipe in _read_lines(self._files / "recipes.jsonl")]

    def members(self) -> list["RunFolder"]:
        """The run folders directly below this one, packed or not, by name; a saved model's folder holds no records."""
        folders: list[Path | zipfile.Path] = [file.parent for file in self.path.glob("*/config.json")]
        if (archive := _unpacked(self.path)) is not None:
            folders += [entry for entry in archive.iterdir() if (entry / "config.json").exists()]
        names = {folder.name for folder in folders if (folder / "records.jsonl").exists()}
        return [RunFolder(self.path / name) for name in sorted(names)]

    def log(self, text: str) -> None:
        """Add a line to log.txt: times and events, which are not part of the result."""
        _append(self._to_write("log.txt"), text.rstrip("\n") + "\n")

    def records_size(self) -> int:
        """Bytes of records written so far: `save_checkpoint` keeps it, `truncate_records` goes back to it."""
        path = self.path / "records.jsonl"
        return path.stat().st_size if path.exists() else 0

    def truncate_records(self, size: int) -> None:
        """Forget the records appended after the first `size` bytes (those of steps that will be run again)."""
        path = self._to_write("records.jsonl")
        if self.records_size() < size:
            raise LazyneuronError(f"{path} is shorter than its checkpoint says: remove {self.path} and run again")
        if path.exists():
            os.truncate(path, size)
        self.__dict__.pop("_source", None)

    def is_done(self) -> bool:
        """Whether the run is complete."""
        return (self._files / "done").exists()

    def mark_done(self) -> None:
        """Mark the run as complete: it is never run again in this folder."""
        self._to_write("done").touch()

    def checkpoints(self, name: str = "checkpoint") -> list[Path]:
        """Checkpoint files, oldest first; each stage of a run has its own `name` for them."""
        return sorted(self.path.glob(f"{name}-[0-9]*.pt"))

    def save_checkpoint(self, step: int, state: dict[str, Any], keep: int = 2, name: str = "checkpoint") -> Path:
        """Write `state` for `step`, whole or not at all, and remove all but the newest `keep` of this `name`."""
        import torch

        path = self._to_write(f"{name}-{step:09d}.pt")
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

        if not (paths := self.checkpoints(name)):
            return None
        path = paths[-1]
        try:
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise ValueError(f"{damaged} fails its checksum")
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:
            then = f"the run continues from {paths[-2].name}" if len(paths) > 1 else "the run starts again"
            cause = str(error).splitlines()[0]
            raise LazyneuronError(f"checkpoint {path} is damaged ({cause}): remove it, and {then}") from error
