"""Frame marks: which are late, doubled or lost; and two clocks that saw the same pulses."""

from __future__ import annotations

import numpy as np
import xarray as xr

from retina_codec._common.checks import magnitude
from retina_codec._common.provenance import provenance
from retina_codec.recordings.binning import LATE, checked_marks

# Intervals shorter than this share of the usual one are as odd as those longer than LATE.
SHORT = 0.75
# Odd intervals with at most this many usual ones between them are one event.
APART = 3
MOST_ANCHORS = 9
PATTERN = 12
LARGEST_DRIFT = 1e-3


def describe_frame_marks(marks: object) -> xr.Dataset:
    """Tell late, lost and doubled frame marks apart.

    An odd interval is longer than 1.25 or shorter than 0.75 of the usual one. Odd intervals close
    to each other are one event, and what counts is by how many frames it moves *all later* marks:
    by none, then its long intervals ended with a `late` mark, and the next ones caught up, so that
    numbers of marks and frames still agree; by k more, then k marks are `lost` (or the display
    paused); by k fewer, then k marks are `doubled`. An event at the very end, after which no mark
    could show which it was, is not judged.

    Parameters
    ----------
    marks : array or quantity
        Times of the frame marks, ascending; plain numbers are seconds.

    Returns
    -------
    xarray.Dataset
        Over `frame`: frame_time (s); interval (s) to the next mark (NaN for the last); late
        (whether the interval after this mark is long and was caught up); lost (number of marks
        missing in the interval after this mark); doubled (whether this mark is one too many).
        attrs: frame_interval (s), the mean of the usual intervals; n_late, n_lost, n_doubled;
        text, one sentence.

    Raises
    ------
    ValueError
        If marks are not finite, negative, or do not ascend.

    Examples
    --------
    >>> import numpy as np
    >>> from retina_codec.recordings.frame_marks import describe_frame_marks
    >>> marks = np.arange(100) * 0.01
    >>> found = describe_frame_marks(np.delete(marks, 40))
    >>> found["lost"].values.nonzero()[0], found.attrs["n_late"]
    (array([39]), 0)
    """
    times = checked_marks(np.asarray(magnitude(marks, "s", "marks")))
    intervals = np.diff(times)
    median = float(np.median(intervals))
    odd = (intervals > LATE * median) | (intervals < SHORT * median)
    usual = float(intervals[~odd].mean())
    late = np.zeros(len(times), dtype=bool)
    doubled = np.zeros(len(times), dtype=bool)
    lost = np.zeros(len(times), dtype=np.int64)
    for first, last in _events(np.flatnonzero(odd)):
        part = slice(first, last + 1)
        long = first + np.flatnonzero(intervals[part] > LATE * median)
        surplus = round(float(intervals[part].sum()) / usual - (last + 1 - first))
        if surplus > 0:
            # Share the lost marks out over the long intervals, the longest first.
            missing = np.round(intervals[long] / usual).astype(np.int64) - 1
            for i in np.argsort(-missing, kind="stable"):
                taken = min(surplus, max(int(missing[i]), 1))
                lost[long[i]] = taken
                surplus -= taken
                if surplus == 0:
                    break
            late[long[lost[long] == 0]] = True
        elif surplus < 0 and last + 1 < len(intervals):
            shortest = first + np.argsort(intervals[part], kind="stable")
            doubled[shortest[:-surplus] + 1] = True
            late[long] = True
        else:
            late[long] = True
    n_late, n_lost, n_doubled = int(late.sum()), int(lost.sum()), int(doubled.sum())
    text = (
        f"{len(times)} marks, {1e3 * usual:.6g} ms apart: {n_late} late, {n_lost} lost, "
        f"{n_doubled} doubled"
    )
    return xr.Dataset(
        {
            "frame_time": ("frame", times, {"units": "s", "long_name": "time of the frame mark"}),
            "interval": (
                "frame",
                np.append(intervals, np.nan),
                {"units": "s", "long_name": "interval to the next frame mark"},
            ),
            "late": ("frame", late, {"long_name": "the next mark is late, and was caught up"}),
            "lost": ("frame", lost, {"units": "1", "long_name": "marks missing before the next"}),
            "doubled": ("frame", doubled, {"long_name": "this mark is one too many"}),
        },
        coords={"frame": np.arange(len(times))},
        attrs={
            **provenance(function="describe_frame_marks"),
            "frame_interval": usual,
            "n_late": n_late,
            "n_lost": n_lost,
            "n_doubled": n_doubled,
            "text": text,
        },
    )


