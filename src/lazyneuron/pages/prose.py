"""Numbers and lists as texts."""

import math
from collections.abc import Sequence

from lazyneuron.pages.charts import rounded


def percent(fraction: float | None) -> str:
    """A fraction as percent for prose."""
    if fraction is None or rounded(fraction) is None:
        return "n/a"
    shown = almost_all(fraction).replace(">", "over ") or f"{100 * fraction:.3g}"
    return f"{shown}\u00a0%"


def almost_all(fraction: float) -> str:
    """A percentage that three digits would round up to 100, with two decimals and below it; "" for all others."""
    if not 99.95 <= 100 * fraction < 100 - 1e-9:
        return ""
    return f"{100 * fraction:.2f}" if 100 * fraction < 99.995 else ">99.99"


def listed(texts: Sequence[str]) -> str:
    """Texts in a sentence: "a, b and c"."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def number(value: float | None) -> str:
    """A number for a table cell, to four digits."""
    return "n/a" if value is None or rounded(value) is None else f"{value:.4g}"


def integer(value: float) -> str:
    return f"{value:,.0f}"


def share(value: float) -> str:
    """A fraction in percent to three digits, trailing zeros too, so that a column of them is even."""
    size = 100 * abs(value)
    decimals = max(0, 2 - math.floor(math.log10(float(f"{size:.3g}")))) if size else 0
    return almost_all(value) or f"{100 * value:.{decimals}f}"


def decimal(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"
