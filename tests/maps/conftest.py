"""The small models of the tests of selections."""

from tests.enforce.conftest import stack, x

__all__ = ["stack", "x"]
