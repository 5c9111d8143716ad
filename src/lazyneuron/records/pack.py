"""A result folder of many runs as a handful of files, which `RunFolder` reads as they are."""

import json
import shutil
import zipfile
from collections.abc import Collection
from pathlib import Path

from lazyneuron.records.folder import PACKED

_BESIDE = ("config.json", "recipes.jsonl", "verdicts.jsonl")
_OF_A_RUN = ("config.json", "done", "log.txt", "records.jsonl", "recipes.jsonl", "verdicts.jsonl")
_TIME = (1980, 1, 1, 0, 0, 0)


def pack(source: Path, target: Path, every_step_of: Collection[str] | None = None) -> None:
    """Write the finished runs of `source`, without checkpoints, to one archive in `target`, config and verdicts beside.

    Runs named in `every_step_of` (None: all) keep all their records, the others those of their first and last step and
    those without a step. Packing the same runs again gives the same bytes.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in _BESIDE:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    with zipfile.ZipFile(target / PACKED, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for done in sorted(source.glob("*/done")):
            run = done.parent.name
            is_whole = every_step_of is None or run.rpartition("-seed")[0] in every_step_of
            for name in _OF_A_RUN:
                if (file := done.parent / name).exists():
                    data = file.read_bytes()
                    if name == "records.jsonl" and not is_whole:
                        data = _ends(data)
                    archive.writestr(zipfile.ZipInfo(f"{run}/{name}", _TIME), data, zipfile.ZIP_DEFLATED, 9)


def _ends(data: bytes) -> bytes:
    """The records of the first and the last step and of no step, and the lines that say where they come from."""
    lines = [(line, json.loads(line)) for line in data.splitlines(keepends=True)]
    steps = [record["step"] for _, record in lines if record.get("step") is not None]
    kept = {0, max(steps, default=0), None}
    return b"".join(line for line, record in lines if "source" in record or record.get("step") in kept)
