"""Fixtures that tests of several rooms use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real recordings; tests of them skip where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RETINA_CODEC_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("RETINA_CODEC_DATA does not name a folder with the real recordings")
    return folder
