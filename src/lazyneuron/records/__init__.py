"""Numbers with a parent: records, verdicts, and the folder that keeps them."""

from lazyneuron.records.folder import RunFolder
from lazyneuron.records.record import Record, Source, Verdict, VerdictName, device_name

__all__ = ["Record", "RunFolder", "Source", "Verdict", "VerdictName", "device_name"]
