"""Whether the stimulus of a recording is what was shown, when: from stimulus and spikes alone.

What belongs here: a cross-validated model of how the spikes follow the stimulus (`drive`), the
evidence of each stretch for every shift between the two and its decoding (`evidence`, `decoding`),
clocks that drift (`drift`), and the check that puts them together (`check`).
"""

from retina_codec.recordings.alignment.check import check_alignment

__all__ = ["check_alignment"]
