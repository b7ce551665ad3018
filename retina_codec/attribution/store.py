"""The store that a run is streamed into: a template, then block by block.

While a run is going on, all of it is in the folder ``NAME.zarr.unfinished``: the Zarr store, what
the run is (``run.json``), and a file for every block that is done. The finished store is renamed
to ``NAME.zarr``, so that a store which is there is whole.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dask.array as da
import xarray as xr
import zarr

from retina_codec._common.files import tree_format, with_string_labels, written_beside
from retina_codec.attribution.block_run import BlockRun
from retina_codec.attribution.cutting import Cut, chunks_of
from retina_codec.attribution.identity import differences

# Attribute of a store that says what it is of.
RECORD = "run"
# Seconds between looks at what other processes do, and of silence that are waited for.
LOOK = 0.2
PATIENCE = 600.0


def require_zarr(path: Path) -> None:
    """Raise ValueError unless `path` names a Zarr store."""
    if tree_format(path, "store") != "zarr":
        raise ValueError(
            f"store={str(path)!r}: netCDF cannot be written by blocks that a killed run resumes; "
            "use a name ending in .zarr, or leave store out and write the result with "
            "retina_codec.save_tree"
        )


def unfinished(path: Path) -> Path:
    """Folder beside a store in which it is being made."""
    return path.with_name(f"{path.name}.unfinished")


class Store:
    """Where one run is written, by one process or several.

    Parameters
    ----------
    path : pathlib.Path
        Of the Zarr store to be.
    identity : dict
        What the run is, of plain values; see `identity.identity_of`.
    batch_size : int, optional
        That was asked for.
    overwrite : bool
        Replace a store of another run.
    kind : type of BlockRun
        What is written.
    """

    def __init__(
        self,
        path: Path,
        identity: dict[str, Any],
        batch_size: int | None,
        overwrite: bool,
        kind: type[BlockRun],
    ) -> None:
        self.path = path
        self._identity = identity
        self._batch_size = batch_size
        self._overwrite = overwrite
        self._kind = kind
        self._room = unfinished(path)
        self._zarr = self._room / "store.zarr"
        self._done = self._room / "done"
        self._alive = self._room / "alive"

    # What is there

    def is_finished(self) -> bool:
        """Say whether the whole run is there; ValueError if something else is, not to be replaced.

        Something that holds no such results is never replaced.
        """
        if not _is_there(self.path):
            return False
        try:
            record = _record_of(self.path, self._kind.files)
        except (OSError, ValueError) as error:
            if not _is_there(self.path):
                return False  # another process is replacing it
            raise ValueError(
                f"store={str(self.path)!r} exists and holds no {self._kind.what}; it is not "
                "replaced: choose another path, or move it away"
            ) from error
        what = "it was not written with store=, and does not say what it is of"
        if record is not None:
            what = self._difference(record)
        if what and not self._overwrite:
            raise ValueError(
                f"store={str(self.path)!r} holds another run: {what}. Choose another path, or "
                f"overwrite=True to replace it; {self._kind.opened_by} opens it as it is"
            )
        return not what

    def is_begun(self) -> bool:
        """Say whether the run was begun; ValueError if another was, not to be replaced."""
        if not self._room.exists():
            return False
        try:
            record = json.loads((self._room / "run.json").read_text())
        except (OSError, ValueError) as error:
            if not self._room.exists():
                return False  # finished in the meantime
            raise ValueError(
                f"store={str(self.path)!r}: {self._room} is in the way, and is no folder of an "
                "unfinished run: move it away"
            ) from error
        what = self._difference(record)
        if what and not self._overwrite:
            raise ValueError(
                f"store={str(self.path)!r}: {self._room} is an unfinished run of another kind: "
                f"{what}. Give what the first run was given to go on with it, choose another "
                "path, or overwrite=True to drop it"
            )
        return not what

    def _difference(self, record: Mapping[str, Any]) -> str:
        there, here = dict(record["identity"]), dict(self._identity)
        if self._batch_size is not None:
            there["batch_size"], here["batch_size"] = record["cut"]["batch_size"], self._batch_size
        return differences(there, here)

    def is_done(self, block: int) -> bool:
        """Say whether a block is written."""
        return self._mark(block).exists()

    def n_done(self) -> int:
        """Count blocks that are written."""
        return len(list(self._done.glob("[0-9]*"))) if self._done.exists() else 0

    def unresolved(self) -> int:
        """Count samples that stayed above the tolerance, in all blocks."""
        marks = [json.loads(mark.read_text()) for mark in self._done.glob("[0-9]*")]
        return sum(int(mark["unresolved"]) for mark in marks)

    def _mark(self, block: int) -> Path:
        return self._done / f"{block:06d}"

    # Making it

    def create(self, cut: Cut, groups: Mapping[str, xr.Dataset]) -> None:
        """Write the template; if another process did so at the same time, take the other's."""
        if self.is_begun():
            return
        self.require_space(groups, 1.0)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._room.exists():
            shutil.rmtree(self._room)  # of another run: `is_begun` has asked whether it may
        beside = Path(tempfile.mkdtemp(prefix=f".{self._room.name}.", dir=self.path.parent))
        fresh = beside / self._room.name
        record = {"identity": self._identity, "cut": asdict(cut)}
        try:
            _write_template(groups, fresh / "store.zarr", cut.block_size, json.dumps(record))
            (fresh / "done").mkdir()
            (fresh / "alive").touch()
            (fresh / "run.json").write_text(json.dumps(record))
            try:
                fresh.rename(self._room)
            except OSError:
                if not self._room.exists():
                    raise
        except OSError as error:
            raise self._failed("its template", error) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def cut(self) -> Cut | None:
        """Say how the run was cut when it was begun; None if it is finished by now."""
        try:
            return Cut(**json.loads((self._room / "run.json").read_text())["cut"])
        except FileNotFoundError:
            if self.is_finished():
                return None
            raise

    def require_space(self, groups: Mapping[str, xr.Dataset], share: float) -> None:
        """Raise OSError if a share of the run does not fit the disk."""
        needed = share * sum(group.nbytes for group in groups.values())
        place = next(p for p in self.path.absolute().parents if p.exists())
        free = shutil.disk_usage(place).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"store={str(self.path)!r}: the result takes up to {needed / 1e9:.3g} GB, and "
                f"{free / 1e9:.3g} GB are free there: use another disk, {self._kind.smaller}, or "
                "a shorter stretch of data",
            )

    def write(
        self,
        block: int,
        groups: Mapping[str, xr.Dataset],
        region: dict[str, slice],
        unresolved: int,
    ) -> None:
        """Write a block, then mark it as done; OSError if the disk is full."""
        try:
            for path, group in groups.items():
                group.to_zarr(
                    self._zarr, group=path or None, region=region, zarr_format=2, consolidated=False
                )
            with written_beside(self._mark(block)) as fresh:
                fresh.write_text(json.dumps({"unresolved": unresolved}))
        except OSError as error:
            if not self.is_finished():  # by another process that made the same run
                raise self._failed(f"block {block}", error) from error

    def _failed(self, what: str, error: OSError) -> OSError:
        return OSError(
            error.errno or errno.EIO,
            f"store={str(self.path)!r}: {what} could not be written ({error}). The "
            f"{self.n_done()} blocks that are done stay in {self._room}: make room, and call "
            "again with the same arguments to go on",
        )

    def finish(self) -> None:
        """Make the store whole: gather its metadata, and rename it to its place."""
        try:
            zarr.consolidate_metadata(str(self._zarr), zarr_format=2)
            if _is_there(self.path):
                self.path.rename(self._room / "replaced")
            self._zarr.rename(self.path)
        except OSError as error:
            if not self.is_finished():  # by another process that made the same run
                raise self._failed("its end", error) from error
        self.tidy()

    def tidy(self) -> None:
        """Remove what a finished run leaves, and processes that wrote when it was finished."""
        if not (self._zarr / ".zgroup").exists():
            shutil.rmtree(self._room, ignore_errors=True)

    # Several processes

    def show_alive(self) -> None:
        """Tell the processes that wait for this one that it works."""
        with suppress(OSError):
            os.utime(self._alive)

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Wait until other processes have done something.

        Raises
        ------
        TimeoutError
            If for a long while no process shows that it works.
        """
        pulse, since = self._pulse(), time.monotonic()
        while not ready():
            time.sleep(LOOK)
            before, pulse = pulse, self._pulse()
            if pulse != before:
                since = time.monotonic()
            if time.monotonic() - since > PATIENCE:
                raise TimeoutError(
                    f"store={str(self.path)!r}: {what}, and no process has done anything for "
                    f"{PATIENCE:g} s. Are all of them running this call, with the same arguments? "
                    "What is done is kept: call again to go on, or with process=(0, 1) to do it "
                    "in one process"
                )

    def _pulse(self) -> tuple[int, int]:
        try:
            return self._alive.stat().st_mtime_ns, self.n_done()
        except OSError:
            return 0, 0


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _record_of(path: Path, files: tuple[str, ...]) -> dict[str, Any] | None:
    """Read what a finished store is of, if it says so; an error if it lacks one of these files."""
    for part in files:
        (path / part).read_text()
    attrs = json.loads((path / ".zattrs").read_text())
    record: dict[str, Any] | None = json.loads(attrs[RECORD]) if RECORD in attrs else None
    return record


def lazy_template(run: BlockRun) -> dict[str, xr.Dataset]:
    """Give the groups of a run as they are to be stored: all coordinates, arrays without memory."""
    groups = run.template(lambda shape, dtype: da.zeros(shape, dtype=dtype, chunks=-1))
    shared = groups[""].coords
    # Variables, because a coordinate brings those along its dim with it.
    indexed = {name: shared[str(name)].variable for name in shared.indexes}
    between = {path.split("/")[0]: xr.Dataset() for path in groups if "/" in path}
    whole = {"": groups.pop(""), **between, **groups}
    return {path: _with_plain_coords(group.assign_coords(indexed)) for path, group in whole.items()}


def _with_plain_coords(group: xr.Dataset) -> xr.Dataset:
    """Take coordinates into memory, without how an earlier file held them."""
    coords = {name: coord.variable.copy(deep=False).load() for name, coord in group.coords.items()}
    for variable in coords.values():
        variable.encoding = {}
    return group.assign_coords(coords)


def _write_template(
    groups: Mapping[str, xr.Dataset], place: Path, block_size: int, record: str
) -> None:
    for path, group in groups.items():
        labelled = with_string_labels(group)
        if not path:
            labelled = labelled.assign_attrs({RECORD: record})
        labelled.to_zarr(
            place,
            group=path or None,
            mode="a",
            compute=False,
            zarr_format=2,
            consolidated=False,
            encoding={
                name: {
                    "chunks": chunks_of((block_size, *array.shape[1:]), array.dtype.itemsize),
                }
                for name, array in group.data_vars.items()
            },
        )
