"""In-silico physiology: receptive fields, classical phenomena, the best stimuli.

What every lab does with a model cell as with a recorded one. The receptive field at every moment,
its parts in space and time and what is fitted to them, and how it changes with the modes; the
classical phenomena, each a stimulus and an index with its source; the movie that drives a cell, a
channel or a mode most. Stimuli are made in `retina_codec.stimuli`; what silencing does to any of
it belongs in `retina_codec.interventions`.
"""

from retina_codec.physiology.instantaneous import instantaneous_receptive_field

__all__ = ["instantaneous_receptive_field"]
