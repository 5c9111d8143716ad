"""Fixtures of other folders that the tests of training share."""

from tests.enforce.conftest import build as build
from tests.enforce.conftest import checkpoints as checkpoints
from tests.enforce.conftest import console as console
from tests.enforce.conftest import options as options
from tests.enforce.conftest import stack as stack
from tests.paper.conftest import cache as cache
from tests.paper.conftest import corpus as corpus
from tests.paper.conftest import small_run as small_run
from tests.paper.conftest import small_t5 as small_t5
from tests.paper.conftest import small_vit as small_vit
