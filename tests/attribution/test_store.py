"""Contributions streamed into a store: as in memory, killed, shared, refused.

Run as a script, this file is one process of a run.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from torch import nn

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.attribution import cutting, identity
from retina_codec.attribution import store as store_module
from retina_codec.attribution.cutting import block_size, chunks_of
from retina_codec.attribution.identity import described_data

HISTORY, CELLS = 4, ["A", "B", "C"]


class Net(nn.Module):
    """A small network of windows; `at_call` is called whenever it runs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(HISTORY, 3, 3)
        self.relu = nn.ReLU()
        self.dense = nn.Linear(3 * 4 * 4, len(CELLS))

    def forward(self, x):
        self.at_call()
        return nn.functional.softplus(self.dense(self.relu(self.conv(x)).flatten(1)))

    def at_call(self):
        pass


def make_model():
    generator = torch.Generator().manual_seed(0)
    net = Net()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return rc.models.from_module(net, history=HISTORY, bin_width=0.01, cells=CELLS)


def make_movie(n=51, gap=None):
    values = np.random.default_rng(0).normal(size=(n, 6, 6)).astype(np.float32)
    time = time_coordinate(np.arange(n) * 0.01, 0.01)
    movie = xr.DataArray(values, dims=("time", "y", "x"), coords={"time": time})
    if gap is not None:
        movie = movie.assign_coords(block=block_coordinate(np.arange(n) >= gap))
    return movie


ARGUMENTS = {
    "layers": ["conv", "relu"],
    "method": rc.methods.IntegratedGradients(steps=3),
    "split_sign": True,
    "sum_over": ("y", "x"),
    "batch_size": 8,
    "progress": False,
}  # 48 samples in 6 blocks of 8


def decompose(store=None, model=None, movie=None, **changed):
    return rc.contributions(
        make_model() if model is None else model,
        make_movie() if movie is None else movie,
        store=store,
        **{**ARGUMENTS, **changed},
    )


def files_of(folder):
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def marks(store):
    return sorted(Path(f"{store}.unfinished/done").glob("[0-9]*"))


def act_after(model, store, blocks, act, calls=2):
    """Act in the midst of the block after so many."""
    net = model.network.module
    left = [calls]

    def at_call():
        if len(marks(store)) >= blocks:
            left[0] -= 1
            if left[0] < 0:
                act()

    net.at_call = at_call
    return model


def _interrupt():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Store of a run that nothing disturbed."""
    store = tmp_path_factory.mktemp("whole") / "run.zarr"
    decompose(store)
    return store


def start(store, *, environment=None, **settings):
    """Start a process that runs this file."""
    return subprocess.Popen(
        [sys.executable, __file__, json.dumps({"store": str(store), **settings})],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(rc.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            **(environment or {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(store, kill_after=None):
    torch.set_num_threads(1)
    model = make_model()
    if kill_after is not None:
        act_after(model, store, kill_after, lambda: os.kill(os.getpid(), signal.SIGKILL))
    tree = decompose(store, model)
    sys.stdout.write(repr(float(tree["layers/conv/contribution"].astype(float).sum())))


# The same as in memory


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"sum_over": (), "split_sign": False, "extras": ("activation", "gradient")},
        {"target": rc.targets.Sum()},
        {"target": rc.targets.Surprisal(), "sum_over": "channel"},
        {"method": rc.methods.IntegratedGradients(steps=1, tolerance=0.02, max_steps=64)},
        {"method": rc.methods.SmoothGradient(n_samples=2)},
        {"method": rc.methods.Ablation(), "layers": "conv"},
        {"collect": "best", "layers": "conv"},
    ],
)
def test_holds_what_the_result_in_memory_holds(tmp_path, changed):
    stored = decompose(tmp_path / "run.zarr", memory_limit=1, **changed)
    held = decompose(**changed)
    assert float(np.ptp(held["target"].values)) > 0.1
    assert [node.path for node in stored.subtree] == [node.path for node in held.subtree]
    for node in held.subtree:
        xr.testing.assert_identical(stored[node.path].to_dataset(), node.to_dataset())
        for name, variable in node.variables.items():
            assert stored[node.path].variables[name].dtype == variable.dtype
    assert stored["target"].chunks is not None
    assert not Path(tmp_path / "run.zarr.unfinished").exists()


def test_blocks_of_the_movie(tmp_path):
    movie = make_movie(gap=20)
    stored, held = decompose(tmp_path / "run.zarr", movie=movie), decompose(movie=movie)
    assert np.unique(held["block"].values).tolist() == [0, 1]
    for node in held.subtree:
        xr.testing.assert_allclose(
            stored[node.path].to_dataset(), node.to_dataset(), rtol=1e-4, atol=1e-5
        )


def test_labelled_images_of_a_bare_network(tmp_path):
    network = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    data = xr.DataArray(
        np.random.default_rng(0).normal(size=(30, 5)).astype("f4"),
        dims=("picture", "pixel"),
        coords={"picture": [f"p{i}" for i in range(30)]},
    )
    held = rc.contributions(network, data, layers="1", progress=False)
    stored = rc.contributions(
        network, data, layers="1", progress=False, store=tmp_path / "run.zarr"
    )
    for node in held.subtree:
        xr.testing.assert_identical(stored[node.path].to_dataset(), node.to_dataset())


def test_coordinates_of_a_movie_in_a_file(tmp_path):
    """Lazy ones are written, and held otherwise in the store than in the movie's file."""
    movie = make_movie(gap=25).assign_coords(epoch=("time", [f"e{i // 20}" for i in range(51)]))
    rc.save_tree(movie.to_dataset(name="stimulus"), tmp_path / "movie.zarr")
    lazy = xr.open_zarr(tmp_path / "movie.zarr", chunks={})["stimulus"]
    assert lazy["epoch"].chunks is not None
    stored = decompose(tmp_path / "run.zarr", movie=lazy)
    for node in ("/", "/layers/conv"):
        assert stored[node]["epoch"].values.tolist() == movie["epoch"].values[3:25].tolist() + (
            movie["epoch"].values[28:].tolist()
        )
        np.testing.assert_array_equal(stored[node]["block"].values, [0] * 22 + [1] * 23)
        assert stored[node]["time"].attrs == movie["time"].attrs


