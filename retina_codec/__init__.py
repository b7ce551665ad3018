"""Models of the retina, and what each of their interneurons contributes to each response.

>>> import retina_codec as rc

The names, listed in ``__init__.pyi``, are loaded when they are first used.
"""

import lazy_loader

from retina_codec._common.version import __version__ as __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
