"""Numbers as texts say what they do not know, and round nothing up to all."""

import pytest

from lazyneuron.pages import prose


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "n/a"), (float("nan"), "n/a"), (0.0, "0"), (1234567.0, "1.235e+06")]
)
def test_numbers(value: float | None, shown: str) -> None:
    assert prose.number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "n/a"), (0.0, "0"), (0.1, "10"), (0.99, "99"),
        (0.9994, "99.9"), (0.9996, "99.96"), (0.99996, "over 99.99"),
        (1 - 1e-9, "over 99.99"), (1.0, "100"), (1 - 1e-15, "100"), (0.000123, "0.0123"),
    ],
)  # fmt: skip
def test_what_is_not_all_does_not_read_100_percent(value: float | None, shown: str) -> None:
    assert prose.percent(value) == (shown if value is None else f"{shown}\u00a0%")
