"""What makes a run, in plain values: no other run goes on with its store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor, uint8

from retina_codec._common.checks import BLOCK_BYTES
from retina_codec._common.version import __version__
from retina_codec.attribution.methods import Method
from retina_codec.attribution.reduction import Reduction
from retina_codec.attribution.targets import Target
from retina_codec.models.model import Model

# Data of up to so many bytes are read whole for their digest; of larger ones, stretches that
# are so many bytes together.
READ_WHOLE = 2**30
STRETCHES = 64
# Longer lists are described by their digest.
LISTED = 20


def identity_of(
    model: Model,
    data: Any,
    layers: Sequence[str],
    target: Target,
    method: Method,
    reduction: Reduction,
    **arguments: Any,
) -> dict[str, Any]:
    """Say what decides the numbers of a run of contributions, apart from its cut into batches."""
    return identity_of_run(
        model,
        data,
        layers=list(layers),
        target=_described(target),
        method=_described(method),
        split_sign=reduction.split_sign,
        sum_over=list(reduction.sum_over),
        keep_lag=reduction.keep_lag,
        **arguments,
    )


def identity_of_run(model: Model, data: Any, **arguments: Any) -> dict[str, Any]:
    """Say what decides the numbers of any run of a model over data, given its own arguments."""
    said = {
        "package version": __version__,
        "model": model.fingerprint,
        "dims": [model.sample_dim, model.output_dim],
        **described_data(data),
        **arguments,
    }
    # As it comes back from a file.
    plain: dict[str, Any] = json.loads(json.dumps(said, default=repr))
    return plain


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say in what two identities differ; nothing if they do not."""
    return ", ".join(
        f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"
        for name in dict.fromkeys([*here, *there])
        if there.get(name) != here.get(name)
    )


def described_data(data: Any) -> dict[str, str]:
    """Shape, coordinates and values of a DataArray, array or tensor, the latter as digests.

    Values are read whole up to `READ_WHOLE` bytes. Of more, `STRETCHES` are read that lie evenly
    from the first to the last sample: what changed between them goes unseen.
    """
    said = {}
    if isinstance(data, xr.DataArray):
        coords = hashlib.blake2b(digest_size=8)
        for name in sorted(data.coords, key=str):
            coords.update(f"{name}{data[name].dims}".encode())
            coords.update(_bytes(data[name].values))
        said["data dims"] = str(data.dims)
        said["data coordinates"] = coords.hexdigest()
    elif not isinstance(data, Tensor):
        data = np.asarray(data)
    shape = tuple(data.shape)
    n_bytes = int(np.prod(shape)) * data.dtype.itemsize
    values = hashlib.blake2b(digest_size=8)
    for start, stop in _parts(data, n_bytes):
        part = data[start:stop]
        values.update(_bytes(part.values if isinstance(part, xr.DataArray) else part))
    seen = "" if n_bytes <= READ_WHOLE else f", of {STRETCHES} stretches"
    return {
        "data shape": str(shape),
        **said,
        "data values": f"{str(data.dtype).removeprefix('torch.')} {values.hexdigest()}{seen}",
    }


def _parts(data: Any, n_bytes: int) -> Iterator[tuple[int, int]]:
    """Stretches of samples to be read one after the other."""
    n = len(data)
    row = max(1, n_bytes // max(1, n))
    if n_bytes > READ_WHOLE:
        length = max(1, READ_WHOLE // STRETCHES // row)
        for start in np.unique(np.linspace(0, max(0, n - length), STRETCHES).astype(int)):
            yield int(start), min(int(start) + length, n)
        return
    step = max(1, BLOCK_BYTES // row)
    if isinstance(data, xr.DataArray) and data.chunks is not None:
        # Whole chunks, so that none is computed twice.
        step = -(-step // max(data.chunks[0])) * max(data.chunks[0])
    for start in range(0, n, step):
        yield start, min(start + step, n)


def _bytes(values: Any) -> bytes | memoryview:
    if isinstance(values, Tensor):
        values = values.detach().cpu().contiguous().view(uint8).numpy()
    if values.dtype.kind in "OUT":
        return json.dumps(values.tolist(), default=str).encode()
    # Not copied where it need not be.
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _described(thing: object) -> str:
    """Name of a target's or method's type, with its fields; arrays and long lists as digests."""
    fields = ", ".join(
        f"{name}={_field(value)}" for name, value in getattr(thing, "__dict__", {}).items()
    )
    return f"{type(thing).__name__}({fields})"


def _field(value: Any) -> str:
    if isinstance(value, xr.DataArray | np.ndarray | Tensor) and value.ndim:
        said = described_data(value)
        said.pop("data shape")
        return f"array{tuple(value.shape)} {' '.join(said.values())}"
    if isinstance(value, list | tuple) and len(value) > LISTED:
        text = json.dumps(value, default=str).encode()
        return f"{len(value)} values {hashlib.blake2b(text, digest_size=8).hexdigest()}"
    if callable(value):
        # What it is printed as has its address, which is another in every process.
        return str(getattr(value, "__qualname__", type(value).__name__))
    return repr(value)
