"""What all tests share: a cache of tokenized text apart from the user's, and the command line in this process."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from lazyneuron.cli import main


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("LAZYNEURON_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture
def command(monkeypatch, capfd) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`command("report", folder)` is what a `lazyneuron` that has imported all before gives and prints."""

    def called(*words):
        monkeypatch.setattr(sys, "argv", ["lazyneuron", *map(str, words)])
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, code, printed.out, printed.err)

    return called
