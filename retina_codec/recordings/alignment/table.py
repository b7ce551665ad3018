"""The table of segments: one row for each piece of a recording."""

from __future__ import annotations

import numpy as np
import xarray as xr

SEGMENT_COLUMNS = {
    "node": ("", "node of the recording"),
    "repeat": ("1", "number of the repeat, -1 where there is none"),
    "start": ("s", "start of the segment, on the clock of the recording"),
    "stop": ("s", "end of the segment"),
    "start_frame": ("1", "first frame of the segment, in its node"),
    "stop_frame": ("1", "frame of the node after the segment"),
    "correlation": ("1", "correlation of modelled rate and spikes"),
    "correlation_pooled": ("1", "correlation of drive and spikes"),
    "correlation_low": ("1", "least correlation expected"),
    "correlation_high": ("1", "largest correlation expected"),
    "best_lag_frames": ("frame", "lag that the spikes follow best"),
    "best_lag": ("s", "lag that the spikes follow best"),
    "best_lag_error": ("s", "standard error of best_lag"),
    "evidence": ("nat", "evidence that the spikes follow the frames as filed"),
    "expected_evidence": ("nat", "evidence expected where they do"),
    "state": ("", "as filed, shifted, not followed, or undetermined"),
}


def segment_table(*, cells: np.ndarray, **columns: np.ndarray) -> xr.Dataset:
    """Dataset over `segment`, with every column of SEGMENT_COLUMNS."""
    variables = {}
    for name, (units, long_name) in SEGMENT_COLUMNS.items():
        dims = ("segment", "cell") if name == "correlation" else ("segment",)
        attrs = {"long_name": long_name, **({"units": units} if units else {})}
        variables[f"segment_{name}" if name in ("node", "repeat") else name] = (
            dims,
            columns[name],
            attrs,
        )
    return xr.Dataset(variables, coords={"cell": cells})


def expected_range(values: np.ndarray) -> tuple[float, float]:
    """Median of `values` and 4 robust standard deviations to either side; NaN for fewer than 4."""
    values = values[np.isfinite(values)]
    if len(values) < 4:
        return np.nan, np.nan
    middle = float(np.median(values))
    reach = 4 * 1.4826 * float(np.median(np.abs(values - middle)))
    return middle - reach, middle + reach


def correlations(rates: np.ndarray, counts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Pearson correlation (segment, cell); NaN where one does not vary."""
    n = np.diff(np.append(edges, len(counts)))[:, None]
    x, y = rates.astype(np.float64), counts.astype(np.float64)
    sums = [np.add.reduceat(v, edges, axis=0) for v in (x, y, x * y, x * x, y * y)]
    covariance = sums[2] - sums[0] * sums[1] / n
    variances = (sums[3] - sums[0] ** 2 / n) * (sums[4] - sums[1] ** 2 / n)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(variances > 1e-9, covariance / np.sqrt(variances), np.nan)