def _events(odd: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each group of odd intervals."""
    if not odd.size:
        return []
    cuts = np.flatnonzero(np.diff(odd) > APART + 1) + 1
    return [(int(group[0]), int(group[-1])) for group in np.split(odd, cuts)]


def align_clocks(marks_a: object, marks_b: object, *, tolerance: object = None) -> xr.Dataset:
    """Map times of one clock to another, from pulses that both saw.

    Finds ``time_b = offset + (1 + drift) * time_a`` by matching the pattern of intervals (some
    pulses may be missing on either side), then by least squares over the matched pulses without
    those further off than 4 robust standard deviations. Drifts up to 1000 ppm are found.

    Parameters
    ----------
    marks_a, marks_b : array or quantity
        Times of the pulses on each clock, ascending; plain numbers are seconds.
    tolerance : float or quantity, optional
        Largest distance in seconds of two times of one pulse once mapped; by default a tenth of
        the shortest usual interval.

    Returns
    -------
    xarray.Dataset
        offset (s) and drift (ppm), with offset_error and drift_error (standard errors);
        intercept (s) and slope with ``time_b = intercept + slope * time_a``; residual_sd (s); and
        over `pulse`, the matched ones: index_a, index_b, residual (s). `offset` is time_b - time_a
        at the middle of the matched pulses (`offset_time`, s on clock a), where it is best known.

    Raises
    ------
    ValueError
        If marks do not ascend, are fewer than 3, cannot be matched, or can be matched in several
        ways (regular pulses of which some are missing).

    Examples
    --------
    >>> import numpy as np
    >>> from retina_codec.recordings.frame_marks import align_clocks
    >>> pulses = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 50))
    >>> found = align_clocks(pulses, 12.5 + pulses * (1 + 40e-6))
    >>> round(float(found["drift"]), 3), round(float(found["intercept"]), 6)
    (40.0, 12.5)
    """
    a, b = (_pulses(m, name) for m, name in ((marks_a, "marks_a"), (marks_b, "marks_b")))
    shortest = min(float(np.percentile(np.diff(times), 5)) for times in (a, b))
    allowed = 0.1 * shortest if tolerance is None else float(magnitude(tolerance, "s", "tolerance"))
    if not allowed > 0:
        raise ValueError(f"tolerance={tolerance!r}; expected a time above 0")
    fits = [_grown(a, b, i, j, allowed) for i, j in _anchors(a, b, allowed)]
    # One match can be found from several anchors.
    distinct = {(int(i[0]), int(j[0]), len(i)): (i, j) for i, j in fits if len(i) >= 3}
    # The most pulses first; among nearly as many, those that lie closest to a line.
    ranked = sorted(distinct.values(), key=lambda pair: -len(pair[0]))
    ranked = [pair for pair in ranked if len(pair[0]) >= 0.9 * len(ranked[0][0])]
    if not any(len(i) == len(a) == len(b) for i, _ in ranked):
        ranked.sort(key=lambda pair: _scatter(a, b, *pair))
    fewer = min(len(a), len(b))
    if not ranked or len(ranked[0][0]) < max(3, 0.5 * fewer):
        best = len(ranked[0][0]) if ranked else 0
        raise ValueError(
            f"marks_a has {len(a)} pulses and marks_b {len(b)}, of which at most {best} match "
            f"within {allowed:g} s: they are not the same pulses, or a clock drifts by more than "
            "1000 ppm; give the pulses that both clocks saw, or a larger tolerance"
        )
    i, j = ranked[0]
    complete = len(i) == len(a) == len(b)
    offset = np.median(b[j] - a[i])
    for other_i, other_j in ranked[1:]:
        elsewhere = abs(np.median(b[other_j] - a[other_i]) - offset) > 2 * allowed
        # The jitter of regular pulses agrees between clocks only if they are the same pulses.
        as_close = _scatter(a, b, other_i, other_j) < 3 * _scatter(a, b, i, j)
        if elsewhere and not complete and as_close and len(other_i) >= 0.9 * len(i):
            raise ValueError(
                f"marks_a has {len(a)} pulses and marks_b {len(b)}, which match in several ways "
                f"({len(i)} and {len(other_i)} pulses): the pulses are too regular to tell which "
                "are missing; give pulses with irregular intervals, or cut both to the same ones"
            )
    return _clock_result(a, b, i, j)


def _pulses(marks: object, argument: str) -> np.ndarray:
    times = np.asarray(magnitude(marks, "s", argument), dtype=np.float64)
    if times.ndim != 1 or len(times) < 3:
        raise ValueError(
            f"{argument} has shape {times.shape}; expected at least three pulses in one row, in "
            "seconds"
        )
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        bad = int(np.flatnonzero(~np.isfinite(times) | (np.diff(times, prepend=-np.inf) <= 0))[0])
        raise ValueError(
            f"{argument}: pulse {bad} is {times[bad]:g} s after {times[max(bad - 1, 0)]:g} s; "
            "pulses must be finite and ascend: sort them and remove doubles"
        )
    return times


def _nearest(times: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Index of the entry of `times` nearest to each of `wanted`."""
    right = np.clip(np.searchsorted(times, wanted), 1, len(times) - 1)
    return right - (wanted - times[right - 1] < times[right] - wanted)


