"""Fixtures of the pages' tests that the paper's pages share."""

from tests.pages.conftest import checked as checked
from tests.pages.conftest import data as data
from tests.pages.conftest import make_folder as make_folder
from tests.pages.conftest import points as points
from tests.pages.conftest import runs as runs
