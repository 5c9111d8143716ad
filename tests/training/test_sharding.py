"""What the processes of one training do when they end."""

import subprocess
import sys

import pytest

SCRIPT = """
import atexit
from torch import distributed
from lazyneuron.training.sharding import leave_at_exit

atexit.register(lambda: print("initialised:", distributed.is_initialized()))
leave_at_exit()
leave_at_exit()
if {initialises}:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
"""


@pytest.mark.parametrize("initialises", [True, False])
def test_a_process_leaves_its_group_before_python_ends(initialises):
    script = SCRIPT.format(initialises=initialises)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "initialised: False\n"), ended.stderr
    assert "Traceback" not in ended.stderr