def _anchors(a: np.ndarray, b: np.ndarray, allowed: float) -> list[tuple[int, int]]:
    """Pairs of pulses around which the patterns agree best."""
    found = []
    for i in np.unique(np.linspace(0, len(a) - 1, MOST_ANCHORS).astype(int)):
        around = a[max(0, i - PATTERN) : i + PATTERN + 1] - a[i]
        wanted = b[:, None] + around
        distance = np.abs(b[_nearest(b, wanted.ravel())].reshape(wanted.shape) - wanted)
        matched = (distance <= allowed + LARGEST_DRIFT * np.abs(around)).sum(axis=1)
        best = np.argsort(-matched, kind="stable")[:6]
        found += [(int(i), int(j)) for j in best if matched[j] >= 3]
    return found


def _grown(
    a: np.ndarray, b: np.ndarray, i: int, j: int, allowed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Grow the match of pulses i and j over both rows, refining the map on the way."""
    slope, start, reach = 1.0, b[j] - a[i], PATTERN
    pairs = np.array([i]), np.array([j])
    while True:
        near = np.arange(max(0, i - reach), min(len(a), i + reach + 1))
        wanted = start + a[i] + slope * (a[near] - a[i])
        place = _nearest(b, wanted)
        span = np.abs(a[near] - a[i])
        slack = allowed + (LARGEST_DRIFT * span if reach == PATTERN else 0)
        good = np.abs(b[place] - wanted) <= slack
        near, place = near[good], place[good]
        # Two pulses of a cannot be one of b.
        _, once = np.unique(place, return_index=True)
        near, place = near[once], place[once]
        if len(near) < 3:
            return pairs
        pairs = near, place
        slope, at = np.polyfit(a[near] - a[i], b[place], 1)
        if abs(slope - 1) > 2 * LARGEST_DRIFT:
            return near[:0], place[:0]
        start = at - a[i]
        if reach >= len(a):
            return pairs
        reach *= 2


def _scatter(a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> float:
    """Median distance of matched pulses from the line through them, in seconds."""
    x, y = a[i] - a[i].mean(), b[j] - a[i]
    return float(np.median(np.abs(y - np.polyval(np.polyfit(x, y, 1), x)))) + 1e-9


def _clock_result(a: np.ndarray, b: np.ndarray, i: np.ndarray, j: np.ndarray) -> xr.Dataset:
    kept = np.ones(len(i), dtype=bool)
    for _ in range(5):
        x, y = a[i[kept]], b[j[kept]]
        middle = float(x.mean())
        slope, centre = np.polyfit(x - middle, y - x, 1)
        residual = b[j] - a[i] - centre - slope * (a[i] - middle)
        spread = 1.4826 * np.median(np.abs(residual[kept] - np.median(residual[kept])))
        again = np.abs(residual) <= max(4 * spread, 1e-9)
        if again.sum() < 3 or (again == kept).all():
            break
        kept = again
    x = a[i[kept]] - middle
    sd = float(np.sqrt((residual[kept] ** 2).sum() / max(kept.sum() - 2, 1)))
    seconds = {"units": "s"}
    return xr.Dataset(
        {
            "offset": ((), float(centre), {**seconds, "long_name": "time_b - time_a"}),
            "offset_error": ((), sd / np.sqrt(kept.sum()), seconds),
            "offset_time": ((), middle, {**seconds, "long_name": "time on clock a of offset"}),
            "drift": ((), float(slope) * 1e6, {"units": "ppm", "long_name": "drift of clock b"}),
            "drift_error": ((), 1e6 * sd / np.sqrt((x**2).sum()), {"units": "ppm"}),
            "slope": ((), 1 + float(slope), {"units": "1"}),
            "intercept": ((), float(centre - slope * middle), seconds),
            "residual_sd": ((), sd, seconds),
            "index_a": ("pulse", i[kept], {"long_name": "number of the pulse in marks_a"}),
            "index_b": ("pulse", j[kept], {"long_name": "number of the pulse in marks_b"}),
            "residual": ("pulse", residual[kept], seconds),
        },
        attrs=provenance(function="align_clocks", n_a=len(a), n_b=len(b)),
    )
