"""Axes that charts share: logarithmic ones with round ticks, training steps, layers from left to right or downwards."""

import math
from collections.abc import Iterable

import altair as alt

from lazyneuron.pages.charts import Row

PLAIN = "format(datum.value, ',~g')"


def log_ticks(values: Iterable[float | None]) -> list[float]:
    """Round numbers around the positive values, as many in a decade as their range allows."""
    positive = [value for value in values if value and value > 0] or [1.0]
    low, high = min(positive), max(positive)
    digits = (1, 1.5, 2, 3, 4, 5, 7) if high < 10 * low else (1, 2, 5) if high <= 5000 * low else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in digits]


def log_axis(
    values: Iterable[float | None], title: str, zero: str = "0", top: float = 100, field: str = "value"
) -> alt.Y:
    """A logarithmic axis up to `top`; zeros, which have no place on it, stand at its foot under `zero`."""
    known = [value for value in values if value is not None]
    has_zeros = 0 in known
    least = min([*(value for value in known if value > 0), top / 5]) / (2 if has_zeros else 1)
    ticks = sorted((tick for tick in log_ticks([least, top]) if tick <= top), reverse=True)
    foot = next(tick for tick in ticks if tick <= least)
    label = f"datum.value < {1.01 * foot:.3g} ? '{zero}' : {PLAIN}" if has_zeros else PLAIN
    axis = alt.Axis(values=[tick for tick in ticks if tick >= foot], labelExpr=label, labelOverlap=True)
    scale = alt.Scale(type="log", domain=[foot, top], clamp=True, nice=False)
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=axis)


def free_log_axis(values: Iterable[float | None], title: str, field: str = "value") -> alt.Y:
    """A logarithmic axis of positive values that ends where they do."""
    axis = alt.Axis(values=log_ticks(values), labelExpr=PLAIN, labelOverlap=True)
    return alt.Y(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)


def settings_axis(field: str, title: str, settings: Iterable[float], form: str = ",~g") -> alt.X:
    """A logarithmic axis of the settings that were run, with a tick at each."""
    axis = alt.Axis(values=sorted(set(settings)), format=form, labelOverlap=True, grid=False)
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=12), axis=axis)


def count_axis(field: str, title: str, last: float) -> alt.X:
    """Counts from 0 to `last`, such as training steps: logarithmic from 1 on."""
    digits = (1, 3) if last < 1000 else (1,)
    ticks = [0, *(digit * 10**power for power in range(len(str(int(last)))) for digit in digits)]
    label = "format(datum.value, '~s')"
    axis = alt.Axis(values=[tick for tick in ticks if tick <= last], labelExpr=label, labelOverlap=True, grid=False)
    scale = alt.Scale(type="symlog", constant=1, domain=[0, last], nice=False)
    return alt.X(f"{field}:Q", title=title, scale=scale, axis=axis)


def step_axis(last: int) -> alt.X:
    """Training steps from 0 to `last`."""
    return count_axis("step", "training step", last)


def layer_axis(is_relative: bool = False) -> alt.X:
    """Layers by their number in `layer`, or by their relative depth in percent, `depth`."""
    if is_relative:
        axis = alt.Axis(values=[0, 25, 50, 75, 100], grid=False)
        return alt.X("depth:Q", title="depth (%, 0 is the first layer and 100 the last)", axis=axis)
    return alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0, grid=False, labelOverlap=True))


def row_axis(rows: list[Row], field: str, top: float = -0.5) -> alt.Y:
    """Layers from top to bottom by `row`, each labelled with its number."""
    numbers = dict(sorted((row["row"], row["layer"]) for row in rows))
    labels = f"{list(numbers.values())}[indexof({list(numbers)}, datum.value)]"
    scale = alt.Scale(domain=[max(numbers) + 0.5, top], nice=False, zero=False)
    axis = alt.Axis(values=list(numbers), labelExpr=labels, grid=False, ticks=False, domain=False, titlePadding=14)
    return alt.Y(f"{field}:Q", title="layer", scale=scale, axis=axis)


def nice_top(values: Iterable[float | None]) -> float:
    """The least of 1, 2 and 5 times a power of ten that no percentage exceeds: where an axis of them may end."""
    largest = max((value for value in values if value), default=100.0)
    power = math.floor(math.log10(largest))
    return min(100.0, next(top for digit in (1, 2, 5, 10) if (top := float(f"{digit}e{power}")) >= largest))
