"""Fixtures that tests of several rooms use."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run, so that a failure is of the change that it follows; others with
# --hypothesis-profile=explore.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("repeatable")

# The networks of the tests are small: threads that wait for each other on a busy machine take
# many times as long as one. It must be said before NumPy and PyTorch are loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real recordings; tests of them skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RETINA_CODEC_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("RETINA_CODEC_DATA does not name a folder with the real recordings")
    return folder
