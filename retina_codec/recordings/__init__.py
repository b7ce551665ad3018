"""Recordings in: spikes, frame marks and movie become one labelled tree.

What belongs here: reading recorded cells from files (`formats`, a module a layout) and neo objects,
and writing them back; aligning frames with spikes, and checking that they are (`alignment`);
blocks, repeats and trials; what the recording itself says about its cells (reliability, quality,
spike-triggered average, tuning), and splitting it. Stimuli are made in `retina_codec.stimuli`, and
models fitted in `retina_codec.models`.
"""

from retina_codec.recordings.alignment import check_alignment
from retina_codec.recordings.frame_marks import align_clocks, describe_frame_marks
from retina_codec.recordings.from_neo import recording_from_neo
from retina_codec.recordings.noise_ceiling import reliability
from retina_codec.recordings.opening import open_recording, save_recording
from retina_codec.recordings.plan import FrozenNoise, RepeatedFrames
from retina_codec.recordings.quality import quality, select_cells
from retina_codec.recordings.rates import firing_rate
from retina_codec.recordings.repeats import find_repeats
from retina_codec.recordings.splitting import split
from retina_codec.recordings.to_neo import recording_to_neo
from retina_codec.recordings.trials import psth
from retina_codec.recordings.triggered_average import spike_triggered_average
from retina_codec.recordings.tuning import direction_selectivity, direction_tuning, on_off_index

__all__ = [
    "FrozenNoise",
    "RepeatedFrames",
    "align_clocks",
    "check_alignment",
    "describe_frame_marks",
    "direction_selectivity",
    "direction_tuning",
    "find_repeats",
    "firing_rate",
    "on_off_index",
    "open_recording",
    "psth",
    "quality",
    "recording_from_neo",
    "recording_to_neo",
    "reliability",
    "save_recording",
    "select_cells",
    "spike_triggered_average",
    "split",
]
