"""One cache of tokenized text for the whole session, apart from the user's."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("LAZYNEURON_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
