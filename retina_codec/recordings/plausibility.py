"""Times that are finite and ascending, and still cannot be: a wrong unit, a clock of its own."""

from __future__ import annotations

import numpy as np

from retina_codec.recordings.spikes import SpikeTimes

HIGHEST_RATE = 1000.0  # Hz: no cell fires so fast for long; its refractory period forbids it
FEWEST_SPIKES = 20  # below, a mean interval says nothing
# Spikes that last this many times as long as the stimulus are in another unit (1e3 or 1e6 times
# as long), or of another recording.
EARLY = 0.01  # of the stimulus: spikes that all lie in it were read in too small a unit
MILLI = (100.0, 1e4)
MICRO = (1e5, 1e7)


def require_plausible(spikes: SpikeTimes, onset: float, end: float) -> list[str]:
    """Note spikes that do not fit a stimulus from `onset` to `end` (seconds).

    Raises
    ------
    ValueError
        If there are no spikes at all, a cell fires faster than 1000 Hz, or spikes last so much
        longer than the stimulus that their unit must be another.
    """
    times = spikes.times
    if not times.size:
        raise ValueError(
            f"spike times: none of the {len(spikes)} cells has a spike; check that the file is "
            "that of the sorted spikes"
        )
    for number, cell in enumerate(spikes.ids):
        of_cell = spikes.of(number)
        if len(of_cell) < FEWEST_SPIKES:
            continue
        rate = (len(of_cell) - 1) / max(of_cell[-1] - of_cell[0], 1e-12)
        if rate > HIGHEST_RATE:
            raise ValueError(
                f"spike times: cell {cell!r} fires {rate:.4g} times a second between its first and "
                f"last spike ({of_cell[0]:.4g} to {of_cell[-1]:.4g} s), which no cell can; are the "
                "times in another unit than was read (seconds taken as milliseconds)? Give them "
                "in seconds, or with their unit"
            )
    last = float(times.max())
    if times.size >= FEWEST_SPIKES and 0 < last < EARLY * end and last - onset < EARLY * end:
        raise ValueError(
            f"spike times: all {times.size} spikes lie before {last:.4g} s, but the stimulus lasts "
            f"until {end:.6g} s; are they in another unit than was read (seconds taken as "
            "milliseconds)? Give them in seconds, or with their unit"
        )
    inside = float(np.mean((times >= onset) & (times < end)))
    after = float(np.mean(times >= end))
    longer = last / max(end, 1e-12)
    lie = (
        f"{100 * after:.0f} % of the spikes lie after the stimulus, which ends at {end:.6g} s "
        f"(the last spike at {last:.6g} s)"
    )
    if after > 0.5:
        for unit, (least, most) in (("milliseconds", MILLI), ("microseconds", MICRO)):
            if least < longer < most:
                raise ValueError(
                    f"spike times: {lie}; are they in {unit}? Give them in seconds, or with their "
                    "unit"
                )
    notes = []
    if inside == 0:
        before = "before" if last < onset else "outside"
        raise ValueError(
            f"spike times: all {times.size} spikes lie {before} the stimulus, which lasts from "
            f"{onset:.6g} to {end:.6g} s (spikes from {times.min():.6g} to {last:.6g} s); frame "
            "marks and spikes must be on one clock, in seconds"
        )
    if after > 0.5:
        notes.append(f"{lie}: check that frame marks and spikes are on one clock, in one unit")
    elif inside < 0.5:
        notes.append(
            f"{100 * (1 - inside - after):.0f} % of the spikes lie before the stimulus, which "
            f"begins at {onset:.6g} s: check that frame marks and spikes are on one clock"
        )
    silent = [cell for number, cell in enumerate(spikes.ids) if not spikes.of(number).size]
    if silent:
        notes.append(f"no spikes at all in {len(silent)} cells ({', '.join(silent[:5])})")
    return notes
