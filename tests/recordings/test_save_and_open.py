"""A recording written to Zarr or netCDF comes back the same."""

import numpy as np
import pytest
import xarray as xr

from retina_codec.recordings import open_recording, save_recording

pytestmark = pytest.mark.filterwarnings("ignore:frames .* are not used:UserWarning")


@pytest.mark.parametrize("name", ["recording.zarr", "recording.nc"])
def test_round_trip_is_identical(text_folder, tmp_path, name):
    recording = open_recording(text_folder())
    path = save_recording(recording, tmp_path / name)
    with open_recording(path) as again:
        xr.testing.assert_identical(again.load(), recording)
        assert again.attrs == recording.attrs
        for node in recording.subtree:
            for key, variable in node.variables.items():
                other = again[node.path].variables[key]
                assert other.attrs == variable.attrs, key
                assert other.dtype == variable.dtype, key
    with open_recording(path, format="tree", cells=["C10", "C2"], bin_width=0.02) as some:
        xr.testing.assert_identical(
            some["test"].to_dataset().load(),
            recording["test"].to_dataset().sel(cell=["C10", "C2"]),
        )


def test_bad_requests_to_a_tree(text_folder, tmp_path):
    path = save_recording(open_recording(text_folder()), tmp_path / "recording.nc")
    with pytest.raises(ValueError, match="cells: no cell 'C3'; choices: C1, C2, C10"):
        open_recording(path, cells=["C3"])
    with pytest.raises(ValueError, match=r"^bin_width=0\.01 s"):
        open_recording(path, bin_width=0.01)
    takes = "but format 'tree' .* takes only bin_width, cells"
    with pytest.raises(ValueError, match=f"stimulus was given, {takes}"):
        open_recording(path, stimulus="movie.txt")
    with pytest.raises(ValueError, match=f"mapping was given, {takes}"):
        open_recording(path, format="tree", mapping={"a": "b"})


@pytest.mark.parametrize("name", ["broken.nc", "broken.zarr"])
def test_a_broken_store(tmp_path, name):
    (tmp_path / name).write_text("this is no store")
    with pytest.raises(OSError, match="is not a readable") as error:
        open_recording(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_tree_that_is_no_recording(tmp_path):
    other = xr.DataTree.from_dict({"/a": xr.Dataset({"b": ("c", np.arange(3))})})
    other.to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"path is no recording: none of its nodes \(/, /a\)"):
        open_recording(tmp_path / "other.nc")
    with pytest.raises(ValueError, match="recording is no recording"):
        save_recording(other, tmp_path / "other.zarr")
    with pytest.raises(TypeError, match=r"recording is a Dataset; expected an xarray\.DataTree"):
        save_recording(other["a"].to_dataset(), tmp_path / "other.zarr")


def test_a_tree_without_bin_width(make_node, tmp_path):
    node = make_node()
    del node["time"].attrs["bin_width"]
    with pytest.raises(ValueError, match=r"\['/train'\].*no attrs\['bin_width'\]"):
        save_recording(xr.DataTree.from_dict({"/train": node}), tmp_path / "r.nc")


def test_another_suffix_is_refused(text_folder, tmp_path):
    with pytest.raises(ValueError, match=r"expected a name ending in \.nwb, \.nix, \.zarr, \.nc"):
        save_recording(open_recording(text_folder()), tmp_path / "recording.mat")
