"""A run folder: which stages are finished, under which settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retina_codec._common.files import written_beside
from retina_codec._common.version import __version__

STAGES_FILE = "stages.json"


class RunFolder:
    """A folder of results, and a record of what made each.

    A stage is finished if it ended under the same settings, after the same stages before it, by
    the same version of the package. Nothing is written before a stage has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not path.is_dir():
            raise ValueError(f"folder={str(path)!r} is a file; give the name of a folder")
        if path.is_dir() and any(path.iterdir()) and not (path / STAGES_FILE).is_file():
            raise ValueError(
                f"folder={str(path)!r} holds files that no run made: give an empty or a new folder"
            )
        file = path / STAGES_FILE
        self._keys: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}
        self._current: dict[str, str] = {}

    def key(self, stage: str, settings: Any, after: Sequence[str]) -> str:
        """Key of a stage under these settings; stages that it comes after must have theirs."""
        text = json.dumps(
            [__version__, stage, settings, [self._current[name] for name in after]], default=vars
        )
        self._current[stage] = hashlib.sha256(text.encode()).hexdigest()[:16]
        return self._current[stage]

    def finished(self, stage: str, key: str) -> bool:
        """Whether the stage has ended under this key."""
        return self._keys.get(stage) == key

    def finish(self, stage: str, key: str) -> None:
        """Record that the stage has ended."""
        self._keys[stage] = key
        with written_beside(self.path / STAGES_FILE) as fresh:
            fresh.write_text(json.dumps(self._keys, indent=1))
