"""The options of `lazyneuron advise`."""

import pytest

from lazyneuron.cli.advise import Advise
from lazyneuron.errors import UsageError


@pytest.mark.parametrize("rows", ["", "0", "1,x", "1,,2", "-1"])
def test_wrong_rows_are_refused(rows):
    with pytest.raises(UsageError, match="--rows takes numbers"):
        Advise(model="m", rows=rows)


def test_rows_are_read():
    assert Advise(model="m", rows="1, 4,4,16").batch_sizes == (1, 4, 16)


def test_too_few_tokens_to_time_are_refused():
    with pytest.raises(UsageError, match="timing needs 3 tokens or more; got 2"):
        Advise(model="m", tokens=2)
