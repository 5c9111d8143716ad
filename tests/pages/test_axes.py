"""A logarithmic axis has round ticks, reaches around its values, and has a place for zeros at its foot."""

import pytest

from lazyneuron.pages import axes


@pytest.mark.parametrize(
    ("values", "inside", "outside"),
    [([1.0, 100.0, 0, None], {1, 2, 5, 10, 100}, {3}), ([2.0, 7.0], {2, 3, 4, 5, 7}, {6}), ([1e-3, 1e3], {1, 10}, {2})],
)
def test_ticks_are_round_numbers_fewer_a_decade_over_a_wider_range(
    values: list[float], inside: set[float], outside: set[float]
) -> None:
    ticks = set(axes.log_ticks(values))
    assert inside <= ticks
    assert outside.isdisjoint(ticks)
    assert min(ticks) <= min(filter(None, values))
    assert max(ticks) >= max(filter(None, values))


@pytest.mark.parametrize(("last", "ticks"), [(13, [0, 1, 3, 10]), (2048, [0, 1, 10, 100, 1000])])
def test_counts_are_logarithmic_from_one_on(last: int, ticks: list[int]) -> None:
    axis = axes.count_axis("step", "training step", last).to_dict()
    assert axis["scale"] == {"type": "symlog", "constant": 1, "domain": [0, last], "nice": False}
    assert axis["axis"]["values"] == ticks
    assert "format" not in axis["axis"], "one format for all ticks would write 1, 10 and 1k as 0k, 0k and 1k"
    assert "'~s'" in axis["axis"]["labelExpr"]


def test_settings_have_a_tick_each_and_values_round_ones() -> None:
    assert axes.settings_axis("k", "k", [8, 2, 8]).to_dict()["axis"]["values"] == [2, 8]
    free = axes.free_log_axis([3.0, 4000.0], "perplexity", "perplexity").to_dict()
    assert free["field"] == "perplexity"
    assert {5, 1000} <= set(free["axis"]["values"])


@pytest.mark.parametrize(
    ("values", "foot"),
    [([50], 20), ([3.0, 50], 2), ([0.04], 0.02), ([2e-3], 1e-3), ([100], 20), ([], 20), ([7e-7], 1e-7)],
)
def test_a_logarithmic_axis_reaches_from_below_the_smallest_to_all(values: list[float], foot: float) -> None:
    axis = axes.log_axis([*values, None], "share").to_dict()
    assert axis["scale"]["domain"] == pytest.approx([foot, 100])
    assert axis["axis"]["values"] == sorted(axis["axis"]["values"], reverse=True)
    assert axis["axis"]["values"][-1] == foot
    assert "never" not in axis["axis"]["labelExpr"]


@pytest.mark.parametrize("value", [50, 4.0, 5.0, 0.01, 3e-5])
def test_zeros_have_a_place_of_their_own_at_the_foot_of_a_logarithmic_axis(value: float) -> None:
    axis = axes.log_axis([0.0, value], "share", "never").to_dict()
    foot = axis["scale"]["domain"][0]
    assert foot <= value / 2
    assert axis["scale"]["clamp"] is True
    assert axis["axis"]["values"][-1] == foot
    limit, rest = axis["axis"]["labelExpr"].removeprefix("datum.value < ").split(" ? ")
    assert foot < float(limit) < min([tick for tick in axis["axis"]["values"] if tick > foot])
    assert rest.startswith("'never' :")


@pytest.mark.parametrize(
    ("values", "top"),
    [
        ([8.8, 6], 10),
        ([12.0], 20),
        ([50, 3], 50),
        ([51], 100),
        ([100], 100),
        ([0.003], 0.005),
        ([0, None], 100),
        ([], 100),
    ],
)
def test_an_axis_may_end_at_the_next_round_number(values: list[float | None], top: float) -> None:
    assert axes.nice_top(values) == top
    low, high = axes.log_axis(values, "share", top=axes.nice_top(values)).to_dict()["scale"]["domain"]
    assert high == top
    assert low <= high / 5


def test_a_count_has_an_axis_of_its_own_size() -> None:
    assert axes.log_axis([30, 7000], "neurons", top=10000).to_dict()["scale"]["domain"] == [20, 10000]
