"""The result of a fit: labelled dictionary and loadings, and what can be done with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors.numpy import load_file, save_file

from retina_codec._common.checks import require_array, require_choice, require_finite
from retina_codec._common.files import open_tree, save_tree, written_beside
from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.baselines import Nmf, Pca
from retina_codec.modes.codec import Codec
from retina_codec.modes.columns import Contribution, Layout, Samples
from retina_codec.modes.encoding import encoded, require_room
from retina_codec.modes.linear import L1, BatchTopK, JumpReLU, TopK
from retina_codec.modes.rows import Rows
from retina_codec.modes.scaling import ColumnScaling
from retina_codec.modes.scoring import ColumnR2, energy_shares

KINDS: dict[str, type[Autoencoder]] = {
    "topk": TopK,
    "batch_topk": BatchTopK,
    "jumprelu": JumpReLU,
    "l1": L1,
    "codec": Codec,
    "nmf": Nmf,
    "pca": Pca,
}
WEIGHTS_FILE = "autoencoder.safetensors"
LABELS_FILE = "modes.nc"
ZARR_FILE = "modes.zarr"
MEMORY_BUDGET = 2**30  # bytes of contributions that are held; more is read in blocks
LOADINGS_ATTRS = {"units": "1", "long_name": "strength of the mode"}


class Modes:
    """Contribution modes: recurring teams of hidden units, and their strength in each sample.

    Made by `fit_modes` or `load_modes`. Contributions are approximated in transformed units
    (by default each column divided by its root mean square, then the signed square root) by
    ``loadings @ dictionary + offset``; `reconstruct` undoes the transform. Modes are ordered by
    their share of the reconstructed energy.

    Attributes
    ----------
    dictionary : DataArray
        (mode, *column dims), for several layers (mode, column) with the coordinates `layer` and
        the column dims on `column`; transformed units. Atoms have unit norm, unless asked for
        otherwise and but for ``"codec"`` and ``"nmf"``.
    loadings : DataArray
        (*sample dims, mode), strength of each mode in each sample the modes were fitted to,
        held-out ones included. Not negative, except for ``autoencoder="pca"``. Lazy if they
        were written to a store.
    offset : DataArray
        (*column dims), transformed units: what is decoded when all modes are silent.
    attrs : dict
        What made the modes: package version, method and parameters.

    On `mode` stand the coordinates `energy_share` (shares add up to 1) and `active_fraction`
    (of the samples in which the mode is not 0), both over the samples of the fit.

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from retina_codec.modes import fit_modes
    >>> rng = np.random.default_rng(0)
    >>> contribution = xr.DataArray(rng.normal(size=(400, 6)) ** 3, dims=("time", "channel"))
    >>> modes = fit_modes(contribution, features="channel", n_modes=4, progress=False)
    >>> modes.dictionary.dims, modes.loadings.dims
    (('mode', 'channel'), ('time', 'mode'))
    >>> modes.reconstruct().dims
    ('time', 'channel')
    >>> float(modes.score()["l0"]) <= 2
    True
    """

    def __init__(
        self,
        *,
        autoencoder: Autoencoder,
        scaling: ColumnScaling,
        layout: Layout,
        loadings: xr.DataArray,
        scores: xr.Dataset,
    ) -> None:
        self._autoencoder = autoencoder
        self._scaling = scaling
        self._layout = layout
        self._scores = scores
        self.loadings = loadings
        self.attrs: dict[str, Any] = {
            key: value for key, value in loadings.attrs.items() if key not in LOADINGS_ATTRS
        }
        on_mode = {key: coord for key, coord in loadings.coords.items() if coord.dims == ("mode",)}
        self.dictionary = (
            layout.column_array(autoencoder.dictionary, ("mode",))
            .assign_coords(on_mode)
            .rename("dictionary")
            .assign_attrs({**self.attrs, "units": "1", "long_name": "weight in the mode"})
        )
        self.offset = layout.column_array(autoencoder.offset).rename("offset")

    def __repr__(self) -> str:
        sizes = ", ".join(f"{dim}: {n}" for dim, n in self.loadings.sizes.items())
        r2 = float(self._scores["mean_r2"])
        return f"<Modes ({sizes}), {type(self._autoencoder).__name__}, held-out r2 {r2:.3f}>"

    @property
    def column_scale(self) -> xr.DataArray:
        """What each column was divided by, (*column dims), in the contribution's units."""
        scale = self._layout.column_array(self._scaling.scale)
        return scale.rename("column_scale").assign_attrs(self.attrs)

    def transform(
        self,
        contribution: Contribution,
        *,
        store: str | os.PathLike[str] | None = None,
        memory_budget: float = MEMORY_BUDGET,
    ) -> xr.DataArray:
        """Find the loadings of other samples.

        Parameters
        ----------
        contribution : DataArray or collection of DataArray
            With the columns that the modes were fitted to; any sample dims.
        store : path, optional
            Zarr store (``.zarr``) that the loadings are written to, for more than memory holds.
        memory_budget : float
            Bytes of lazy contributions that are held at a time.

        Returns
        -------
        DataArray
            (*sample dims, mode).

        Raises
        ------
        ValueError
            If columns differ from those of the fit, or a value is NaN or infinite.
        """
        rows = Rows(self._layout.arrays(contribution), self._layout.features, memory_budget)
        n_modes = len(self._autoencoder.dictionary)
        require_room(rows, n_modes, store)
        attrs = {**self.attrs, **LOADINGS_ATTRS}
        coords = {"mode": np.arange(n_modes)}
        return encoded(self._autoencoder, self._scaling, rows, coords, attrs, store)

    def reconstruct(
        self, loadings: xr.DataArray | None = None
    ) -> xr.DataArray | dict[str, xr.DataArray]:
        """Contributions from loadings, in the contribution's own units.

        Parameters
        ----------
        loadings : DataArray, optional
            (*sample dims, mode) with all modes; those of the fit by default. Set some to 0 to
            see what the others explain.

        Returns
        -------
        DataArray, or dict of DataArray
            Labelled like the contribution that the modes were fitted to; a dict by layer if
            several were given.

        Raises
        ------
        ValueError
            If `loadings` has other modes than the dictionary, no other dim, or NaN.
        """
        matrix, samples = self._rows_of(loadings)
        decoded = self._autoencoder.decode(matrix)
        return self._layout.contributions(self._scaling.inverse(decoded), samples)

    def share(
        self, mode: int | Sequence[int], loadings: xr.DataArray | None = None
    ) -> xr.DataArray | dict[str, xr.DataArray]:
        """How much of each reconstructed contribution is owed to some of the modes.

        Modes add in transformed units, ``z_j = sum_m l_m d_mj + offset_j``; a column's share is
        ``sum over the modes asked for of l_m d_mj / z_j``, clipped to [0, 1], and 0 where nothing
        is reconstructed. Unclipped, the shares of all modes and the offset add up to 1.

        Parameters
        ----------
        mode : int or sequence of int
            Labels of the modes asked for, together.
        loadings : DataArray, optional
            (*sample dims, mode) with all modes; those of the fit by default.

        Returns
        -------
        DataArray, or dict of DataArray
            Labelled like the contribution that the modes were fitted to, from 0 to 1; a dict by
            layer if several were given.

        Raises
        ------
        ValueError
            If there is no such mode, or `loadings` does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import xarray as xr
        >>> from retina_codec.modes import fit_modes
        >>> contribution = xr.DataArray(
        ...     np.random.default_rng(0).normal(size=(300, 5)), dims=("time", "channel")
        ... )
        >>> modes = fit_modes(contribution, features="channel", n_modes=3, progress=False)
        >>> share = modes.share([0, 1, 2])
        >>> sorted(set(share.values.round(4).ravel().tolist()))
        [1.0]
        """
        matrix, samples = self._rows_of(loadings)
        numbers = self.dictionary["mode"].values
        asked = np.atleast_1d(mode)
        for label in asked.tolist():
            require_choice(label, numbers.tolist(), "mode")
        chosen = np.isin(numbers, asked)
        whole = self._autoencoder.decode(matrix)
        part = matrix[:, chosen] @ self._autoencoder.dictionary[chosen]
        share = np.divide(part, whole, out=np.zeros_like(whole), where=whole != 0).clip(0, 1)
        share[:, self._scaling.still] = 0
        labelled = self._layout.contributions(share, samples)
        about = {"units": "1", "long_name": "share of the reconstructed contribution"}
        if isinstance(labelled, dict):
            return {
                name: array.rename("share").drop_attrs(deep=False).assign_attrs(about)
                for name, array in labelled.items()
            }
        return labelled.rename("share").drop_attrs(deep=False).assign_attrs(about)

    def _rows_of(self, loadings: xr.DataArray | None) -> tuple[np.ndarray, Samples]:
        """Check loadings with all modes, and lay them out as rows (sample, mode)."""
        if loadings is None:
            loadings = self.loadings
        loadings = require_array(loadings, "loadings")
        modes = self.dictionary["mode"].values
        if "mode" not in loadings.dims or not np.array_equal(loadings["mode"].values, modes):
            raise ValueError(
                f"loadings has dims {tuple(loadings.dims)} and {loadings.sizes.get('mode', 0)} "
                f"modes; expected a dim 'mode' with all {modes.size} modes of the dictionary in "
                "order: set unwanted ones to 0 with .where(..., 0)"
            )
        require_finite(loadings, "loadings")
        dims = tuple(str(dim) for dim in loadings.dims if dim != "mode")
        loadings = loadings.transpose(*dims, "mode")
        samples = Samples(
            dims,
            loadings.shape[:-1],
            {key: c.variable for key, c in loadings.coords.items() if "mode" not in c.dims},
        )
        return loadings.values.reshape(-1, modes.size), samples

    def score(self, contribution: Contribution | None = None) -> xr.Dataset:
        """Score how well the modes reconstruct contributions.

        Parameters
        ----------
        contribution : DataArray or collection of DataArray, optional
            Contributions that the modes have not seen; all their samples count. By default the
            scores on the held-out samples of the fit are returned, of which the fit has seen
            nothing.

        Returns
        -------
        Dataset
            `r2` (*column dims): coefficient of determination of each column about its own mean,
            in the contribution's own units, NaN for constant columns; `mean_r2`: their mean;
            `l0`: mean number of modes that are not 0 in a sample; `alive`: number of modes that
            are not 0 in at least one; `held_out` (time, image or other first sample dim): which
            samples the scores were computed on; without `contribution`, `aside`: which others
            were kept out of the fit to tell when to stop.

        Raises
        ------
        ValueError
            If columns differ from those of the fit, or a value is NaN or infinite.
        """
        if contribution is None:
            return self._scores.copy()
        rows = Rows(self._layout.arrays(contribution), self._layout.features, MEMORY_BUDGET)
        tally = Tally.of(self._autoencoder, self._scaling, rows, np.ones(rows.n_first, dtype=bool))
        return tally.scores(rows.samples, self._layout).assign_attrs(self.attrs)

    def annotated(
        self, name: str, values: np.ndarray, of_values: dict[str, str], attrs: dict[str, str]
    ) -> Modes:
        """Return the same modes with a coordinate more on `mode`, and other `attrs`."""
        loadings = self.loadings.assign_coords({name: ("mode", values, of_values)})
        return Modes(
            autoencoder=self._autoencoder,
            scaling=self._scaling,
            layout=self._layout,
            loadings=loadings.assign_attrs(attrs),
            scores=self._scores.assign_attrs(attrs),
        )

    def save(self, folder: str | os.PathLike[str], *, labels: str = "netcdf") -> Path:
        """Write the modes to a folder, whole or not at all; `load_modes` reads them back.

        Parameters
        ----------
        folder : path
            Holds ``modes.nc`` (loadings, scores, labels) and ``autoencoder.safetensors``
            afterwards. A folder that modes were saved to before is replaced.
        labels : {"netcdf", "zarr"}
            With ``"zarr"`` the former is ``modes.zarr``, as suits lazy loadings.

        Returns
        -------
        pathlib.Path
            `folder`.

        Raises
        ------
        ValueError
            If `folder` exists and holds something else, or `labels` is another word.
        """
        require_choice(labels, ("netcdf", "zarr"), "labels")
        folder = Path(folder)
        if folder.exists() and not (folder / WEIGHTS_FILE).exists():
            raise ValueError(f"folder={str(folder)!r} exists and holds no modes: choose another")
        arrays = {
            **self._autoencoder.arrays(),
            "scaling.scale": self._scaling.scale,
            "scaling.constant": self._scaling.constant,
        }
        kind = next(name for name, kind in KINDS.items() if type(self._autoencoder) is kind)
        tree = {
            "/loadings": self.loadings.to_dataset(name="loadings"),
            "/scores": self._scores,
            **{f"/layers/{n}": data for n, data in self._layout.to_datasets().items()},
        }
        with written_beside(folder) as fresh:
            fresh.mkdir()
            save_file(
                {name: np.ascontiguousarray(array) for name, array in arrays.items()},
                fresh / WEIGHTS_FILE,
            )
            labelled = xr.DataTree.from_dict(tree)
            labelled.attrs = {"autoencoder": kind, "scaling": self._scaling.kind}
            save_tree(labelled, fresh / (ZARR_FILE if labels == "zarr" else LABELS_FILE))
        return folder