def test_every_group_opens_alone(whole):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = xr.open_datatree(whole, engine="zarr")
        for group in ("", "layers", "layers/conv", "layers/relu"):
            with xr.open_dataset(whole, engine="zarr", group=group) as alone:
                assert set(alone.coords) >= {"time", "cell"}
                assert alone["cell"].values.tolist() == CELLS
                assert list(alone.data_vars) == list(tree[f"/{group}"].data_vars)
                for value in alone.attrs.values():
                    assert isinstance(value, str)
        assert (whole / ".zmetadata").exists()


def test_chunks_are_whole_batches(whole):
    cut = json.loads(zarr.open_group(whole, mode="r").attrs["run"])["cut"]
    assert cut["block_size"] % cut["batch_size"] == 0
    array = zarr.open_array(whole / "layers/conv/contribution", mode="r")
    assert array.chunks == (cut["block_size"], 3, 2, 3)


def test_saved_and_opened_again_it_is_not_taken_for_the_run(whole, tmp_path):
    rc.save_tree(rc.open_contributions(whole).isel(time=slice(10)), tmp_path / "part.zarr")
    with pytest.raises(ValueError, match=r"was not written with store="):
        decompose(tmp_path / "part.zarr")


def test_a_result_that_does_not_fit_the_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        store_module.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000})
    )
    with pytest.raises(OSError, match=r"up to .* GB, and 1e-06 GB are free") as caught:
        decompose(tmp_path / "run.zarr")
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


# Killed and gone on with


def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, whole):
    store = tmp_path / "run.zarr"
    process = start(store, kill_after=3)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    done = {mark.name: mark.stat().st_mtime_ns for mark in marks(store)}
    assert len(done) == 3
    assert not store.exists()
    with pytest.raises(FileNotFoundError, match="unfinished"):
        rc.open_contributions(store)

    model, kept = make_model(), {}

    def look():
        kept.update({mark.name: mark.stat().st_mtime_ns for mark in marks(store)})

    act_after(model, store, 4, look)
    resumed = decompose(store, model)
    assert {name: kept[name] for name in done} == done  # not computed again
    assert files_of(store) == files_of(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]
    xr.testing.assert_identical(resumed.compute(), rc.open_contributions(whole).compute())


