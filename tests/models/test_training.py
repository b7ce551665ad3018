"""Training: a planted filter is found, nothing leaks, the same seed gives the same weights."""

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.ln import _Regression
from retina_codec.models.segments import Segments, poisson_loss

KERNEL = np.array([0.9, 0.5, -0.6, -0.3])  # lag 0 first


def rate_of(drive):
    """Spikes per bin."""
    return 0.5 * np.log1p(np.exp(2 * drive - 0.5))


def planted(n=6000, seed=0, blocks=None):
    """A full-field recording of one cell with a known filter and a softplus."""
    rng = np.random.default_rng(seed)
    flicker = rng.normal(size=n)
    drive = np.convolve(flicker, KERNEL)[:n]
    counts = rng.poisson(rate_of(drive))
    coords = {"time": time_coordinate(np.arange(n) * 0.01, 0.01), "cell": ["a"]}
    if blocks is not None:
        coords["block"] = block_coordinate(blocks)
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), flicker[:, None, None].astype(np.float32)),
            "spike_count": (("time", "cell"), counts[:, None]),
        },
        coords=coords,
    )


def test_ln_from_spike_triggered_average_finds_the_filter():
    model = rc.models.LN.from_spike_triggered_average(planted(20000), history=6)
    kernel = model.layers["filter"].weight.detach().numpy().ravel()[::-1]
    assert np.corrcoef(kernel, np.r_[KERNEL, 0, 0])[0, 1] > 0.995


def test_least_squares_divides_out_the_correlations_of_the_movie():
    """On a movie smooth in time and space the spike-triggered average is blurred."""
    rng = np.random.default_rng(0)
    movie = rng.normal(size=(6000, 4, 5)).astype(np.float32)
    movie[1:] += 0.8 * movie[:-1]
    movie[:, 1:] += 0.8 * movie[:, :-1]
    movie /= movie.std()
    kernel = np.zeros((6, 4, 5))  # in time order
    kernel[-3:, 1:3, 2] = [[0.5, -0.3], [1.0, -0.6], [0.4, -0.2]]
    windows = np.lib.stride_tricks.sliding_window_view(movie, 6, axis=0)
    drive = np.r_[np.zeros(5), np.einsum("tyxl,lyx->t", windows, kernel)]
    counts = rng.poisson(rate_of(drive))
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), movie),
            "spike_count": (("time", "cell"), counts[:, None]),
        },
        coords={"time": time_coordinate(np.arange(6000) * 0.01, 0.01), "cell": ["a"]},
    )
    train, validation = node.isel(time=slice(4800)), node.isel(time=slice(4900, None))
    fitted = rc.models.LN.from_least_squares(
        train, validation=validation, history=6, progress=False
    )
    averaged = rc.models.LN.from_spike_triggered_average(train, history=6)
    r = [
        np.corrcoef(model.layers["filter"].weight.detach().numpy().ravel(), kernel.ravel())[0, 1]
        for model in (fitted, averaged)
    ]
    assert r[0] > 0.9, r
    assert r[1] < 0.8, r


def test_the_operator_of_least_squares_is_the_layer_and_its_transpose():
    node = planted(1300, blocks=np.repeat([0, 1], [700, 600]))
    model = rc.models.LN.for_recording(node, history=6)
    operator = _Regression(model, node)
    weights = torch.randn(1, 6, 1)
    with torch.no_grad():
        model.layers["filter"].weight.copy_(weights.reshape(1, 6, 1, 1, 1))
        batches = model.samples(node["stimulus"]).batches(5000)
        drive = torch.cat([model.layers["filter"](batch.inputs).flatten(1) for batch in batches])
    torch.testing.assert_close(operator.forward(weights), drive - drive.mean(0), atol=1e-4, rtol=0)
    residual = torch.randn(1300 - 2 * 5, 1)
    left = (operator.forward(weights) * residual).sum()
    right = (weights * operator.backward(residual)).sum()
    assert float(left) == pytest.approx(float(right), rel=1e-3)


