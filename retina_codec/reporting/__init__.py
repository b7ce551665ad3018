"""One page that tells what a run found.

`run` reads a run folder, `figures` says which pictures it gets, `sections` what is said, `page`
makes HTML of it, and `writing` writes it all.
"""

from retina_codec.reporting.writing import report

__all__ = ["report"]