@pytest.mark.parametrize("at", ["metadata", "renaming"])
def test_killed_at_the_very_end(tmp_path, whole, monkeypatch, at):
    store = tmp_path / "run.zarr"
    decompose(store, **other_weights())
    rename = Path.rename

    def killed(path, target):
        if path.name == "store.zarr":
            raise KeyboardInterrupt  # the old store is away, the new one not there
        return rename(path, target)

    with monkeypatch.context() as patch:
        if at == "metadata":
            patch.setattr(store_module.zarr, "consolidate_metadata", lambda *a, **k: _interrupt())
        else:
            patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            decompose(store, overwrite=True)
    decompose(store, overwrite=True)
    assert files_of(store) == files_of(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.filterwarnings("ignore:.*completeness error above tolerance")
def test_what_was_cut_stays_cut(tmp_path):
    """Batches are those of the first call, whatever the budget; a tolerance's scale too."""
    method = rc.methods.IntegratedGradients(steps=2, tolerance=1e-2, max_steps=16)
    changed = {"batch_size": None, "method": method}
    small = {**changed, "memory_budget": 4e4}
    first = decompose(tmp_path / "whole.zarr", **small)
    store, model = tmp_path / "run.zarr", make_model()

    with pytest.raises(KeyboardInterrupt):
        decompose(store, act_after(model, store, 3, _interrupt), **small)
    cut = json.loads(Path(f"{store}.unfinished/run.json").read_text())["cut"]
    assert cut["batch_size"] < 16
    assert cut["target_sd"] is not None
    again = decompose(store, **changed)
    assert files_of(store) == files_of(tmp_path / "whole.zarr")
    assert json.loads(again.attrs["parameters"])["batch_size"] == cut["batch_size"]
    assert len(np.unique(first["steps"].values)) > 1


def test_unresolved_samples_are_counted_over_all_blocks(tmp_path):
    method = rc.methods.IntegratedGradients(steps=1, tolerance=1e-9, max_steps=2)
    store, model = tmp_path / "run.zarr", make_model()
    with pytest.raises(KeyboardInterrupt):
        decompose(store, act_after(model, store, 3, _interrupt), method=method)
    with pytest.warns(UserWarning, match="48 of 48 samples"):
        decompose(store, method=method)


def test_a_finished_run_is_opened_without_computing(whole):
    model = make_model()
    model.network.module.at_call = _interrupt
    before = files_of(whole)
    tree = decompose(whole, model)
    assert files_of(whole) == before
    assert tree["layers/conv/contribution"].sizes["time"] == 48


def test_a_network_that_raises_leaves_what_is_done(tmp_path):
    store, model = tmp_path / "run.zarr", make_model()

    def fail():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        decompose(store, act_after(model, store, 4, fail))
    assert len(marks(store)) == 4
    assert all(parameter.requires_grad for parameter in model.network.parameters())


def test_full_disk_keeps_what_is_done(tmp_path, whole):
    """Files may not grow beyond some bytes from block 3 on: real errors of the system."""
    store, model = tmp_path / "run.zarr", make_model()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))

    try:
        with pytest.raises(OSError, match=r"block 3 could not be written .* 3 blocks .* stay"):
            decompose(store, act_after(model, store, 3, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(marks(store)) == 3
    decompose(store)
    assert files_of(store) == files_of(whole)


def test_full_disk_at_the_template(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"template could not be written"):
            decompose(tmp_path / "run.zarr")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


# Several processes


def test_two_processes_of_a_launcher_share_a_run(tmp_path, whole):
    store = tmp_path / "run.zarr"
    both = [start(store, environment={"RANK": str(rank), "WORLD_SIZE": "2"}) for rank in (1, 0)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    total = float(rc.open_contributions(whole)["layers/conv/contribution"].astype(float).sum())
    assert [out for out, _ in outputs] == [repr(total)] * 2
    assert files_of(store) == files_of(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]


def test_each_process_does_its_own_blocks(tmp_path, whole, monkeypatch):
    store = tmp_path / "run.zarr"
    monkeypatch.setattr(store_module, "PATIENCE", 0.3)
    with pytest.raises(TimeoutError, match=r"process 0 has not begun it"):
        decompose(store, process=(1, 2))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TimeoutError, match=r"other processes have not done their blocks"):
        decompose(store, process=(0, 2))
    assert [int(mark.name) for mark in marks(store)] == list(range(0, 6, 2))
    with pytest.raises(TimeoutError, match=r"other processes have not done their blocks"):
        decompose(store, process=(1, 2))
    assert len(marks(store)) == 6
    decompose(store, process=(0, 2))
    assert files_of(store) == files_of(whole)
    decompose(store, process=(1, 2))


def test_same_run_started_twice(tmp_path, whole):
    """Another process, that nobody told of this one, ends while this one is at work."""
    store, model = tmp_path / "run.zarr", make_model()
    act_after(model, store, 3, lambda: decompose(store))
    decompose(store, model)
    assert files_of(store) == files_of(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.parametrize(
    ("process", "environment", "match"),
    [
        ((2, 2), {}, r"process=\(2, 2\); ranks of 2 processes are 0 to 1"),
        ((-1, 2), {}, "at least 0"),
        ((0, 0), {}, "at least 1"),
        ((0,), {}, "expected .rank"),
        (None, {"RANK": "3", "WORLD_SIZE": "2"}, r"RANK and WORLD_SIZE=\(3, 2\)"),
    ],
)
def test_wrong_processes(tmp_path, monkeypatch, process, environment, match):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=match):
        decompose(tmp_path / "run.zarr", process=process)
    assert list(tmp_path.iterdir()) == []


# Refused, with nothing overwritten


def other_weights():
    model = make_model()
    with torch.no_grad():
        model.network.module.dense.bias[0] += 1e-3
    return {"model": model}


def other_movie():
    movie = make_movie()
    movie[30, 2, 3] += 1e-3
    return {"movie": movie}


def other_time():
    movie = make_movie()
    movie["time"].values[-1] += 1e-9
    return {"movie": movie}


DIFFERENT = [
    (other_weights, "model is '"),
    (other_movie, "data values is '"),
    (lambda: {"movie": make_movie(50)}, "data shape is"),
    (lambda: {"movie": make_movie(gap=25)}, "data coordinates is '"),
    (lambda: {"layers": "conv"}, r"layers is \['conv', 'relu'\] there and \['conv'\] here"),
    (lambda: {"split_sign": False}, "split_sign is True there and False here"),
    (lambda: {"sum_over": "x"}, "sum_over is"),
    (lambda: {"method": rc.methods.IntegratedGradients(steps=4)}, "method is .*steps=3"),
    (
        lambda: {"method": rc.methods.IntegratedGradients(steps=3, baseline=np.ones((6, 6)))},
        "method is .*baseline=0.0.* baseline=array",
    ),
    (
        lambda: {"target": rc.targets.PerSample(np.arange(48) % 3)},
        r"target is .*PerSample\(labels=array",
    ),
    (lambda: {"extras": "activation"}, "extras is"),
    (lambda: {"batch_size": 16}, "batch_size is 8 there and 16 here"),
]


@pytest.mark.parametrize(("change", "match"), DIFFERENT)
def test_store_of_another_run_is_refused(whole, change, match):
    before = files_of(whole)
    with pytest.raises(ValueError, match=f"holds another run: {match}") as caught:
        decompose(whole, **change())
    assert "overwrite=True" in str(caught.value)
    assert files_of(whole) == before
    assert [path.name for path in whole.parent.iterdir()] == ["run.zarr"]


def test_another_layout_is_refused(tmp_path):
    network = nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 2, 1), nn.Flatten(), nn.Linear(8, 2))
    model = rc.models.from_module(
        network, history=2, bin_width=0.01, cells=["a", "b"], default_layers=["1"]
    )
    movie = make_movie()[:, :2, :2]
    model.layouts["1"] = rc.models.UnitLayout(("channel", "x"))
    rc.contributions(model, movie, store=tmp_path / "run.zarr", progress=False)
    model.layouts["1"] = rc.models.UnitLayout(("channel", "token"), grid=(2, 2))
    with pytest.raises(ValueError, match="holds another run: layouts is"):
        rc.contributions(model, movie, store=tmp_path / "run.zarr", progress=False)


