"""A file that a fit which was killed is continued from, with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from retina_codec._common.files import written_beside

FORMAT = 1


def write_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write `state`, and what it belongs to; what stood at `path` is replaced."""
    with written_beside(path) as fresh:
        torch.save({"format": FORMAT, "identity": identity, **state}, fresh)


def read_checkpoint(path: Path, identity: str) -> dict[str, Any]:
    """Read a state; nothing but plain values and tensors is unpickled.

    Raises
    ------
    ValueError
        If the file is damaged, none of these, or of another fit.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"checkpoint={str(path)!r} is damaged or no checkpoint ({str(error)[:200]}): remove "
            "it, and the fit begins anew"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(
            f"checkpoint={str(path)!r} is no checkpoint of fit_modes of this version: name "
            "another file"
        )
    if state["identity"] != identity:
        raise ValueError(
            f"checkpoint={str(path)!r} is of a fit with other arguments or other contributions: "
            "give those of the first run, or resume=False"
        )
    return state