def load_modes(folder: str | os.PathLike[str], *, lazy: bool = False) -> Modes:
    """Read modes that `Modes.save` wrote, bit for bit.

    Parameters
    ----------
    folder : path
        The folder given to `Modes.save`.
    lazy : bool
        Leave the loadings on disk until they are used.

    Returns
    -------
    Modes
        The same dictionary, loadings, scores and attrs.

    Raises
    ------
    FileNotFoundError
        If there are no modes in `folder`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import xarray as xr
    >>> from retina_codec.modes import fit_modes
    >>> contribution = xr.DataArray(
    ...     np.random.default_rng(0).normal(size=(300, 5)), dims=("image", "channel")
    ... )
    >>> modes = fit_modes(contribution, features="channel", n_modes=3, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     same = load_modes(modes.save(f"{folder}/modes"))
    >>> same.loadings.identical(modes.loadings)
    True
    """
    folder = Path(folder)
    labels = ZARR_FILE if (folder / ZARR_FILE).exists() else LABELS_FILE
    for name in (labels, WEIGHTS_FILE):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"folder={str(folder)!r} has no {name}; expected a folder written by Modes.save"
            )
    opened = open_tree(folder / labels)
    try:
        tree = opened if lazy else opened.load()
        loadings = tree["loadings"].to_dataset()["loadings"]
        if lazy and loadings.chunks is None:
            loadings = loadings.chunk()
        arrays = load_file(folder / WEIGHTS_FILE)
        layers = tree["layers"].children
        return Modes(
            autoencoder=KINDS[tree.attrs["autoencoder"]](
                **{name: a for name, a in arrays.items() if not name.startswith("scaling.")}
            ),
            scaling=ColumnScaling(
                tree.attrs["scaling"], arrays["scaling.scale"], arrays["scaling.constant"]
            ),
            layout=Layout.from_datasets(
                [layers[str(number)].to_dataset() for number in range(len(layers))]
            ),
            loadings=loadings,
            scores=tree["scores"].to_dataset().load(),
        )
    finally:
        if not lazy:
            opened.close()


