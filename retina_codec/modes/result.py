"""The result of a fit: labelled dictionary and loadings, and what can be done with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors.numpy import load_file, save_file

from retina_codec._common.checks import require_array, require_finite
from retina_codec._common.files import open_tree, save_tree, written_beside
from retina_codec.modes.autoencoder import Autoencoder
from retina_codec.modes.baselines import Nmf, Pca
from retina_codec.modes.columns import Contribution, Layout, Samples
from retina_codec.modes.scaling import ColumnScaling
from retina_codec.modes.scoring import energy_shares, r2_by_column
from retina_codec.modes.topk import TopK

KINDS: dict[str, type[Autoencoder]] = {"topk": TopK, "pca": Pca, "nmf": Nmf}
WEIGHTS_FILE = "autoencoder.safetensors"
LABELS_FILE = "modes.nc"
LOADINGS_ATTRS = {"units": "1", "long_name": "strength of the mode"}


class Modes:
    """Contribution modes: recurring teams of hidden units, and their strength in each sample.

    Made by `fit_modes` or `load_modes`. Contributions are approximated in transformed units
    (each column divided by its root mean square, then the signed square root) by
    ``loadings @ dictionary + offset``; `reconstruct` undoes the transform. Modes are ordered by
    their share of the reconstructed energy.

    Attributes
    ----------
    dictionary : DataArray
        (mode, *column dims), for several layers (mode, column) with the coordinates `layer` and
        the column dims on `column`; transformed units. Atoms have unit norm.
    loadings : DataArray
        (*sample dims, mode), strength of each mode in each sample the modes were fitted to,
        held-out ones included. Not negative, except for ``autoencoder="pca"``.
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

    def transform(self, contribution: Contribution) -> xr.DataArray:
        """Find the loadings of other samples.

        Parameters
        ----------
        contribution : DataArray or collection of DataArray
            With the columns that the modes were fitted to; any sample dims.

        Returns
        -------
        DataArray
            (*sample dims, mode).

        Raises
        ------
        ValueError
            If columns differ from those of the fit, or a value is NaN or infinite.
        """
        matrix, samples = self._layout.matrix(contribution)
        return self._label(self._autoencoder.encode(self._scaling.forward(matrix)), samples)

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
        matrix = self._autoencoder.decode(loadings.values.reshape(-1, modes.size))
        return self._layout.contributions(self._scaling.inverse(matrix), samples)

    def score(self, contribution: Contribution | None = None) -> xr.Dataset:
        """Score how well the modes reconstruct contributions.

        Parameters
        ----------
        contribution : DataArray or collection of DataArray, optional
            Contributions that the modes have not seen; all their samples count. By default the
            scores on the held-out samples of the fit are returned (which have also told the fit
            of ``"topk"`` when to stop).

        Returns
        -------
        Dataset
            `r2` (*column dims): coefficient of determination of each column about its own mean,
            in the contribution's own units, NaN for constant columns; `mean_r2`: their mean;
            `l0`: mean number of modes that are not 0 in a sample; `alive`: number of modes that
            are not 0 in at least one; `held_out` (time, image or other first sample dim): which
            samples the scores were computed on.

        Raises
        ------
        ValueError
            If columns differ from those of the fit, or a value is NaN or infinite.
        """
        if contribution is None:
            return self._scores.copy()
        matrix, samples = self._layout.matrix(contribution)
        loadings = self._autoencoder.encode(self._scaling.forward(matrix))
        held_out = np.ones(samples.shape[0], dtype=bool)
        return scores_of(
            matrix, loadings, held_out, samples, self._autoencoder, self._scaling, self._layout
        ).assign_attrs(self.attrs)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write the modes to a folder, whole or not at all; `load_modes` reads them back.

        Parameters
        ----------
        folder : path
            Holds ``modes.nc`` (loadings, scores, labels) and ``autoencoder.safetensors``
            afterwards. A folder that modes were saved to before is replaced.

        Returns
        -------
        pathlib.Path
            `folder`.

        Raises
        ------
        ValueError
            If `folder` exists and holds something else.
        """
        folder = Path(folder)
        if folder.exists() and not (folder / WEIGHTS_FILE).exists():
            raise ValueError(f"folder={str(folder)!r} exists and holds no modes: choose another")
        arrays = {
            **self._autoencoder.arrays(),
            "scaling.rms": self._scaling.rms,
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
            labelled.attrs["autoencoder"] = kind
            save_tree(labelled, fresh / LABELS_FILE)
        return folder

    def _label(self, loadings: np.ndarray, samples: Samples) -> xr.DataArray:
        labelled = samples.label(loadings, "mode", {"mode": np.arange(loadings.shape[1])})
        return labelled.rename("loadings").assign_attrs({**self.attrs, **LOADINGS_ATTRS})


def load_modes(folder: str | os.PathLike[str]) -> Modes:
    """Read modes that `Modes.save` wrote, bit for bit.

    Parameters
    ----------
    folder : path
        The folder given to `Modes.save`.

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
    for name in (LABELS_FILE, WEIGHTS_FILE):
        if not (folder / name).exists():
            raise FileNotFoundError(
                f"folder={str(folder)!r} has no {name}; expected a folder written by Modes.save"
            )
    with open_tree(folder / LABELS_FILE) as opened:
        tree = opened.load()
    arrays = load_file(folder / WEIGHTS_FILE)
    scaling = ColumnScaling(arrays.pop("scaling.rms"), arrays.pop("scaling.constant"))
    layers = tree["layers"].children
    return Modes(
        autoencoder=KINDS[tree.attrs["autoencoder"]](**arrays),
        scaling=scaling,
        layout=Layout.from_datasets(
            [layers[str(number)].to_dataset() for number in range(len(layers))]
        ),
        loadings=tree["loadings"].to_dataset()["loadings"],
        scores=tree["scores"].to_dataset(),
    )


