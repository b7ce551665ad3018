"""The formats that `open_recording` knows, one module a layout.

Each module gives a `Format`: how it is recognised and how it is read. The order below is the order
in which they are asked whether they recognise a path; the first one that does reads it.
"""

from retina_codec.recordings.formats.baccus import BACCUS, BACCUS_INTERNEURONS
from retina_codec.recordings.formats.base import Format, Options
from retina_codec.recordings.formats.mapped import MAPPED
from retina_codec.recordings.formats.matlab import MATLAB_BINNED
from retina_codec.recordings.formats.neo_files import NEO
from retina_codec.recordings.formats.nix import NIX
from retina_codec.recordings.formats.nwb import NWB
from retina_codec.recordings.formats.open_retina import OPEN_RETINA
from retina_codec.recordings.formats.text import TEXT
from retina_codec.recordings.formats.text_pulses import TEXT_GRATINGS, TEXT_STEPS
from retina_codec.recordings.formats.tree import TREE

FORMATS: tuple[Format, ...] = (
    TREE,
    NWB,
    NIX,
    TEXT_STEPS,
    TEXT_GRATINGS,
    TEXT,
    BACCUS,
    BACCUS_INTERNEURONS,
    OPEN_RETINA,
    MATLAB_BINNED,
    MAPPED,
    NEO,
)

__all__ = ["FORMATS", "Format", "Options"]