def test_another_package_version_is_refused(whole, monkeypatch):
    monkeypatch.setattr(identity, "__version__", "99.0")
    with pytest.raises(ValueError, match=r"package version is .* there and '99.0' here"):
        decompose(whole)


def test_unfinished_store_of_another_run_is_refused(tmp_path):
    store, model = tmp_path / "run.zarr", make_model()
    with pytest.raises(KeyboardInterrupt):
        decompose(store, act_after(model, store, 2, _interrupt))
    before = files_of(tmp_path)
    with pytest.raises(ValueError, match=r"unfinished run of another kind: data values"):
        decompose(store, **other_movie())
    assert files_of(tmp_path) == before
    replaced = decompose(store, **other_movie(), overwrite=True)
    held = decompose(**other_movie())
    np.testing.assert_array_equal(replaced["target"].values, held["target"].values)


def test_overwrite_replaces_when_the_new_is_whole(tmp_path):
    store = tmp_path / "run.zarr"
    decompose(store)
    before = files_of(store)
    changed = other_weights()
    act_after(changed["model"], store, 3, _interrupt)
    with pytest.raises(KeyboardInterrupt):
        decompose(store, **changed, overwrite=True)
    assert files_of(store) == before
    tree = decompose(store, **other_weights(), overwrite=True)
    held = decompose(**other_weights())
    np.testing.assert_array_equal(tree["target"].values, held["target"].values)
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_holds_no_contributions_is_never_replaced(tmp_path, overwrite):
    folder, file, plain = (tmp_path / f"{name}.zarr" for name in ("folder", "file", "plain"))
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    file.write_text("thesis")
    rc.save_tree(xr.Dataset({"a": ("x", [1])}), plain)
    before = files_of(tmp_path)
    for store in (folder, file, plain):
        with pytest.raises(ValueError, match="holds no contributions; it is not replaced"):
            decompose(store, overwrite=overwrite)
    (tmp_path / "run.zarr.unfinished").mkdir()
    with pytest.raises(ValueError, match="in the way"):
        decompose(tmp_path / "run.zarr", overwrite=overwrite)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"store": "run.nc"}, r"netCDF .* use a name ending in .zarr, or .*save_tree"),
        ({"store": "run"}, "expected a name ending in .zarr"),
        ({"process": (0, 2)}, "process and overwrite are of a store"),
        ({"overwrite": True}, "process and overwrite are of a store"),
    ],
)
def test_arguments_that_do_not_go_together(changed, match):
    with pytest.raises(ValueError, match=match):
        decompose(**changed)


