"""How many dimensions contributions fill: what is read off their principal components."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import require_array
from retina_codec._common.provenance import provenance
from retina_codec.analysis.columns import Columns, columns_of, several

# Bytes that covariances may take.
MOST_BYTES = 2e9
# Of the total variance: a component below is rounding.
ROUNDING = 1e-12
UNDEFINED = "NaN where nothing varies over the samples"


def participation_ratio(
    contribution: xr.DataArray,
    *,
    features: str | Sequence[str] | None = None,
    by: str | Sequence[str] = (),
    groups: Any = None,
) -> xr.DataArray:
    """Participation ratio of the principal components: the number of dimensions, softly counted.

    With the eigenvalues l_i of the covariance of the hidden units over the samples,

        (sum_i l_i)^2 / sum_i l_i^2

    1 if all samples lie on a line, n if they vary alike in n directions.

    Parameters
    ----------
    contribution : DataArray
        Contributions or activations, such as (time, cell, sign, channel); lazy ones are read block
        by block.
    features : str or sequence of str, optional
        Dims of the units; by default all of ``sign``, ``channel``, ``lag``, ``y``, ``x`` and
        ``token`` that there are. All other dims are samples.
    by : str or sequence of str
        Dims to take one by one instead, such as ``"cell"``.
    groups : DataArray or sequence, optional
        A label for each sample, such as its category: the means of the groups are taken for
        samples. A DataArray over one dim of `contribution`, or as many labels as samples.

    Returns
    -------
    DataArray
        Over `by`, in units of 1. NaN where nothing varies over the samples.

    Raises
    ------
    TypeError
        If `contribution` is no DataArray.
    ValueError
        If it has NaN, is empty, lacks a dim that is named, has fewer than two samples or groups,
        or more units than a covariance can be held of.

    References
    ----------
    Gao et al., bioRxiv 214262, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> c = xr.DataArray(np.vstack([np.eye(3), -np.eye(3)]), dims=("image", "channel"))
    >>> float(rc.analysis.participation_ratio(c).round(6))
    3.0
    """
    columns, spectra, n_groups = _spectra(contribution, features, by, groups)
    result = columns.labelled(ratio_of(spectra), columns.by).rename("participation_ratio")
    result.attrs = {
        "units": "1",
        "long_name": "participation ratio",
        "undefined": UNDEFINED,
        **_made("participation_ratio", columns, n_groups),
    }
    return result


def dimensionality(
    contribution: xr.DataArray,
    *,
    features: str | Sequence[str] | None = None,
    by: str | Sequence[str] = (),
    groups: Any = None,
    explained: float | Sequence[float] = (0.9, 0.95),
) -> xr.DataArray:
    """Count the principal components that hold a share of the variance over samples.

    Parameters
    ----------
    contribution : DataArray
        Contributions or activations, such as (time, cell, sign, channel); lazy ones are read block
        by block.
    features : str or sequence of str, optional
        Dims of the units; by default all of ``sign``, ``channel``, ``lag``, ``y``, ``x`` and
        ``token`` that there are. All other dims are samples.
    by : str or sequence of str
        Dims to take one by one instead, such as ``"cell"``.
    groups : DataArray or sequence, optional
        A label for each sample, such as its category: the means of the groups are taken for
        samples. A DataArray over one dim of `contribution`, or as many labels as samples.
    explained : float or sequence of float
        Shares of the variance, above 0 and at most 1.

    Returns
    -------
    DataArray
        Over `by` and ``explained``, whole numbers in units of 1. NaN where nothing varies over the
        samples.

    Raises
    ------
    TypeError
        If `contribution` is no DataArray.
    ValueError
        If it has NaN, is empty, lacks a dim that is named, has fewer than two samples or groups,
        or more units than a covariance can be held of; if a share is out of range.

    References
    ----------
    Melander et al., ICLR 2026, arXiv 2603.06557 (95 % of the variance of class means).

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> import xarray as xr
    >>> c = xr.DataArray(np.vstack([np.eye(4), -np.eye(4)]), dims=("image", "channel"))
    >>> rc.analysis.dimensionality(c, explained=(0.5, 0.9)).values
    array([2., 4.])
    """
    shares = np.atleast_1d(np.asarray(explained, dtype=np.float64))
    if shares.ndim != 1 or not shares.size or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"explained={explained!r}; expected shares above 0 and at most 1")
    columns, spectra, n_groups = _spectra(contribution, features, by, groups)
    counts = counts_of(spectra, shares)
    by_dims = columns.labelled(np.empty(len(spectra)), columns.by)
    result = xr.DataArray(
        counts.reshape(*by_dims.shape, len(shares)),
        dims=(*columns.by, "explained"),
        coords={
            **by_dims.coords,
            "explained": xr.DataArray(
                shares, dims="explained", attrs={"units": "1", "long_name": "share of variance"}
            ),
        },
        name="dimensionality",
        attrs={
            "units": "1",
            "long_name": "principal components",
            "undefined": UNDEFINED,
            **_made("dimensionality", columns, n_groups, explained=shares.tolist()),
        },
    )
    return result


def ratio_of(spectra: np.ndarray) -> np.ndarray:
    """Participation ratio of each of `spectra` (result, component); NaN where all are 0."""
    with np.errstate(invalid="ignore"):
        ratio: np.ndarray = np.square(spectra.sum(axis=1)) / np.square(spectra).sum(axis=1)
    return ratio


def counts_of(spectra: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Components (result, share) that hold shares of the variance; NaN where all are 0."""
    counts = np.full((len(spectra), len(shares)), np.nan)
    for i, spectrum in enumerate(spectra):
        if spectrum.sum() > 0:
            held = np.cumsum(np.sort(spectrum)[::-1]) / spectrum.sum()
            counts[i] = np.searchsorted(held, shares - ROUNDING) + 1
    return counts


