"""Labelled contributions to a plain (sample, column) matrix, and back."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from retina_codec._common.checks import nearest_names, require_array, require_finite
from retina_codec._common.provenance import provenance

Contribution = xr.DataArray | Mapping[str, xr.DataArray] | Sequence[xr.DataArray]

SINGLE = "contribution"  # the key of an array that was given alone


@dataclass(frozen=True)
class Samples:
    """Labels of the rows: the sample dims, the one that runs slowest first."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[Hashable, Any]

    def label(self, values: Any, dim: str, coords: Mapping[str, Any]) -> xr.DataArray:
        """Return `values` (*sample dims, `dim`) with their labels."""
        return xr.DataArray(
            values,
            dims=(*self.dims, dim),
            coords={**self.coords, **coords},
        )

    def mask(self, marked: np.ndarray) -> xr.DataArray:
        """Label what is marked along the first sample dim."""
        first = self.dims[0]
        coords = {key: coord for key, coord in self.coords.items() if tuple(coord.dims) == (first,)}
        return xr.DataArray(marked, dims=first, coords=coords)


@dataclass(frozen=True)
class Layer:
    """Labels of one layer's columns: an array of zeros over the column dims, and all its dims."""

    template: xr.DataArray
    dims: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of columns."""
        return int(self.template.size)


@dataclass(frozen=True)
class Layout:
    """Labels of the columns, layer after layer."""

    features: tuple[str, ...]
    layers: dict[str, Layer]

    @property
    def single(self) -> bool:
        """Whether one array was given, not a collection of layers."""
        return list(self.layers) == [SINGLE]

    @property
    def names(self) -> np.ndarray:
        """A readable name for every column."""
        named = []
        for layer, labels in self._labels():
            parts = [] if self.single else [f"layer={layer}"]
            named.append(", ".join(parts + [f"{k}={v}" for k, v in labels.items()]))
        return np.array(named)

    def _labels(self) -> list[tuple[str, dict[str, Any]]]:
        rows: list[tuple[str, dict[str, Any]]] = []
        for name, layer in self.layers.items():
            values = [layer.template[dim].values for dim in self.features]
            for index in np.ndindex(*layer.template.shape):
                rows.append(
                    (
                        name,
                        {d: v[i] for d, v, i in zip(self.features, values, index, strict=True)},
                    )
                )
        return rows

    def column_array(self, values: np.ndarray, dims: tuple[str, ...] = ()) -> xr.DataArray:
        """Label `values` (`dims`, column): over the column dims, or `column` for several layers."""
        if self.single:
            template = self.layers[SINGLE].template
            return xr.DataArray(
                values.reshape(*values.shape[:-1], *template.shape),
                dims=(*dims, *self.features),
                coords=template.coords,
            )
        rows = self._labels()
        coords: dict[str, Any] = {"layer": ("column", np.array([name for name, _ in rows]))}
        for dim in self.features:
            coords[dim] = ("column", np.array([labels[dim] for _, labels in rows]))
        return xr.DataArray(values, dims=(*dims, "column"), coords=coords)

    def contributions(
        self, matrix: np.ndarray, samples: Samples
    ) -> xr.DataArray | dict[str, xr.DataArray]:
        """Label a matrix (sample, column) as the contributions it was made from."""
        arrays = {}
        start = 0
        for name, layer in self.layers.items():
            part = matrix[:, start : start + layer.size]
            start += layer.size
            array = xr.DataArray(
                part.reshape(*samples.shape, *layer.template.shape),
                dims=(*samples.dims, *self.features),
                coords={**samples.coords, **layer.template.coords},
                name=layer.template.name,
                attrs=layer.template.attrs,
            )
            order = [dim for dim in layer.dims if dim in array.dims]
            new = [dim for dim in samples.dims if dim not in order]
            arrays[name] = array.transpose(*new, *order)
        return arrays[SINGLE] if self.single else arrays

    def arrays(self, contribution: Contribution) -> dict[str, xr.DataArray]:
        """Layers of new contributions, which must have the same columns.

        Raises
        ------
        ValueError
            If layers, column dims or their labels differ.
        """
        arrays = named_arrays(contribution)
        if set(arrays) != set(self.layers):
            raise ValueError(
                f"contribution has layers {list(arrays)}; the modes were fitted to "
                f"{list(self.layers)}: give the same"
            )
        for name, layer in self.layers.items():
            _check_columns(arrays[name], layer.template, self.features)
        return {name: arrays[name] for name in self.layers}

    def atoms(self, dictionary: xr.DataArray) -> np.ndarray:
        """Rows (mode, column) of a dictionary that is labelled as `column_array` does it.

        Raises
        ------
        TypeError
            If it is not a DataArray.
        ValueError
            If its columns differ.
        """
        dictionary = require_array(dictionary, "dictionary")
        template = self.column_array(np.zeros(sum(layer.size for layer in self.layers.values())))
        dims = tuple(str(dim) for dim in template.dims)
        if set(dictionary.dims) != {"mode", *dims}:
            raise ValueError(
                f"dictionary has dims {tuple(dictionary.dims)}; expected 'mode' and {dims}"
            )
        ordered = dictionary.transpose("mode", *dims)
        if ordered.shape[1:] != template.shape or any(
            not np.array_equal(ordered[key].values, coord.values)
            for key, coord in template.coords.items()
            if key in ordered.coords and coord.dims
        ):
            raise ValueError(
                "dictionary has other columns than contribution: give the one of modes that were "
                "fitted to the same units with the same features"
            )
        require_finite(ordered, "dictionary")
        return np.ascontiguousarray(ordered.values.reshape(len(ordered), -1), dtype=np.float32)

    def to_datasets(self) -> dict[str, xr.Dataset]:
        """One Dataset a layer, for a file; `from_datasets` reads them back."""
        saved = {}
        for number, (name, layer) in enumerate(self.layers.items()):
            about = {
                "layer": name,
                "name": layer.template.name,
                "dims": layer.dims,
                "attrs": layer.template.attrs,
            }
            plain = layer.template.rename("columns").drop_attrs(deep=False)
            saved[str(number)] = plain.to_dataset().assign_attrs(provenance(**about))
        return saved

    @classmethod
    def from_datasets(cls, saved: Sequence[xr.Dataset]) -> Layout:
        """Read back what `to_datasets` wrote."""
        layers = {}
        features: tuple[str, ...] = ()
        for data in saved:
            about = json.loads(data.attrs["parameters"])
            template = data["columns"].rename(about["name"]).assign_attrs(about["attrs"])
            layers[about["layer"]] = Layer(template, tuple(about["dims"]))
            features = tuple(str(dim) for dim in template.dims)
        return cls(features, layers)


def named_arrays(contribution: Contribution) -> dict[str, xr.DataArray]:
    """Layers by name; a list is numbered from "0".

    Raises
    ------
    TypeError
        If `contribution` or one of its layers is not a DataArray.
    """
    if isinstance(contribution, Mapping):
        named = {str(name): array for name, array in contribution.items()}
    elif isinstance(contribution, (list, tuple)):
        named = {str(number): array for number, array in enumerate(contribution)}
    else:
        return {SINGLE: require_array(contribution, "contribution")}
    if not named:
        raise ValueError("contribution is empty; expected at least one layer's DataArray")
    return {name: require_array(a, f"contribution[{name!r}]") for name, a in named.items()}


def layout_of(arrays: Mapping[str, xr.DataArray], features: Sequence[str]) -> Layout:
    """Labels of the columns of `arrays`, `features` being the column dims.

    Raises
    ------
    ValueError
        If an array lacks one of `features`, or has no other dim.
    """
    features = tuple(features)
    layers = {}
    for name, array in arrays.items():
        dims = tuple(str(dim) for dim in array.dims)
        for dim in features:
            if dim not in dims:
                raise ValueError(
                    f"features={features} names {dim!r}, which {called(name)} with dims {dims} "
                    f"does not have; {nearest_names(dim, dims)}; to have 'sign', compute "
                    "contributions with split_sign=True"
                )
        if len(dims) == len(features):
            raise ValueError(
                f"features={features} are all dims of {called(name)}: no dim is left for "
                "samples; name only the dims that tell hidden units apart"
            )
        labels = {
            key: coord for key, coord in array.coords.items() if set(coord.dims) <= set(features)
        }
        template = xr.DataArray(
            np.zeros([array.sizes[dim] for dim in features], dtype=np.float32),
            dims=features,
            coords=labels,
            name=array.name,
            attrs=array.attrs,
        )
        layers[name] = Layer(template, dims)
    return Layout(features, layers)


def called(name: str) -> str:
    """How a layer's array is named in messages."""
    return "contribution" if name == SINGLE else f"contribution[{name!r}]"


def _check_columns(array: xr.DataArray, template: xr.DataArray, features: Sequence[str]) -> None:
    for dim in features:
        if dim not in array.dims:
            raise ValueError(
                f"contribution has dims {tuple(array.dims)}; the modes were fitted with columns "
                f"{tuple(features)}: {dim!r} is missing"
            )
        given, expected = array[dim].values, template[dim].values
        if given.shape != expected.shape or (given != expected).any():
            raise ValueError(
                f"contribution has {dim}={given.tolist()}; the modes were fitted with "
                f"{dim}={expected.tolist()}: select the same ones in the same order"
            )
