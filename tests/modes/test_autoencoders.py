"""All autoencoders keep the same promises; the sparse ones find planted dictionaries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.optimize import linear_sum_assignment

from retina_codec._common import checks
from retina_codec._common.files import save_tree
from retina_codec.modes import fit_modes, load_modes, training
from retina_codec.modes.codec import Codec, sigmoid_code
from retina_codec.modes.linear import strongest
from retina_codec.modes.result import KINDS
from retina_codec.modes.scaling import SCALINGS
from retina_codec.modes.training import NETWORKS

# A low threshold of "codec", whose few epochs leave codes near a half.
QUICK = {"n_modes": 6, "max_epochs": 4, "threshold": 0.3, "progress": False}
SPARSE = {"topk": 2, "batch_topk": 1.44, "jumprelu": 1.44}  # 12 % of 12 atoms are active


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("autoencoder", SPARSE)
def test_planted_dictionary_is_recovered(planted, autoencoder, seed):
    values, teams = planted(seed, n=1500)
    modes = fit_modes(
        xr.DataArray(values, dims=("time", "channel")),
        features="channel",
        autoencoder=autoencoder,
        n_modes=24,
        k=SPARSE[autoencoder],
        seed=seed,
        max_epochs=60,
        progress=False,
    )
    expected = teams / np.sqrt(np.sqrt(np.mean(values**2, axis=0)))
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    cosine = expected @ modes.dictionary.values.T
    found = cosine[linear_sum_assignment(-cosine)]
    assert (found > 0.95).mean() >= 0.9
    np.testing.assert_allclose(np.linalg.norm(modes.dictionary, axis=1), 1, rtol=1e-5)


def test_codec_with_annealed_threshold_keeps_its_modes(planted):
    values, _ = planted(0, n=2000)
    contribution = xr.DataArray(values, dims=("time", "channel"))
    options = {"features": "channel", "autoencoder": "codec", "n_modes": 24, "progress": False}
    modes = fit_modes(contribution, max_epochs=100, **options)
    assert (modes.loadings["active_fraction"] == 0).mean() <= 0.1
    loadings = modes.loadings.values
    assert ((loadings == 0) | ((loadings > 0.9) & (loadings <= 1))).all()


def test_fixed_threshold_of_codec_kills_everything_and_says_so(contribution):
    with pytest.raises(ValueError, match=r"threshold=0.99 with anneal=0 kills every code; anneal"):
        fit_modes(contribution, autoencoder="codec", **{**QUICK, "threshold": 0.99, "anneal": 0})


def test_penalty_that_leaves_nothing_is_said(contribution):
    options = {**QUICK, "max_epochs": 1, "learning_rate": 1.0, "penalty": 1e3}
    with pytest.raises(ValueError, match="no mode is active in any sample: penalty=1000"):
        fit_modes(contribution, autoencoder="l1", **options)


@pytest.mark.parametrize("autoencoder", KINDS)
def test_every_autoencoder(contribution, tmp_path, autoencoder):
    options = {"autoencoder": autoencoder, "decoder_bias": True, **QUICK}
    modes = fit_modes(contribution, **options)
    # The same seed gives the same bits, in whatever order the dims are.
    turned = contribution.transpose("channel", "cell", "sign", "time")
    again = fit_modes(turned, **options)
    xr.testing.assert_identical(modes.loadings, again.loadings)
    xr.testing.assert_identical(modes.dictionary, again.dictionary)
    assert modes.loadings.dims == ("time", "cell", "mode")
    assert again.reconstruct().dims == turned.dims
    xr.testing.assert_identical(
        again.reconstruct().transpose(*contribution.dims), modes.reconstruct()
    )
    # reconstruct is loadings @ dictionary + offset, transformed back with the training rows' scale.
    scores = modes.score()
    kept = contribution[~(scores["held_out"] | scores["aside"]).values].astype(float)
    scaled = xr.dot(modes.loadings.astype(float), modes.dictionary.astype(float), dim="mode")
    scaled = scaled + modes.offset.astype(float)
    if autoencoder == "codec":
        expected = scaled * kept.values.std()
    else:
        expected = scaled * abs(scaled) * np.sqrt((kept**2).mean(("time", "cell")))
    np.testing.assert_allclose(
        modes.reconstruct().values,
        expected.transpose(*contribution.dims).values,
        atol=1e-5,
        rtol=1e-3,
    )
    # A sample's loadings do not depend on its company.
    alone = modes.transform(contribution.isel(time=slice(7, 8)))
    np.testing.assert_allclose(alone, modes.loadings.isel(time=slice(7, 8)), atol=2e-3)
    if autoencoder != "pca":
        assert (modes.loadings >= 0).all()
    for labels in ("netcdf", "zarr"):
        loaded = load_modes(modes.save(tmp_path / labels, labels=labels))
        xr.testing.assert_identical(modes.loadings, loaded.loadings)
        xr.testing.assert_identical(modes.dictionary, loaded.dictionary)
        xr.testing.assert_identical(modes.score(), loaded.score())
        xr.testing.assert_identical(modes.reconstruct(), loaded.reconstruct())
        xr.testing.assert_identical(modes.transform(contribution), loaded.transform(contribution))


@pytest.mark.parametrize("autoencoder", NETWORKS)
def test_interrupted_fit_ends_with_the_same_bits(contribution, tmp_path, monkeypatch, autoencoder):
    options = {"autoencoder": autoencoder, **QUICK}
    whole = fit_modes(contribution, **options)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", -1.0)
    true_epoch, done = training._epoch, []

    def killed(*args):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return true_epoch(*args)

    file = tmp_path / "fit.ckpt"
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(training, "_epoch", killed)
        fit_modes(contribution, checkpoint=file, **options)
    resumed = fit_modes(contribution, checkpoint=file, resume=True, **options)
    xr.testing.assert_identical(whole.loadings, resumed.loadings)
    xr.testing.assert_identical(whole.dictionary, resumed.dictionary)
    for change in ({"seed": 1}, {"n_modes": 5}):
        with pytest.raises(ValueError, match="a fit with other arguments or other contributions"):
            fit_modes(contribution, checkpoint=file, resume=True, **{**options, **change})
    with pytest.raises(ValueError, match="other contributions"):
        fit_modes(2 * contribution, checkpoint=file, resume=True, **options)
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match="damaged or no checkpoint"):
        fit_modes(contribution, checkpoint=file, resume=True, **options)
    with pytest.raises(ValueError, match="resume=True without checkpoint="):
        fit_modes(contribution, resume=True, **options)


@pytest.mark.parametrize("autoencoder", ["topk", "batch_topk", "jumprelu", "l1"])
def test_non_negative_atoms_keep_to_the_sign_of_their_columns(contribution, autoencoder):
    modes = fit_modes(contribution, autoencoder=autoencoder, non_negative=True, **QUICK)
    assert (modes.dictionary.sel(sign="positive") >= 0).all()
    assert (modes.dictionary.sel(sign="negative") <= 0).all()
    assert (modes.dictionary.sel(sign="negative") < 0).any()
    norms = np.linalg.norm(modes.dictionary.values.reshape(6, -1), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


def test_unit_norm_is_an_option(contribution):
    free = fit_modes(contribution, unit_norm=False, **QUICK)
    norms = np.linalg.norm(free.dictionary.values.reshape(6, -1), axis=1)
    assert abs(norms - 1).max() > 1e-3
    held = fit_modes(contribution, autoencoder="codec", unit_norm=True, **QUICK)
    norms = np.linalg.norm(held.dictionary.values.reshape(6, -1), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scalings_are_undone(contribution, scaling, tmp_path):
    # As many components as columns: the reconstruction is whatever the scaling leaves.
    options = {"autoencoder": "pca", "n_modes": 12, "progress": False}
    modes = fit_modes(contribution, scaling=scaling, **options)
    np.testing.assert_allclose(modes.reconstruct(), contribution, atol=1e-4)
    loaded = load_modes(modes.save(tmp_path / "modes"))
    xr.testing.assert_identical(loaded.reconstruct(), modes.reconstruct())


def test_given_atoms_stay_and_only_the_encoder_is_fitted(planted):
    values, teams = planted(0, n=2000)
    contribution = xr.DataArray(values, dims=("time", "channel"))
    atoms = teams / np.sqrt(np.sqrt(np.mean(values**2, axis=0)))
    atoms = xr.DataArray(atoms, dims=("mode", "channel"))
    for autoencoder in NETWORKS:
        modes = fit_modes(
            contribution, features="channel", dictionary=atoms, autoencoder=autoencoder,
            max_epochs=5, threshold=0.3, progress=False,
        )  # fmt: skip
        order = abs(atoms.values[:, None] - modes.dictionary.values[None]).sum(-1).argmin(1)
        assert sorted(order) == list(range(12))
        np.testing.assert_allclose(modes.dictionary.values[order], atoms, rtol=1e-5)
    for wrong, message in (
        (atoms.rename(channel="unit"), r"expected 'mode' and \('channel',\)"),
        (atoms[:, :3], "dictionary has other columns than contribution"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_modes(contribution, features="channel", dictionary=wrong, progress=False)
    with pytest.raises(ValueError, match="dictionary is not for the baseline 'pca'"):
        fit_modes(contribution, features="channel", dictionary=atoms, autoencoder="pca")


def test_codec_is_what_the_paper_says():
    """An independent forward pass by torch's modules."""
    torch.manual_seed(0)
    n_columns, n_modes = 5, 7
    net = torch.nn.Sequential(
        torch.nn.Linear(n_columns, n_columns), torch.nn.Dropout(0.05), torch.nn.ReLU(),
        torch.nn.LayerNorm(n_columns),
        torch.nn.Linear(n_columns, n_columns), torch.nn.Dropout(0.05), torch.nn.ReLU(),
        torch.nn.LayerNorm(n_columns),
        torch.nn.Linear(n_columns, n_modes), torch.nn.Sigmoid(),
    ).eval()  # fmt: skip
    rows = torch.randn(20, n_columns)
    arrays = {
        name: value.detach().numpy()
        for name, value in {
            "first_weight": net[0].weight, "first_bias": net[0].bias,
            "first_scale": net[3].weight, "first_shift": net[3].bias,
            "second_weight": net[4].weight, "second_bias": net[4].bias,
            "second_scale": net[7].weight, "second_shift": net[7].bias,
            "encoder": net[8].weight, "bias": net[8].bias,
        }.items()
    }  # fmt: skip
    codec = Codec(
        dictionary=np.ones((n_modes, n_columns), dtype=np.float32),
        offset=np.zeros(n_columns, dtype=np.float32),
        threshold=np.array([0.5], dtype=np.float32),
        **arrays,
    )
    expected = net(rows)
    expected = torch.where(expected > 0.5, expected, 0.0).detach()
    np.testing.assert_allclose(codec.encode(rows.numpy()), expected, rtol=1e-5)
    # Dropout: 5 % of the first layer's units are 0, the others scaled up.
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    assert not torch.equal(sigmoid_code(rows, weights, generator), sigmoid_code(rows, weights))


