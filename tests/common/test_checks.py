"""Checks at the door that need more than a line."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from retina_codec._common.checks import require_finite
from retina_codec.stimuli import open_movie


def refuse(_):
    raise AssertionError("the movie was read")


def test_movies_that_cannot_hold_nan_are_not_read():
    values = np.zeros((260, 260, 260), dtype=np.uint8)
    movie = open_movie(values)
    assert isinstance(movie.data, da.Array)
    read_only_if_looked_at = movie.copy(data=movie.data.map_blocks(refuse, dtype=np.float32))
    read_only_if_looked_at.encoding = movie.encoding
    require_finite(read_only_if_looked_at.isel(time=slice(10, None)), "movie")
    # the same numbers in a type that can hold NaN are looked at
    movie = open_movie(values.astype(np.float32))
    hidden = movie.copy(data=movie.data.map_blocks(refuse, dtype=np.float32, meta=movie.data._meta))
    with pytest.raises(AssertionError, match="was read"):
        require_finite(hidden, "movie")


def test_other_values_in_place_of_such_a_movie_are_looked_at():
    movie = open_movie(np.ones((260, 260, 260), dtype=np.uint8))
    with pytest.raises(ValueError, match="movie has 1 NaN"):
        values = movie.values.copy()
        values[20, 1, 1] = np.nan
        require_finite(movie.copy(data=values), "movie")
    with pytest.raises(ValueError, match="movie has 17576000 NaN"):
        require_finite(movie / (movie - 1), "movie")
    other = da.full((260, 260, 260), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match="movie has 17576000 NaN"):
        require_finite(xr.DataArray(other, dims=("time", "y", "x")), "movie")