@dataclass
class Tally:
    """What a pass over all rows gathers: energy and activity of modes, and held-out errors."""

    products: np.ndarray
    n: int
    n_active: np.ndarray
    n_held: int
    n_held_active: np.ndarray
    r2: ColumnR2
    held_out: np.ndarray
    loadings: np.ndarray | None  # of all rows, where these are held

    @classmethod
    def of(
        cls, autoencoder: Autoencoder, scaling: ColumnScaling, rows: Rows, held_out: np.ndarray
    ) -> Tally:
        """Encode all `rows`; errors are those where `held_out` marks the first sample dim."""
        n_modes = len(autoencoder.dictionary)
        products = np.zeros((n_modes, n_modes))
        n_active, n_held_active = np.zeros((2, n_modes), dtype=np.int64)
        n = n_held = 0
        r2 = ColumnR2(rows.n_columns)
        for start, stop in rows.spans():
            matrix = rows.read(start, stop)
            loadings = autoencoder.encode(scaling.forward(matrix))
            products += loadings.T @ loadings
            n_active += (loadings != 0).sum(axis=0)
            n += len(matrix)
            held = np.repeat(held_out[start:stop], rows.each)
            kept = loadings[held]
            r2.add(matrix[held], scaling.inverse(autoencoder.decode(kept)))
            n_held_active += (kept != 0).sum(axis=0)
            n_held += len(kept)
        whole = loadings if rows.held else None
        return cls(products, n, n_active, n_held, n_held_active, r2, held_out, whole)

    def scores(self, samples: Samples, layout: Layout) -> xr.Dataset:
        """Scores on the held-out rows, labelled; see `Modes.score`."""
        r2 = self.r2.result()
        known = r2[np.isfinite(r2)]
        r2_array = layout.column_array(r2).assign_attrs(
            units="1", long_name="coefficient of determination about the column's own mean"
        )
        return xr.Dataset(
            {
                "r2": r2_array,
                "mean_r2": ((), known.mean() if known.size else np.nan, {"units": "1"}),
                "l0": ((), self.n_held_active.sum() / max(self.n_held, 1), {"units": "1"}),
                "alive": ((), int((self.n_held_active > 0).sum())),
                "held_out": samples.mask(self.held_out),
            }
        )