# What the data are compared by


def test_digest_is_of_values_not_of_how_they_are_held():
    movie = make_movie()
    lazy = movie.chunk(time=17)
    assert described_data(movie) == described_data(lazy)
    tensor = torch.from_numpy(movie.values)
    assert described_data(tensor)["data values"] == described_data(movie)["data values"]
    names = xr.DataArray(np.zeros(2), dims="n", coords={"n": np.array(["a", "b"], dtype=object)})
    assert described_data(names) == described_data(names.assign_coords(n=["a", "b"]).copy())
    assert described_data(names) != described_data(names.assign_coords(n=["a", "c"]))
    half = tensor.bfloat16()
    assert described_data(half) == described_data(half.clone())


def test_a_labelled_reference_is_told_by_its_coordinates_too():
    """Other blocks of the same frames are other samples."""
    movie = make_movie()
    blocks = movie.assign_coords(block=("time", np.arange(len(movie)) // 20))
    said = [
        identity._described(rc.targets.Surprisal(data)) for data in (movie, blocks, movie.copy())
    ]
    assert said[0] == said[2] != said[1]


def test_larger_data_are_compared_by_stretches(monkeypatch):
    monkeypatch.setattr(identity, "READ_WHOLE", 64 * 1000)
    values = np.zeros((64_000, 1), dtype=np.float32)  # stretches of 250 samples of 1000
    said = described_data(values)
    assert "64 stretches" in said["data values"]
    for index, seen in ((0, True), (63_999, True), (500, False)):
        changed = values.copy()
        changed[index] = 1
        assert (described_data(changed) != said) == seen


# How it is cut


def test_blocks_are_whole_batches_of_bounded_size():
    assert block_size(360_000, 2_000, 64) == 4096
    assert block_size(360_000, 2**20, 8) == cutting.BLOCK_BYTES // 2**20
    assert block_size(360_000, 2**25, 8) == 8  # one batch is more than is wanted
    assert block_size(6_000, 2_000, 64) == 128  # at least 32 for processes to share
    assert block_size(10, 2_000, 10) == 10


@pytest.mark.parametrize(
    "shape", [(4096, 20, 2, 8), (64, 20, 8, 36, 36), (64, 1000, 64, 56, 56), (1, 3000, 3000, 3)]
)
def test_chunks_are_bounded_and_divide_the_block(shape):
    chunks = chunks_of(shape, 4)
    assert shape[0] % chunks[0] == 0
    size = 4 * np.prod(chunks, dtype=np.int64)
    assert min(4 * np.prod(shape, dtype=np.int64), cutting.LARGEST_CHUNK / 4) < size + 1
    assert size <= cutting.LARGEST_CHUNK


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
