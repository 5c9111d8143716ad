"""Texts as parts of file names."""

import re
from collections.abc import Sequence


def slugs(texts: Sequence[str]) -> dict[str, str]:
    """A different file name part for each text, of letters, digits, dots, dashes and underscores."""
    found: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:60] or "run"
        found[text] = next(
            s for n in range(len(texts) + 1) if (s := stem + f"-{n + 1}" * bool(n)) not in found.values()
        )
    return found
