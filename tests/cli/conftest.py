"""Fixtures of other folders that the commands' tests share."""

from tests.enforce.conftest import build as build
from tests.enforce.conftest import checkpoints as checkpoints
from tests.enforce.conftest import console as console
from tests.enforce.conftest import options as options
from tests.exploit.conftest import kernels_run as kernels_run
from tests.load.conftest import saved as saved
