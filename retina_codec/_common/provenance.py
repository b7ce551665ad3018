"""What made a result: attrs that every file format can hold."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from retina_codec._common.version import __version__


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return repr(value)


def provenance(**parameters: Any) -> dict[str, str]:
    """Attrs of a result: the package version, and the parameters as one JSON string.

    Files cannot hold dicts, booleans or None as attrs, so all of it is one string.
    """
    return {
        "retina_codec_version": __version__,
        "parameters": json.dumps(parameters, default=_plain, sort_keys=True),
    }