def labelled_modes(
    autoencoder: Autoencoder,
    scaling: ColumnScaling,
    layout: Layout,
    rows: Rows,
    held_out: np.ndarray,
    aside: np.ndarray,
    attrs: dict[str, str],
    store: str | os.PathLike[str] | None,
) -> Modes:
    """Order the modes of a fitted autoencoder, score the held-out samples and encode all."""
    tally = Tally.of(autoencoder, scaling, rows, held_out)
    if not tally.n_active.any():
        raise NothingActive
    shares = energy_shares(tally.products, autoencoder.dictionary)
    order = np.argsort(-shares, kind="stable")
    autoencoder = autoencoder.ordered(order)
    coords = {
        "mode": np.arange(len(order)),
        "energy_share": ("mode", shares[order], {"units": "1"}),
        "active_fraction": ("mode", tally.n_active[order] / tally.n, {"units": "1"}),
    }
    scores = tally.scores(rows.samples, layout).assign(aside=rows.samples.mask(aside))
    known = None if tally.loadings is None else np.ascontiguousarray(tally.loadings[:, order])
    loadings = encoded(
        autoencoder, scaling, rows, coords, {**attrs, **LOADINGS_ATTRS}, store, known=known
    )
    return Modes(
        autoencoder=autoencoder,
        scaling=scaling,
        layout=layout,
        loadings=loadings,
        scores=scores.assign_attrs(attrs),
    )


class NothingActive(Exception):  # noqa: N818 - said to the user in words of the fit
    """No mode is active in any sample."""