@pytest.mark.parametrize("architecture", ["LN", "BNCNN"])
def test_training_reaches_the_planted_rate(architecture):
    node = planted()
    model = getattr(rc.models, architecture).for_recording(node, history=6)
    before = model.fingerprint
    history = rc.train(model, node, max_epochs=8, progress=False)
    assert model.fingerprint != before
    assert history.attrs["best_epoch"] == int(history.validation_loss.values.argmin())
    test = planted(seed=1)
    drive = np.convolve(test["stimulus"].values.ravel(), KERNEL)[:6000]
    predicted = model.predict(test["stimulus"])
    r = np.corrcoef(predicted.values[:, 0], rate_of(drive)[5:])[0, 1]
    assert r > 0.9


def test_kept_weights_are_those_of_the_best_epoch():
    node, validation = planted(1500), planted(1500, seed=3)
    model = rc.models.BNCNN.for_recording(node, history=6)
    history = rc.train(
        model, node, validation=validation, max_epochs=6, learning_rate=0.3, progress=False
    )
    predicted = model.predict(validation["stimulus"])
    counts = validation["spike_count"].sel(time=predicted["time"]).values
    loss = poisson_loss(torch.from_numpy(predicted.values), torch.from_numpy(counts), 0.01)
    assert float(loss) == pytest.approx(float(history.validation_loss.min()), rel=1e-5)


def test_same_seed_same_weights():
    node = planted(1500)
    prints = []
    for seed in (0, 0, 1):
        model = rc.models.BNCNN.for_recording(node, history=6)
        rc.train(model, node, max_epochs=2, seed=seed, progress=False)
        prints.append(model.fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_random_state_is_untouched():
    node = planted(1500)
    model = rc.models.BNCNN.for_recording(node, history=6)
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    rc.train(model, node, max_epochs=1, progress=False)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    assert not model.network.training


def test_learning_rate_zero_changes_batch_norm_only():
    node = planted(1500)
    model = rc.models.BNCNN.for_recording(node, history=6)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    rc.train(model, node, max_epochs=1, learning_rate=0.0, progress=False)
    changed = {
        name
        for name, value in model.network.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed
    assert all("running" in name or "num_batches" in name for name in changed)


def test_no_stretch_crosses_a_block_and_an_epoch_covers_the_data():
    node = planted(700, blocks=np.repeat([0, 1, 2], [300, 30, 370]))
    model = rc.models.LN.for_recording(node, history=10)
    segments = Segments(model, node, 4, 32, seed=0)
    seen = np.zeros(700, dtype=int)
    for epoch in range(2):
        segments.epoch = epoch
        for start in segments.starts():
            used = np.arange(start - 9, start + 32)
            assert len(np.unique(node["block"].values[used])) == 1
            seen[start : start + 32] += 1
    assert not seen[300:330].any()  # 30 frames hold no stretch of 32 and its history
    assert seen.max() <= 2
    assert (seen > 0).sum() > 580
    for frames, counts in segments:
        assert frames.shape[1:] == (41, 1, 1)
        assert len(counts) == 32 * len(frames)


class TestBadInput:
    def test_nan_loss_says_where_and_keeps_the_best_weights(self):
        node = planted(1500)
        model = rc.models.BNCNN.for_recording(node, history=6)
        with torch.no_grad():
            model.layers["dense"].weight[0, 0] = np.inf
        with pytest.raises(ValueError, match="training loss is nan in epoch 0: lower learning"):
            rc.train(model, node, max_epochs=1, progress=False)
        assert not model.network.training

    def test_other_cells(self):
        node = planted(1500)
        model = rc.models.LN((1, 1), history=6, bin_width=0.01, cells=["b"])
        with pytest.raises(ValueError, match=r"node has the cells .*; the model has \['b'\]"):
            rc.train(model, node, max_epochs=1, progress=False)

    def test_repeats(self):
        node = planted(1500)
        node["spike_count"] = node["spike_count"].expand_dims(repeat=2)
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match=r"spike_count has dims .*repeat"):
            rc.train(model, node, max_epochs=1, progress=False)

    def test_node_without_spikes(self):
        with pytest.raises(ValueError, match="recording has no spike_count"):
            rc.models.LN.for_recording(planted(100)[["stimulus"]])

    @pytest.mark.parametrize("name", ["max_epochs", "n_segments", "segment_length"])
    def test_zero(self, name):
        node = planted(500)
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match=f"{name}=0; expected a number of at least 1"):
            rc.train(model, node, **{name: 0}, progress=False)
