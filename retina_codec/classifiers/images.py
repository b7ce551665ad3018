"""Sets of images as labelled arrays, read when they are looked at."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image
from torch import Tensor

from retina_codec._common.checks import nearest_names, require_choice, require_dims
from retina_codec._common.provenance import provenance
from retina_codec.classifiers.layouts import GROUND_TRUTH, Listed, listed
from retina_codec.classifiers.pictures import picture_size, read_picture
from retina_codec.classifiers.preprocessing import Preprocessing
from retina_codec.stimuli.lazy import lazy_array

DIMS = ("image", "color", "y", "x")
COLORS = ("red", "green", "blue")
CORRUPTED = ("raise", "skip")
ARRAYS = (".npy", ".npz")
BYTES = np.dtype(np.uint8)


def open_images(
    source: Any,
    *,
    labels: Any = None,
    names: Mapping[Any, str] | None = None,
    categories: Sequence[str] | None = None,
    preprocess: Any = None,
    corrupted: str = "raise",
    convert: bool = True,
    dims: Sequence[str] | None = None,
) -> xr.DataArray:
    """Open a set of images, with their labels, for any classifier.

    Files are read when they are looked at, never all at once, and resized and cropped as
    `preprocess` says; mean and standard deviation are left to the classifier.

    Parameters
    ----------
    source : path, array, tensor or xarray.DataArray
        - a folder with a subfolder for each category (its name is the label);
        - a folder of pictures, labelled by `labels` if it is given, such as ImageNet's validation
          set;
        - a CSV file with columns ``path`` (relative to it) and, by option, ``label``;
        - a ``.npy`` file, or a ``.npz`` file with ``images`` and, by option, ``labels`` and
          ``class_names``; further one-dimensional arrays become coordinates;
        - an array of images, uint8 or float in [0, 1], whose dims `dims` names.
    labels : path, mapping or sequence, optional
        Labels of a folder of pictures or an array: a text file with a label a line, in the order
        of the files' names, or with file name and label on each line (separated by a comma or a
        space); a mapping by file name; or a sequence in order.
    names : mapping, optional
        From what stands in folders or files to the name of the category, such as
        `imagenet_names` gives.
    categories : sequence of str, optional
        The categories that labels must be among, such as ``model.outputs``; whole numbers count
        them from 0.
    preprocess : Preprocessing or torchvision transform, optional
        Such as ``model.preprocess``. Without it, all pictures must have one size.
    corrupted : {"raise", "skip"}
        What happens to files that are damaged: an OSError that names the file, when it is looked
        at; or every file is read once now, and those that cannot be are left out, with a warning,
        and named in ``attrs["skipped"]``.
    convert : bool
        Convert pictures of other kinds than red, green and blue: grey (also of 16 bits, scaled to
        8) is repeated, palettes and CMYK become their colours, without regard to colour profiles;
        transparent pixels are refused. If False, all of them are refused. Arrays are left as they
        are.
    dims : sequence of str, optional
        Dims of an array without names: ``("image", "y", "x", "color")`` or another order, or
        without colour. By default told from where the axis of 1 or 3 is.

    Returns
    -------
    xarray.DataArray
        (image, color, y, x), uint8 0..255 of files, lazy (dask). ``image`` is the path below
        ``attrs["folder"]``, or a number; ``label`` (image), where there are labels, names of
        categories, or whole numbers if there are neither `names` nor `categories` to name them.

    Raises
    ------
    FileNotFoundError
        If `source` or `labels` is a path to nothing.
    OSError
        If a file is damaged (when it is looked at).
    TypeError
        If `source` or `preprocess` is of another type.
    ValueError
        If there are no images, images have different sizes, or labels are missing, are none of
        `categories`, or are not in `names`; when it is looked at, if a picture has colours that
        cannot be converted.

    Examples
    --------
    >>> import numpy as np
    >>> import retina_codec as rc
    >>> pixels = np.zeros((4, 32, 32, 3), "uint8")
    >>> images = rc.classifiers.open_images(pixels, labels=[0, 1, 1, 0], categories=["cat", "dog"])
    >>> images.dims, images["label"].values.tolist()
    (('image', 'color', 'y', 'x'), ['cat', 'dog', 'dog', 'cat'])
    """
    require_choice(corrupted, CORRUPTED, "corrupted")
    preprocess = Preprocessing.of(preprocess)
    skipped: dict[str, str] = {}
    coords: dict[str, Any] = {}
    attrs: dict[str, Any] = {}
    is_path = isinstance(source, str | os.PathLike)
    if is_path and Path(source).suffix.lower() not in ARRAYS:
        files = listed(Path(source), labels)
        if files.labels is not None and names is None and _is_ground_truth(labels):
            raise ValueError(
                f"labels={str(labels)!r} has the development kit's own numbers: give "
                "names=retina_codec.classifiers.imagenet_names('meta.mat') of the same kit"
            )
        if corrupted == "skip":
            files, skipped = _readable(files, convert)
        values = _lazy_files(files, preprocess, convert)
        coords |= {"image": files.paths, "color": list(COLORS)}
        raw = None if files.labels is None else _as_numbers(files.labels)
        attrs["folder"] = str(files.folder)
    else:
        if is_path:
            source, raw, class_names, further = _arrays_of(Path(source))
            coords |= further
            if class_names is not None and names is None and raw is not None:
                raw = _named_by_number(raw, class_names.tolist(), "class_names")
        else:
            raw = None
            if isinstance(source, xr.DataArray) and "label" in source.coords:
                raw = source["label"].values
        array = _with_dims(source, dims)
        coords |= {str(name): coord for name, coord in array.coords.items() if str(name) != "label"}
        if labels is not None:
            raw = _given_labels(labels, len(array))
        values = _arranged_array(array, preprocess)
    label = None if raw is None else _labels(raw, names, categories)
    if skipped:
        first = next(iter(skipped.items()))
        warnings.warn(
            f"{len(skipped)} of {len(skipped) + len(values)} images cannot be read and are left "
            f"out, the first: {first[1]}",
            UserWarning,
            stacklevel=2,
        )
        attrs["skipped"] = json.dumps(list(skipped))
    if label is not None:
        coords["label"] = ("image", label, {"long_name": "category of the image"})
    for axis, size in zip(("y", "x"), values.shape[2:], strict=True):
        if axis not in coords or coords[axis].sizes[axis] != size:
            coords[axis] = (axis, np.arange(size), {"units": "pixel"})
    if "image" not in coords:
        coords["image"] = np.arange(len(values))
    return xr.DataArray(
        values,
        dims=DIMS,
        coords=coords,
        name="images",
        attrs={
            "units": "1",
            "long_name": "intensity",
            **attrs,
            **provenance(
                function="open_images",
                preprocess=preprocess.described(),
                corrupted=corrupted,
                convert=convert,
            ),
        },
    )


# Files


def _is_ground_truth(labels: Any) -> bool:
    return isinstance(labels, str | os.PathLike) and Path(labels).stem == GROUND_TRUTH


def _readable(files: Listed, convert: bool) -> tuple[Listed, dict[str, str]]:
    """Read every file once; leave out those that are damaged, with what is wrong with each."""
    faults: dict[str, str] = {}
    for path in files.paths:
        try:
            read_picture(files.folder / path, convert=convert)
        except OSError as error:
            faults[path] = str(error)
    kept = [i for i, path in enumerate(files.paths) if path not in faults]
    if not kept:
        raise ValueError(f"source={str(files.folder)!r}: none of its images can be read")
    return (
        Listed(
            files.folder,
            [files.paths[i] for i in kept],
            None if files.labels is None else [files.labels[i] for i in kept],
        ),
        faults,
    )


def _lazy_files(files: Listed, preprocess: Preprocessing, convert: bool) -> Any:
    """Lazy array (image, color, y, x) of uint8."""
    size = _common_size(files, preprocess)

    def picture(index: int) -> np.ndarray:
        path = files.folder / files.paths[index]
        return _planes(preprocess.arranged(read_picture(path, convert=convert)))

    return _lazy(picture, (len(files.paths), len(COLORS), *size))


def _common_size(files: Listed, preprocess: Preprocessing) -> tuple[int, int]:
    """Size (y, x) of all pictures after preprocessing; ValueError if they differ."""
    if preprocess.crop is not None or isinstance(preprocess.resize, tuple):
        return preprocess.size_of((1, 1))
    sizes = [preprocess.size_of(picture_size(files.folder / path)) for path in files.paths]
    other = next((i for i, size in enumerate(sizes) if size != sizes[0]), None)
    if other is not None:
        raise ValueError(
            f"images differ in size: {files.paths[0]} is {sizes[0][0]} x {sizes[0][1]}, "
            f"{files.paths[other]} {sizes[other][0]} x {sizes[other][1]} (y, x): give preprocess, "
            "such as model.preprocess or retina_codec.classifiers.Preprocessing(resize=..., "
            "crop=...)"
        )
    return sizes[0]


def _lazy(picture: Callable[[int], np.ndarray], shape: tuple[int, ...]) -> Any:
    def read(spans: tuple[slice, ...]) -> np.ndarray:
        rows = range(shape[0])[spans[0]]
        if not rows:
            return np.empty((0, *shape[1:]), BYTES)[(slice(None), *spans[1:])]
        return np.stack([picture(i)[spans[1:]] for i in rows])

    return lazy_array(read, shape, dtype=BYTES)


def _planes(picture: Image.Image) -> np.ndarray:
    """Colours first."""
    values = np.asarray(picture)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


# Arrays


def _arrays_of(
    path: Path,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None, dict[str, Any]]:
    """Images, labels, names of categories and further coordinates of a NumPy file."""
    if not path.exists():
        raise FileNotFoundError(f"source={str(path)!r} does not exist")
    try:
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None, None, {}
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except MemoryError:
        raise
    except Exception as error:  # OSError, ValueError, zipfile.BadZipFile, EOFError, zlib.error
        raise OSError(f"source={str(path)!r} is no readable NumPy file: {error}") from error
    if "images" not in arrays:
        raise ValueError(
            f"source={str(path)!r} has no array 'images'; {nearest_names('images', arrays)}: open "
            "the one that is meant with numpy.load and give it"
        )
    images = arrays.pop("images")
    labels, class_names = arrays.pop("labels", None), arrays.pop("class_names", None)
    if labels is not None and labels.shape != (len(images),):
        raise ValueError(
            f"source={str(path)!r}: labels has shape {labels.shape}; expected ({len(images)},)"
        )
    further = {
        name: ("image", values)
        for name, values in arrays.items()
        if values.shape == (len(images),) and name not in DIMS
    }
    return images, labels, class_names, further


def _with_dims(source: Any, dims: Sequence[str] | None) -> xr.DataArray:
    """Images (image, color, y, x) of an array, with names for its axes."""
    if not isinstance(source, xr.DataArray):
        if isinstance(source, Tensor):
            source = source.detach().cpu().numpy()
        if not isinstance(source, np.ndarray):
            raise TypeError(
                f"source is a {type(source).__name__}; expected a path, an array, a tensor or an "
                "xarray.DataArray"
            )
        named = _told(source.shape) if dims is None else tuple(dims)
        if len(named) != source.ndim:
            raise ValueError(f"dims={named} for an array of shape {source.shape}")
        source = xr.DataArray(source, dims=named)
    if "color" not in source.dims and set(source.dims) == {"image", "y", "x"}:
        source = source.expand_dims("color")
    images = require_dims(source, DIMS, "source")
    if images.size == 0:
        raise ValueError(f"source has no images: {dict(images.sizes)}")
    return images


def _told(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of axes, from where the one of 1 or 3 is."""
    if len(shape) == 3:
        return ("image", "y", "x")
    first, last = (len(shape) == 4 and shape[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise ValueError(
            f"source has shape {shape}, which does not tell its axes: give dims, such as "
            "dims=('image', 'y', 'x', 'color')"
        )
    return DIMS if first else ("image", "y", "x", "color")


def _arranged_array(array: xr.DataArray, preprocess: Preprocessing) -> Any:
    """Images of an array, resized and cropped if that is asked for."""
    size = (array.sizes["y"], array.sizes["x"])
    if preprocess.resize is None and preprocess.crop in (None, size):
        return array.data
    if array.dtype != BYTES:
        raise ValueError(
            f"source has dtype {array.dtype}; resizing takes uint8 images: convert with "
            "(255 * images).round().astype('uint8')"
        )

    def picture(index: int) -> np.ndarray:
        planes = array[index].values
        whole = [Image.fromarray(np.ascontiguousarray(plane)) for plane in planes]
        return np.concatenate([_planes(preprocess.arranged(plane)) for plane in whole])

    return _lazy(picture, (len(array), array.sizes["color"], *preprocess.size_of(size)))


# Labels


def _given_labels(labels: Any, n: int) -> np.ndarray:
    """Labels of an array in order: a sequence, or a file with one a line."""
    if isinstance(labels, str | os.PathLike):
        path = Path(labels)
        if not path.is_file():
            raise FileNotFoundError(f"labels={str(path)!r} does not exist")
        values = _as_numbers(path.read_text("utf-8-sig").split())
    else:
        if isinstance(labels, Tensor):
            labels = labels.detach().cpu().numpy()
        values = np.asarray(getattr(labels, "values", labels))
    if values.shape != (n,):
        raise ValueError(f"labels has shape {values.shape}; expected one for each of {n} images")
    return values


def _as_numbers(labels: Sequence[str]) -> np.ndarray:
    """Labels that are all whole numbers as such."""
    values = np.asarray(labels, dtype=str)
    return values.astype(np.int64) if all(label.isdigit() for label in labels) else values


def _labels(
    raw: np.ndarray, names: Mapping[Any, str] | None, categories: Sequence[str] | None
) -> np.ndarray:
    """Name the labels, and hold them against the categories."""
    if names is not None:
        by_text = {str(key): name for key, name in names.items()}
        missing = next((label for label in raw if str(label) not in by_text), None)
        if missing is not None:
            raise ValueError(
                f"names has none for the label {str(missing)!r}; {nearest_names(missing, by_text)}"
            )
        raw = np.array([by_text[str(label)] for label in raw], dtype=str)
    if categories is None:
        return raw
    if raw.dtype.kind in "iu":
        return _named_by_number(raw, categories, "categories")
    known = {str(name) for name in categories}
    for place, label in enumerate(raw):
        if str(label) not in known:
            raise ValueError(
                f"label {str(label)!r} of image {place} is not among the categories; "
                f"{nearest_names(label, categories)}; give names={{{str(label)!r}: ...}} to "
                "translate"
            )
    return raw.astype(str)


def _named_by_number(raw: np.ndarray, categories: Sequence[str], argument: str) -> np.ndarray:
    if raw.dtype.kind not in "iu":
        return raw
    bad = np.flatnonzero((raw < 0) | (raw >= len(categories)))
    if bad.size:
        raise ValueError(
            f"label {raw[bad[0]]} of image {bad[0]} is out of range; {argument} has "
            f"{len(categories)}, counted from 0"
        )
    return np.asarray(categories, dtype=str)[raw]
