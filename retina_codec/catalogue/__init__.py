"""Known data sets by name: what each holds, where it comes from, how to get and open it.

What belongs here: the descriptions in ``datasets/`` at the top of the repository, read and checked;
fetching files with checksums; opening a set by name. How files are read is in
`retina_codec.recordings`.
"""

from retina_codec.catalogue.commands import fetch_command, list_command, show_command
from retina_codec.catalogue.description import DatasetFile, DatasetInfo, read_description
from retina_codec.catalogue.fetching import fetch_dataset
from retina_codec.catalogue.named import open_dataset
from retina_codec.catalogue.registry import dataset, dataset_names

__all__ = [
    "DatasetFile",
    "DatasetInfo",
    "dataset",
    "dataset_names",
    "fetch_command",
    "fetch_dataset",
    "list_command",
    "open_dataset",
    "read_description",
    "show_command",
]
