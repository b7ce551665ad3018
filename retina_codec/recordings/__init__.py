"""Recordings in: spikes and frame marks become one labelled tree.

What belongs here: reading recorded ganglion cells from files and neo objects, aligning frames with
spikes, blocks and repeats, what the recording itself says about its cells (reliability,
spike-triggered average), and splitting it. Stimuli are made, and models fitted, elsewhere.
"""

from retina_codec.recordings.binning import firing_rate
from retina_codec.recordings.from_neo import recording_from_neo
from retina_codec.recordings.noise_ceiling import reliability
from retina_codec.recordings.opening import open_recording, save_recording
from retina_codec.recordings.plan import FrozenNoise
from retina_codec.recordings.splitting import split
from retina_codec.recordings.triggered_average import spike_triggered_average

__all__ = [
    "FrozenNoise",
    "firing_rate",
    "open_recording",
    "recording_from_neo",
    "reliability",
    "save_recording",
    "spike_triggered_average",
    "split",
]
