"""`check_alignment`: whether the stimulus of a recording is what was shown, when."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_count, require_finite
from retina_codec._common.provenance import provenance
from retina_codec._common.time import bin_width_of, runs_of
from retina_codec.recordings.alignment.continuous import (
    Outcome,
    check_sequence,
    default_history,
)
from retina_codec.recordings.alignment.findings import Finding, findings_table, span_text
from retina_codec.recordings.alignment.frozen import wrong_blocks
from retina_codec.recordings.alignment.repeated import check_repeats
from retina_codec.recordings.alignment.sequence import Sequence, analysed_together
from retina_codec.recordings.frame_marks import describe_frame_marks
from retina_codec.recordings.nodes import require_node, response_of
from retina_codec.recordings.plan import FrozenNoise

DEFAULT_MAX_SHIFT = 30


def check_alignment(
    recording: xr.DataTree | xr.Dataset,
    *,
    node: str | None = None,
    plan: FrozenNoise | None = None,
    history: int | None = None,
    max_shift: int = DEFAULT_MAX_SHIFT,
    segment: int | None = None,
) -> xr.Dataset:
    """Check from stimulus and spikes alone that each frame is what was shown, when.

    A linear-nonlinear model is fitted to every cell on several parts of the recording, and the
    part whose model explains most of the recording is the reference, so that wrong frames anywhere
    cannot hide themselves. For every frame t and shift d, the evidence that the spikes follow frame
    t - d of the file is the Poisson log likelihood ratio to a constant rate with the local mean
    (gain may drift), with models that never saw the spikes they judge, and divided by the
    overdispersion of this recording. Dynamic programming then finds the most likely story: which
    frames the spikes follow, where the lag jumps, which frames they do not follow; clocks that
    drift are a line through the lags. Repeats are each compared with the mean of the others.

    A recording is "undetermined" where the spikes carry too little evidence to notice if a quarter
    of the frames were wrong: few spikes, cells that a linear filter does not drive, repeats that
    do not agree. A constant delay between frames and spikes that a retina could have is no finding.
    Fewer than 4 repeats of a node are not compared: the verdict is that of the rest of the
    recording, and the reason says so; without a rest it is "undetermined".

    Parameters
    ----------
    recording : xarray.DataTree or xarray.Dataset
        An opened recording, or one of its nodes, with stimulus(time, [color,] y, x) and
        spike_count(time, cell), or with spike_count(repeat, time, cell). Of a recording all such
        nodes are checked; nodes of one kind are taken together in order of time. Its ``/frames``,
        if it has them, are described too.
    node : str, optional
        Check only this node of the recording.
    plan : FrozenNoise, optional
        The repeats in a stimulus that was opened without its plan, as one run: blocks of the file
        whose frozen frames are not those of most blocks are wrong from their first frame on.
    history : int, optional
        Frames that a response reaches back; by default 0.4 s.
    max_shift : int
        Largest shift to look for, in frames, at least 3.
    segment : int, optional
        Frames of a row of the table; by default as many as carry clear evidence.

    Returns
    -------
    xarray.Dataset
        ``attrs["verdict"]``: "aligned", "misaligned" or "undetermined"; ``attrs["reason"]``, in
        words; ``attrs["smallest_shift"]`` (frames) and ``attrs["shortest_stretch"]`` (s): what
        would have been seen in every part of the recording that decided the verdict (0 and NaN
        where nothing would).

        Over `segment` (pieces of the recording, repeats): segment_node, segment_repeat, start, stop
        (s), start_frame, stop_frame, correlation(segment, cell) of modelled rate and spikes,
        correlation_pooled with its expected range correlation_low, correlation_high;
        best_lag_frames, best_lag and best_lag_error (s; NaN where not told; against the first
        frames that are followed); evidence and expected_evidence (nats); state.

        Over `finding`: kind ("not_followed", "shift", "drift", "offset", "plan",
        "repeat_not_followed", "repeat_shift"; as notes without alarm "weakly_followed",
        "late_marks", "lost_marks", "doubled_marks"), alarm, finding_node, finding_repeat,
        first_frame, last_frame (of the node), first_time, last_time (s), shift (frames by which the
        file is ahead), drift and drift_error (ppm), text.

        Over `frame`, if the recording has frame marks: frame_time, interval, late, lost, doubled.

    Raises
    ------
    TypeError
        If `recording` is no recording, or a number is not whole.
    ValueError
        If there is no such node, nothing to check (no spike counts: rates, traces and potentials
        are not checked), the stimulus or the counts have NaN, or the plan does not fit.

    References
    ----------
    Chichilnisky, Network 12:199 (2001), for the model; Viterbi, IEEE Trans. Inf. Theory 13:260
    (1967), for the dynamic programming.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from retina_codec._common.time import time_coordinate
    >>> from retina_codec.recordings.alignment.check import check_alignment
    >>> rng = np.random.default_rng(0)
    >>> flicker = rng.normal(size=20_000)
    >>> drive = np.convolve(flicker, [0, 0.3, 0.8, 0.5, -0.4])[:20_000]
    >>> counts = rng.poisson(0.2 * np.exp(drive))
    >>> node = xr.Dataset(
    ...     {
    ...         "stimulus": (("time", "y", "x"), np.delete(flicker, 9000)[:, None, None]),
    ...         "spike_count": (("time", "cell"), counts[:-1, None]),
    ...     },
    ...     coords={"time": time_coordinate(np.arange(19_999) * 0.01, 0.01), "cell": ["C1"]},
    ... )
    >>> found = check_alignment(node)
    >>> found.attrs["verdict"], str(found["kind"].values[0]), float(found["shift"][0])
    ('misaligned', 'shift', 1.0)
    """
    if not (plan is None or isinstance(plan, FrozenNoise)):
        raise TypeError(
            f"plan is a {type(plan).__name__}; expected FrozenNoise(running_frames=..., "
            "frozen_frames=...) or None"
        )
    max_shift = require_count(max_shift, 3, "max_shift")
    if history is not None:
        history = require_count(history, 1, "history")
    if segment is not None:
        segment = require_count(segment, 4, "segment")
    nodes = _nodes_of(recording, node)
    once = {name: data for name, data in nodes.items() if "repeat" not in data["spike_count"].dims}
    outcomes = []
    for group in analysed_together(once):
        sequence = Sequence.of(group)
        outcomes.append(
            check_sequence(
                sequence,
                history=history or default_history(sequence.bin_width),
                max_shift=max_shift,
                segment=segment,
            )
        )
    if plan is not None:
        outcomes = _with_plan(outcomes, once, plan)
    outcomes += [
        check_repeats(data, name, max_shift=max_shift)
        for name, data in nodes.items()
        if name not in once
    ]
    parameters = provenance(
        function="check_alignment",
        node=node,
        plan=None if plan is None else asdict(plan),
        history=history,
        max_shift=max_shift,
        segment=segment,
    )
    return _assembled(outcomes, _marks_of(recording), parameters)


def _nodes_of(recording: object, node: str | None) -> dict[str, xr.Dataset]:
    """Nodes to check, by name, validated."""
    if isinstance(recording, xr.Dataset):
        _require_counts(recording, "recording")
        name = node or "node"
        return {name: _checked(recording, "recording")}
    if not isinstance(recording, xr.DataTree):
        raise TypeError(
            f"recording is a {type(recording).__name__}; expected an opened recording "
            "(xarray.DataTree) or one of its nodes (DataTree or Dataset)"
        )
    if "spike_count" in recording.data_vars:
        return {str(recording.name or "node"): _checked(recording, "recording")}
    _require_counts(recording, "recording")
    able = [
        str(name)
        for name, child in recording.children.items()
        if "spike_count" in child.data_vars
        and ("stimulus" in child.data_vars or "repeat" in child["spike_count"].dims)
    ]
    if node is not None:
        if node in recording.children:
            _require_counts(recording[node], f"recording[{node!r}]")
        if node not in able:
            raise ValueError(f"node={node!r}; {nearest_names(node, able)}")
        able = [node]
    if not able:
        for name, child in recording.children.items():
            _require_counts(child, f"recording[{name!r}]")
        raise ValueError(
            f"recording has no node with stimulus and spike_count; it has "
            f"{', '.join(map(str, recording.children)) or 'no nodes'}: give an opened recording"
        )
    return {name: _checked(recording[name], f"recording[{name!r}]") for name in able}


def _require_counts(node: object, argument: str) -> None:
    """Raise ValueError where a node holds responses that are no spikes."""
    name = response_of(node)
    if name not in (None, "spike_count"):
        raise ValueError(
            f"{argument} holds {name!r} and no 'spike_count': check_alignment weighs what spikes "
            "say of each frame, and cannot check other responses; give a node with spike_count"
        )


def _checked(node: object, argument: str) -> xr.Dataset:
    data = require_node(node, argument)
    require_finite(data["spike_count"], f"{argument}['spike_count']")
    if "repeat" not in data["spike_count"].dims:
        data = require_node(node, argument, variables=("stimulus", "spike_count"))
    elif "repeat" not in data.coords:
        data = data.assign_coords(repeat=np.arange(data.sizes["repeat"]))
    if not data.sizes["cell"] or not data.sizes["time"]:
        raise ValueError(
            f"{argument} has {data.sizes['cell']} cells and {data.sizes['time']} frames; expected "
            "at least one of each"
        )
    return data


def _with_plan(
    outcomes: list[Outcome], once: dict[str, xr.Dataset], plan: FrozenNoise
) -> list[Outcome]:
    """Add the blocks whose frozen frames are wrong; what spikes say of them becomes one finding."""
    if len(once) != 1:
        raise ValueError(
            f"plan is given for {len(once)} nodes ({', '.join(once) or 'none without repeats'}); "
            "it belongs to one: name it with node="
        )
    (name, data), (outcome,) = next(iter(once.items())), outcomes
    if len(runs_of(data)) != 1:
        raise ValueError(
            f"plan is given, but {name} is in {len(runs_of(data))} runs already; give the "
            "recording as one run (opened without its plan)"
        )
    time, width = data["time"].values, bin_width_of(data)
    findings = list(outcome.findings)
    reference, wrong = wrong_blocks(data["stimulus"], plan)
    for first, stop in wrong:
        inside = [
            f
            for f in findings
            if f.kind == "not_followed" and f.first_frame < stop and f.last_frame >= first
        ]
        span = (first, stop - 1, float(time[first]), float(time[stop - 1] + width))
        text = (
            f"{span_text(*span)}: the frozen frames of the file are not those of the other "
            f"blocks of the plan (such as block {reference}), so this is not what was shown"
        )
        if inside:
            text += f"; {inside[0].text}"
        findings = [f for f in findings if f not in inside]
        findings.append(Finding("not_followed" if inside else "plan", name, *span, text))
    findings.sort(key=lambda f: f.first_frame)
    alarms = [f.text for f in findings if f.alarm]
    if not alarms:
        return [outcome]
    return [replace(outcome, findings=findings, verdict="misaligned", reason="; ".join(alarms))]


def _marks_of(recording: object) -> xr.Dataset | None:
    if isinstance(recording, xr.DataTree) and "frames" in recording.children:
        frames = recording["frames"]
        if "frame_time" in frames.data_vars and frames.sizes["frame"] > 1:
            return describe_frame_marks(frames["frame_time"].values)
    return None


def _mark_findings(marks: xr.Dataset) -> list[Finding]:
    found = []
    texts = {
        "late": "marks came late and were caught up: counts in the bins around them are unsure",
        "lost": "marks are missing: the display paused or marks were lost",
        "doubled": "marks are too many: a frame was cut short or a mark doubled",
    }
    times = marks["frame_time"].values
    for name, text in texts.items():
        where = np.flatnonzero(marks[name].values)
        if where.size:
            listed = ", ".join(map(str, where[:12])) + (", ..." if where.size > 12 else "")
            found.append(
                Finding(
                    f"{name}_marks", "frames", int(where[0]), int(where[-1]),
                    float(times[where[0]]), float(times[where[-1]]),
                    f"{int(marks[name].values.sum())} {text} (after mark {listed})", alarm=False,
                )
            )  # fmt: skip
    return found


def _assembled(
    outcomes: list[Outcome], marks: xr.Dataset | None, parameters: dict[str, str]
) -> xr.Dataset:
    findings = [finding for outcome in outcomes for finding in outcome.findings]
    segments = [outcome.segments for outcome in outcomes]
    table = segments[0] if len(segments) == 1 else xr.concat(segments, "segment", join="outer")
    table = table.isel(segment=np.argsort(table["start"].values, kind="stable"))
    verdicts = [outcome.verdict for outcome in outcomes]
    for verdict in ("misaligned", "undetermined", "aligned"):
        if verdict in verdicts:
            break
    else:
        verdict = "undetermined"
    unchecked = [o for o in outcomes if o.verdict == "unchecked"]
    deciding = [o for o in outcomes if o.verdict == verdict] or unchecked
    reason = "; ".join(o.reason for o in deciding)
    if unchecked and deciding is not unchecked:
        reason += "; not checked: " + "; ".join(o.reason for o in unchecked)
    notes = _mark_findings(marks) if marks is not None else []
    if notes and verdict == "undetermined":
        reason += "; " + "; ".join(note.text for note in notes)
    found = table.assign(findings_table([*findings, *notes]))
    if marks is not None:
        found = found.merge(marks, combine_attrs="drop")
    found.attrs = {
        **parameters,
        "verdict": verdict,
        "reason": reason,
        # The worst of those that decided; 0 and NaN are where nothing would have been seen.
        "smallest_shift": max((o.smallest_shift for o in deciding), key=lambda s: s or np.inf),
        "shortest_stretch": float(np.max([o.shortest_stretch for o in deciding])),
    }
    return found