def spectra_of_means(means: np.ndarray) -> np.ndarray:
    """Eigenvalues (result, component) of the scatter of means (result, group, unit)."""
    apart = means - means.mean(axis=1, keepdims=True)
    apart[np.abs(apart) <= 1e-14 * np.abs(means).max(axis=1, keepdims=True)] = 0.0
    return np.stack([np.linalg.svd(one, compute_uv=False) ** 2 for one in apart])


def _made(
    function: str, columns: Columns, n_groups: int | None, **parameters: Any
) -> dict[str, str]:
    return provenance(
        function=function,
        features=list(columns.features),
        by=list(columns.by),
        groups=n_groups,
        samples=columns.n_rows,
        **parameters,
    )


def _spectra(
    contribution: xr.DataArray,
    features: str | Sequence[str] | None,
    by: str | Sequence[str],
    groups: Any,
) -> tuple[Columns, np.ndarray, int | None]:
    """Eigenvalues of the covariance (by, component), ascending, rounding set to 0."""
    require_array(contribution, "contribution")
    labels = dim = None
    if groups is not None:
        dim, labels = labels_of(contribution, features, by, groups)
    columns = columns_of(contribution, features, "contribution", by=by, first=dim)
    n = columns.n_rows if labels is None else len(np.unique(labels))
    if n < 2:
        what = "sample" if labels is None else "group"
        raise ValueError(
            f"contribution has {n} {what} along {columns.rows}; principal components need at "
            "least two"
        )
    spectra = _spectra_of_samples(columns) if labels is None else _spectra_of_means(columns, labels)
    spectra[spectra < ROUNDING * spectra.sum(axis=1, keepdims=True)] = 0.0
    return columns, spectra, None if labels is None else n