def scores_of(
    matrix: np.ndarray,
    loadings: np.ndarray,
    held_out: np.ndarray,
    samples: Samples,
    autoencoder: Autoencoder,
    scaling: ColumnScaling,
    layout: Layout,
) -> xr.Dataset:
    """Scores on the rows (of `matrix` and `loadings`) that `held_out` marks on the first dim."""
    rows = np.repeat(held_out, len(matrix) // len(held_out))
    active = loadings[rows] != 0
    r2 = r2_by_column(matrix[rows], scaling.inverse(autoencoder.decode(loadings[rows])))
    known = r2[np.isfinite(r2)]
    first = samples.dims[0]
    coords = {key: coord for key, coord in samples.coords.items() if tuple(coord.dims) == (first,)}
    r2_array = layout.column_array(r2).assign_attrs(
        units="1", long_name="coefficient of determination about the column's own mean"
    )
    return xr.Dataset(
        {
            "r2": r2_array,
            "mean_r2": ((), known.mean() if known.size else np.nan, {"units": "1"}),
            "l0": ((), active.sum(axis=1).mean(), {"units": "1"}),
            "alive": ((), int(active.any(axis=0).sum())),
            "held_out": xr.DataArray(held_out, dims=first, coords=coords),
        }
    )


def labelled_modes(
    autoencoder: Autoencoder,
    scaling: ColumnScaling,
    layout: Layout,
    samples: Samples,
    matrix: np.ndarray,
    held_out: np.ndarray,
    attrs: dict[str, str],
) -> Modes:
    """Order the modes of a fitted autoencoder, encode all samples and score the held-out ones."""
    loadings = autoencoder.encode(scaling.forward(matrix))
    shares = energy_shares(loadings, autoencoder.dictionary)
    order = np.argsort(-shares, kind="stable")
    loadings, shares = np.ascontiguousarray(loadings[:, order]), shares[order]
    autoencoder = autoencoder.ordered(order)
    coords = {
        "mode": np.arange(len(order)),
        "energy_share": ("mode", shares, {"units": "1"}),
        "active_fraction": ("mode", (loadings != 0).mean(axis=0), {"units": "1"}),
    }
    labelled = samples.label(loadings, "mode", coords).rename("loadings")
    labelled.attrs = {**attrs, **LOADINGS_ATTRS}
    scores = scores_of(matrix, loadings, held_out, samples, autoencoder, scaling, layout)
    return Modes(
        autoencoder=autoencoder,
        scaling=scaling,
        layout=layout,
        loadings=labelled,
        scores=scores.assign_attrs(attrs),
    )
