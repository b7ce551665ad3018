"""Movies out: classical and natural stimuli, and features of light and motion at each moment.

Here belongs what makes a movie (time, y, x) or says what a movie shows; all of it is seeded and
deterministic. How movies and spikes are read from files is in `retina_codec.recordings`.
"""

from retina_codec.stimuli.classical import light_steps, moving_bars, moving_gratings, white_noise
from retina_codec.stimuli.described import render
from retina_codec.stimuli.differential import differential_motion
from retina_codec.stimuli.features import stimulus_features
from retina_codec.stimuli.images import dead_leaves, photographs, split_images
from retina_codec.stimuli.movie import concatenate
from retina_codec.stimuli.natural import natural_movie
from retina_codec.stimuli.pink import pink_noise
from retina_codec.stimuli.probe import probe_movie
from retina_codec.stimuli.rendered_light import drifting_grating, grating_sequence, level_sequence
from retina_codec.stimuli.rendered_noise import seeded_noise
from retina_codec.stimuli.screen import Screen
from retina_codec.stimuli.sources import open_movie

__all__ = [
    "Screen",
    "concatenate",
    "dead_leaves",
    "differential_motion",
    "drifting_grating",
    "grating_sequence",
    "level_sequence",
    "light_steps",
    "moving_bars",
    "moving_gratings",
    "natural_movie",
    "open_movie",
    "photographs",
    "pink_noise",
    "probe_movie",
    "render",
    "seeded_noise",
    "split_images",
    "stimulus_features",
    "white_noise",
]