def test_topk_against_sorting():
    code = np.random.default_rng(0).random((50, 9))
    expected = np.where(code >= np.sort(code, axis=1)[:, -3:-2], code, 0)
    np.testing.assert_array_equal(strongest(torch.from_numpy(code), 3), expected)


@pytest.mark.parametrize("autoencoder", ["batch_topk", "jumprelu"])
def test_mean_number_of_active_modes_is_k(planted, autoencoder):
    values, _ = planted(1, n=2000)
    modes = fit_modes(
        xr.DataArray(values, dims=("time", "channel")),
        features="channel", autoencoder=autoencoder, n_modes=12, k=2.5, max_epochs=40,
        progress=False,
    )  # fmt: skip
    assert float(modes.score()["l0"]) == pytest.approx(2.5, rel=0.15)


@pytest.mark.parametrize("autoencoder", ["topk", "batch_topk", "codec", "pca", "nmf"])
def test_larger_than_memory_is_read_in_blocks(
    movie_contribution, tmp_path, monkeypatch, autoencoder
):
    contribution = movie_contribution(n=1000)
    store = tmp_path / "c.zarr"
    save_tree(contribution.chunk({"time": 50}).to_dataset(), store)
    lazy = xr.open_zarr(store)["contribution"]
    options = {"autoencoder": autoencoder, **QUICK}
    monkeypatch.setattr(checks, "BLOCK_BYTES", contribution.nbytes // 10)
    reads = []

    class Watched(xr.DataArray):
        __slots__ = ()

        @property
        def values(self):
            if self.ndim == 4:
                reads.append(self.sizes["time"])
            return super().values

    budget = contribution.nbytes / 2
    modes = fit_modes(
        Watched(lazy), memory_budget=budget, store=tmp_path / "loadings.zarr", **options
    )
    assert reads and max(reads) <= 125  # a quarter of the budget
    assert modes.loadings.chunks is not None
    assert modes.loadings.dims == ("time", "cell", "mode")
    inside = fit_modes(contribution, **options)
    held_out = inside.score()["held_out"].values
    np.testing.assert_array_equal(modes.score()["held_out"].values, held_out)
    encoded = modes.transform(contribution)
    np.testing.assert_allclose(modes.loadings.values, encoded, atol=2e-3)
    # Scores block by block are those at once.
    expected = modes.score(contribution.isel(time=held_out))
    np.testing.assert_allclose(modes.score()["r2"], expected["r2"], rtol=1e-4, atol=1e-6)
    assert int(modes.score()["alive"]) == int(expected["alive"])
    if autoencoder in ("pca", "nmf"):
        a, b = modes.dictionary.values.reshape(6, -1), inside.dictionary.values.reshape(6, -1)
        cosine = abs((a * b).sum(1)) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        np.testing.assert_allclose(cosine, 1, atol=1e-4)
    loaded = load_modes(modes.save(tmp_path / "saved", labels="zarr"), lazy=True)
    assert loaded.loadings.chunks is not None
    xr.testing.assert_identical(loaded.loadings.load(), modes.loadings.load())
    written = modes.transform(contribution, store=tmp_path / "again.zarr")
    np.testing.assert_array_equal(written.values, encoded.values)


def test_loadings_that_do_not_fit_ask_for_a_store(contribution, monkeypatch):
    monkeypatch.setattr("retina_codec.modes.encoding.MEMORY_LIMIT", 1000)
    with pytest.raises(ValueError, match="name a Zarr store with store="):
        fit_modes(contribution, **QUICK)
    with pytest.raises(ValueError, match=r"store='loadings.nc'; expected a name ending in .zarr"):
        fit_modes(contribution, store="loadings.nc", **QUICK)


def test_bad_settings_are_named(contribution):
    def fails(message, **options):
        with pytest.raises(ValueError, match=message):
            fit_modes(contribution, **{**QUICK, **options})

    fails("threshold=1; expected a number from 0 to below 1", autoencoder="codec", threshold=1)
    fails("anneal=2; expected a share", anneal=2)
    fails("penalty=-1; expected", penalty=-1)
    fails("learning_rate=0; expected a number above 0", learning_rate=0)
    fails("k=0; expected a mean number of active modes above 0", autoencoder="jumprelu", k=0)
    fails("scaling='sd' is not known", scaling="sd")
    fails("unit_norm=False with autoencoder='l1'", autoencoder="l1", unit_norm=False)
    fails("non_negative is not for the baseline 'nmf'", autoencoder="nmf", non_negative=True)
    with pytest.raises(TypeError, match=r"k=1\.5; expected a whole number"):
        fit_modes(contribution, **{**QUICK, "k": 1.5})
    modes = fit_modes(contribution, **QUICK)
    with pytest.raises(ValueError, match="labels='hdf' is not known"):
        modes.save("folder", labels="hdf")