def _spectra_of_samples(columns: Columns) -> np.ndarray:
    p = len(columns)
    needed = 3 * 8.0 * columns.n_by * p**2
    if needed > MOST_BYTES:
        raise ValueError(
            f"features: the covariance of {p} units for {columns.n_by} results would take "
            f"{needed / 1e9:.1f} GB; sum over places before, .sum(('y', 'x')), or take fewer units"
        )
    # Mean and sum of squares of all blocks before, joined with those of a block (Chan, Golub and
    # LeVeque, Am. Stat. 1983): one reading, without the rounding of large means.
    total, mean = 0, np.zeros((columns.n_by, p))
    scatter = np.zeros((columns.n_by, p, p))
    largest = np.zeros((columns.n_by, p))
    for _, values in columns.blocks():
        m = len(values)
        for i in range(columns.n_by):
            part = values[:, i]
            here = part.mean(axis=0)
            apart = here - mean[i]
            part = part - here
            scatter[i] += part.T @ part
            scatter[i] += np.outer(apart, apart) * (total * m / (total + m))
            mean[i] += apart * (m / (total + m))
            np.maximum(largest[i], np.abs(values[:, i]).max(axis=0), out=largest[i])
        total += m
    _drop_still(scatter, largest, total)
    return np.stack([np.linalg.eigvalsh(one) for one in scatter]).clip(min=0)


def _drop_still(scatter: np.ndarray, largest: np.ndarray, n: int) -> None:
    """Units that stay the same vary by the rounding of their mean: set that to 0."""
    spread = np.sqrt(np.diagonal(scatter, axis1=1, axis2=2) / n)
    still = spread <= 1e-14 * largest
    for one, units in zip(scatter, still, strict=True):
        one[units] = 0.0
        one[:, units] = 0.0


def _spectra_of_means(columns: Columns, labels: np.ndarray) -> np.ndarray:
    names, group = np.unique(labels, return_inverse=True)
    sums = np.zeros((columns.n_by, len(names), len(columns)))
    if sums.nbytes > MOST_BYTES:
        raise ValueError(
            f"features: the means of {len(names)} groups of {len(columns)} units would take "
            f"{sums.nbytes / 1e9:.1f} GB; sum over places before, .sum(('y', 'x'))"
        )
    counts = np.zeros(len(names))
    others = columns.n_rows // columns.array.shape[0]  # samples at each place of the first dim
    for part, values in columns.blocks():
        members = np.repeat(group[part], others)
        counts += np.bincount(members, minlength=len(names))
        one_hot = (members[None] == np.arange(len(names))[:, None]).astype(np.float64)
        for i in range(columns.n_by):
            sums[i] += one_hot @ values[:, i]
    return spectra_of_means(sums / counts[:, None])


def labels_of(
    contribution: xr.DataArray,
    features: str | Sequence[str] | None,
    by: str | Sequence[str],
    groups: Any,
) -> tuple[str, np.ndarray]:
    """Dim that groups are along, and a label at each place of it."""
    columns = columns_of(contribution, features, "contribution", by=by)
    if isinstance(groups, xr.DataArray):
        if groups.ndim != 1 or groups.dims[0] not in columns.rows:
            raise ValueError(
                f"groups has dims {tuple(groups.dims)}; expected one of the sample dims "
                f"{columns.rows}"
            )
        dim = str(groups.dims[0])
        try:
            xr.align(contribution, groups, join="exact")
        except ValueError as error:
            raise ValueError(
                f"groups has other coordinates along {dim!r} than contribution: select the same "
                "samples in both"
            ) from error
        labels = groups.values
    else:
        if len(columns.rows) != 1:
            raise ValueError(
                f"groups: samples are along {columns.rows}; give a DataArray over one of these "
                f"dims, or {several(by) or 'others'} one by one with by="
            )
        dim, labels = columns.rows[0], np.asarray(groups)
    n = contribution.sizes[dim]
    if labels.shape != (n,):
        raise ValueError(f"groups has shape {labels.shape}; expected one label for each of {n}")
    # What is not a number is not itself.
    if any(label is None or label != label for label in labels.tolist()):
        raise ValueError("groups has None or NaN: cut out the samples without a label before")
    return dim, labels if labels.dtype.kind != "O" else labels.astype(str)
