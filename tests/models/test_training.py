"""Training: a planted filter is found, nothing leaks, the same seed gives the same weights."""

import csv
import logging
import signal
import warnings

import dask.array as da
import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import block_coordinate, time_coordinate
from retina_codec.models.ln import _Regression
from retina_codec.models.segments import Segments, data_fingerprint, poisson_loss

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


@pytest.mark.parametrize("loss", ["poisson", "mse"])
def test_an_epoch_is_that_of_a_plain_loop(loss):
    """The literal twin: Adam on the loss with its penalties written out."""
    node, validation = planted(800), planted(400, seed=3)
    model, twin = (rc.models.LN.for_recording(node, history=6) for _ in range(2))
    history = rc.train(
        model,
        node,
        validation=validation,
        max_epochs=1,
        n_segments=2,
        loss=loss,
        schedule="constant",
        l1_rate=1e-2,
        l2_weights=0.3,
        progress=False,
    )
    twin.network.train()
    parameters = list(twin.network.parameters())
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    losses, sizes = [], []
    for frames, counts in Segments(twin, node, 2, 64, seed=0):
        rate = twin.network(frames)
        if loss == "poisson":
            part = (rate * 0.01 - counts * torch.log(rate * 0.01 + 1e-6)).mean()
        else:
            part = ((counts - rate * 0.01) ** 2).mean()
        squares = sum((p**2).sum() for p in parameters if p.ndim > 1)
        optimizer.zero_grad()
        (part + 1e-2 * rate.mean() + 0.15 * squares).backward()
        optimizer.step()
        losses.append(part.item())
        sizes.append(len(counts))
    assert len(losses) == 6
    for ours, theirs in zip(model.network.parameters(), parameters, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-4)
    assert float(history.train_loss[0]) == pytest.approx(
        np.average(losses, weights=sizes), rel=1e-5
    )
    rate = model.predict(validation["stimulus"])
    expected = rate.values * 0.01
    counts = validation["spike_count"].sel(time=rate["time"]).values
    by_hand = {
        "poisson": expected - counts * np.log(expected + 1e-6),
        "mse": (expected - counts) ** 2,
    }[loss]
    assert float(history.validation_loss[0]) == pytest.approx(by_hand.mean(), rel=1e-5)


def test_one_cycle_goes_up_and_comes_down():
    node = planted(1500)
    model = rc.models.LN.for_recording(node, history=6)
    history = rc.train(model, node, max_epochs=10, learning_rate=0.02, progress=False)
    rate = history.learning_rate.values
    assert rate.argmax() == 2  # 30 % of the way
    assert rate.max() == pytest.approx(0.02, rel=0.05)
    assert rate[-1] < 1e-3
    assert history.learning_rate.attrs["units"] == "1"
    assert history.seconds.attrs["units"] == "s"
    assert (history.seconds > 0).all()


@pytest.mark.parametrize("n_spikes", [0, 5])
def test_plateau_halves_the_rate_after_four_epochs_that_bring_nothing(n_spikes):
    """Also where so many spikes make the loss negative."""
    node = planted(1500)
    node["spike_count"] = node["spike_count"] + n_spikes
    model = rc.models.LN.for_recording(node, history=6)
    history = rc.train(
        model, node, max_epochs=10, learning_rate=1e-7, schedule="plateau", progress=False
    )
    np.testing.assert_allclose(history.learning_rate, [1e-7] * 5 + [5e-8] * 4 + [2.5e-8])
    assert (history.validation_loss < 0).all() == (n_spikes > 0)


def test_patience_counts_epochs_without_a_better_loss():
    node = planted(1500)
    model = rc.models.LN.for_recording(node, history=6)
    before = model.fingerprint
    history = rc.train(
        model, node, learning_rate=0.0, schedule="constant", patience=3, progress=False
    )
    assert history.sizes["epoch"] == 4  # the first, and three that were not better
    assert history.attrs["best_epoch"] == 0
    assert model.fingerprint == before


def test_log_has_a_line_an_epoch(tmp_path):
    node = planted(1500)
    model = rc.models.LN.for_recording(node, history=6)
    log = tmp_path / "new" / "log.csv"
    history = rc.train(model, node, max_epochs=3, log=log, progress=False)
    with log.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for name in ("train_loss", "validation_loss", "learning_rate", "seconds"):
        assert [float(row[name]) for row in rows] == history[name].values.tolist()


class TestSilentCells:
    def node(self):
        """Cells a, b, c; b is silent but for the last frames, which are not trained on."""
        node = planted(1500)
        counts = np.repeat(node["spike_count"].values, 3, axis=1)
        counts[:1350, 1] = 0
        node = node.drop_vars("cell").drop_dims("cell")
        node["spike_count"] = (("time", "cell"), counts)
        return node.assign_coords(cell=["a", "b", "c"])

    def parts(self):
        node = self.node()
        return node.isel(time=slice(1300)), node.isel(time=slice(1320, None))

    def test_are_refused_by_name(self):
        node, validation = self.parts()
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match=r"no spike of the cells b in its training part: take"):
            rc.train(model, node, validation=validation, progress=False)

    def test_kept_are_trained_to_be_silent(self):
        node, validation = self.parts()
        model = rc.models.LN.for_recording(node, history=6)
        rc.train(
            model, node, validation=validation, silent_cells="keep", max_epochs=8, progress=False
        )
        rate = model.predict(node["stimulus"]).mean("time")
        assert float(rate.sel(cell="b")) < 0.1 * float(rate.sel(cell="a"))

    def test_dropped_do_not_count(self):
        """The others learn what they learn without it, and it stays as it was."""
        node, validation = self.parts()
        options = {"max_epochs": 3, "progress": False}
        model = rc.models.LN.for_recording(node, history=6)
        before = model.predict(node["stimulus"]).sel(cell="b")
        history = rc.train(model, node, validation=validation, silent_cells="drop", **options)
        xr.testing.assert_equal(model.predict(node["stimulus"]).sel(cell="b"), before)
        others = ["a", "c"]
        alone = rc.models.LN.for_recording(node.sel(cell=others), history=6)
        with torch.no_grad():
            start = rc.models.LN.for_recording(node, history=6).network.state_dict()
            alone.network.load_state_dict({k: v[[0, 2]] for k, v in start.items()})
        expected = rc.train(
            alone, node.sel(cell=others), validation=validation.sel(cell=others), **options
        )
        np.testing.assert_allclose(history.validation_loss, expected.validation_loss, rtol=1e-5)

    def test_all_silent_cannot_be_dropped(self):
        node, validation = self.parts()
        node["spike_count"] *= 0
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match="no spike of the cells a, b, c"):
            rc.train(model, node, validation=validation, silent_cells="drop", progress=False)


class Counting:
    """An array that says how many frames were read of it."""

    def __init__(self, values):
        self.values, self.n_read = values, 0
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim

    def __getitem__(self, key):
        part = self.values[key]
        self.n_read += len(part)
        return part


def lazily(node, chunk):
    """The same with a dask-backed movie, and the source that counts its reads."""
    source = Counting(node["stimulus"].values)
    chunks = (chunk, *source.shape[1:])
    lazy = da.from_array(source, chunks=chunks, name=False, asarray=False, meta=np.empty((0, 0, 0)))
    return node.assign(stimulus=(("time", "y", "x"), lazy)), source


class TestMovieLargerThanTheBudget:
    def test_is_read_once_an_epoch_in_regions(self):
        node, source = lazily(planted(4000), 100)
        model = rc.models.LN.for_recording(node, history=6)
        source.n_read = 0
        segments = Segments(model, node, 8, 16, seed=0, budget=1600 * 4)  # regions of 800 frames
        assert source.n_read == 0
        assert len(np.unique(segments.starts() // 800)) == 5
        whole = Segments(model, planted(4000), 8, 16, seed=0)
        for epoch in range(2):
            segments.epoch = whole.epoch = epoch
            source.n_read = 0
            batches = list(segments)
            # The edges of a region reach into a chunk of each neighbour.
            assert source.n_read <= 4000 + 5 * 2 * 100
            # The same stretches as in memory, each once, in another order.
            assert sorted(segments.starts()) == sorted(whole.starts())
            flat = torch.cat([frames for frames, _ in batches])
            normal = torch.from_numpy(source.values - model.mean) / model.sd
            counts = torch.cat([counts for _, counts in batches]).reshape(len(flat), 16)
            for start, frames, seen in zip(segments.starts(), flat, counts, strict=True):
                torch.testing.assert_close(frames, normal[start - 5 : start + 16])
                assert seen.tolist() == node["spike_count"].values[start : start + 16, 0].tolist()

    def test_each_region_is_read_once_with_its_edges(self, monkeypatch):
        node, _ = lazily(planted(4000), 100)
        model = rc.models.LN.for_recording(node, history=6)
        segments = Segments(model, node, 8, 16, seed=0, budget=1600 * 4)
        sizes = []
        read = segments._read
        monkeypatch.setattr(segments, "_read", lambda a, b: sizes.append(b - a) or read(a, b))
        list(segments)
        assert len(sizes) == 5
        assert max(sizes) <= 800 + 5 + 16

    def test_trains(self, monkeypatch):
        monkeypatch.setattr("retina_codec.models.segments.MOVIE_BUDGET", 6000 * 4)
        node, _ = lazily(planted(8000), 500)
        model = rc.models.LN.for_recording(node, history=6)
        history = rc.train(model, node, max_epochs=4, progress=False)
        assert history.validation_loss[-1] < history.validation_loss[0]

    def test_nan_says_in_which_frame(self):
        node = planted(4000)
        node["stimulus"][2345] = np.nan
        lazy, _ = lazily(node, 100)
        model = rc.models.LN((1, 1), history=6, bin_width=0.01, cells=["a"])
        with pytest.raises(ValueError, match="frame 2345"):
            list(Segments(model, lazy, 8, 16, seed=0, budget=1600 * 4))


def test_fingerprint_of_the_data_tells_them_apart():
    node = planted(1000)
    model = rc.models.LN.for_recording(node, history=6)
    others = [node.copy(deep=True) for _ in range(3)]
    others[0]["stimulus"][517] += 1
    others[1]["spike_count"][3] += 1
    others[2] = others[2].assign_coords(block=("time", np.repeat([0, 1], 500)))
    seen = {
        data_fingerprint(model.samples(each["stimulus"]), each)
        for each in (node, *others, node.copy(deep=True))
    }
    assert len(seen) == 4


def test_processes_share_each_batch():
    node = planted(2000)
    model = rc.models.LN.for_recording(node, history=6)
    together = list(Segments(model, node, 8, 32, seed=0))
    parts = []
    for process in range(2):
        segments = Segments(model, node, 4, 32, seed=0)
        segments.process, segments.n_processes = process, 2
        parts.append(list(segments))
        assert len(parts[-1]) <= len(segments)
    assert len(parts[0]) == len(parts[1]) == len(together)
    for whole, first, second in zip(together, *parts, strict=True):
        joined = torch.cat([first[0], second[0]])
        assert len(first[0]) == len(second[0])
        torch.testing.assert_close(joined, whole[0][: len(joined)], rtol=0, atol=0)
        assert len(whole[0]) - len(joined) in (0, 1)


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


class Breaking(torch.nn.Module):
    """Goes wrong in the second mini-batch of the third epoch (there are three in each)."""

    def __init__(self, how):
        super().__init__()
        self.linear = torch.nn.Linear(6, 1)
        self.how, self.n_calls, self.always = how, 0, False

    def forward(self, windows):
        rate = 10 + torch.nn.functional.softplus(self.linear(windows.flatten(1)))
        if self.always and not self.training:
            return rate * np.nan
        self.n_calls += self.training
        if self.how is None or self.n_calls < 8:
            return rate
        if self.how == "raise":
            raise RuntimeError("broken on purpose")
        if self.how == "interrupt":
            raise KeyboardInterrupt
        with torch.no_grad():
            self.linear.weight.fill_(np.nan)
        return rate * np.nan


def breaking(node, how):
    """A model of `Breaking`, three mini-batches in an epoch of 1500 frames, and the network."""
    torch.manual_seed(0)
    network = Breaking(how)
    return rc.models.from_module(network, history=6, bin_width=0.01, cells=["a"]), network


class TestBadInput:
    def test_nan_loss_says_where_and_keeps_the_best_weights(self):
        node = planted(1500)
        model = rc.models.BNCNN.for_recording(node, history=6)
        with torch.no_grad():
            model.layers["dense"].weight[0, 0] = np.inf
        with pytest.raises(ValueError, match="loss is nan in epoch 0, mini-batch 0: lower learn"):
            rc.train(model, node, max_epochs=1, progress=False)
        assert not model.network.training

    def test_nan_later_keeps_the_best_weights_and_the_last_checkpoint(self, tmp_path):
        node = planted(1500)
        options = {"validation": planted(600, seed=3), "schedule": "constant", "progress": False}
        expected, _ = breaking(node, None)
        rc.train(expected, node, max_epochs=2, **options)
        model, _ = breaking(node, "nan")
        with pytest.raises(
            ValueError,
            match=r"loss is nan in epoch 2, mini-batch 1: lower .* keeps the weights of epoch 1, "
            r"and the last checkpoint is .*epoch-00002.ckpt",
        ):
            rc.train(model, node, max_epochs=4, checkpoints=tmp_path, **options)
        assert model.fingerprint == expected.fingerprint

    def test_interrupt_is_one_and_keeps_the_best_weights(self):
        node = planted(1500)
        options = {"validation": planted(600, seed=3), "schedule": "constant", "progress": False}
        expected, _ = breaking(node, None)
        rc.train(expected, node, max_epochs=2, **options)
        model, _ = breaking(node, "interrupt")
        handler = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            rc.train(model, node, max_epochs=4, **options)
        assert signal.getsignal(signal.SIGINT) is handler
        assert model.fingerprint == expected.fingerprint

    def test_nan_in_validation(self):
        node, validation = planted(1500), planted(600, seed=3)
        model, broken = breaking(node, None)
        broken.always = True
        before = model.fingerprint
        with pytest.raises(ValueError, match="validation loss is nan after epoch 0: lower"):
            rc.train(model, node, validation=validation, max_epochs=1, progress=False)
        assert model.fingerprint == before

    @pytest.mark.parametrize("raises", [False, True])
    def test_nothing_is_left_behind(self, raises):
        node = planted(1500)
        model, _ = breaking(node, "raise" if raises else None)
        loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
        levels = [logger.level for logger in loggers]
        torch.manual_seed(9)
        expected = torch.rand(3)
        torch.manual_seed(9)
        if raises:
            with pytest.raises(RuntimeError, match="broken on purpose"):
                rc.train(model, node, max_epochs=4, progress=False)
        else:
            rc.train(model, node, max_epochs=1, progress=False)
        torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
        assert [logger.level for logger in loggers] == levels
        for module in model.network.modules():
            assert not module.training
            assert not module._forward_hooks
            assert not module._forward_pre_hooks
            assert not module._backward_hooks
        assert all(p.grad is None and p.requires_grad for p in model.network.parameters())

    def test_frames_of_another_size(self):
        node = planted(1500)
        model = rc.models.LN((2, 3), history=6, bin_width=0.01, cells=["a"])
        with pytest.raises(
            ValueError,
            match=r"node: its stimulus does not fit the model: .* frames of \(1, 1\); the model "
            r"takes frames of \(2, 3\)",
        ):
            rc.train(model, node, progress=False)

    def test_history_longer_than_every_block(self):
        node = planted(1500, blocks=np.repeat(np.arange(30), 50))
        model = rc.models.LN.for_recording(node, history=60)
        with pytest.raises(ValueError, match=r"history=60 frames \(the longest has 50\)"):
            rc.train(model, node, validation=planted(500), progress=False)
        with pytest.raises(ValueError, match=r"validation: its stimulus .*history=60 frames"):
            rc.train(model, planted(1500), validation=node, progress=False)

    def test_fork_after_a_gradient(self, monkeypatch):
        """As torch refuses it, where there is a GPU."""
        node = planted(1500)
        model = rc.models.LN.for_recording(node, history=6)

        def fail(*_):
            text = "Traceback:\n  x\nRuntimeError: Unable to handle autograd's threading in a fork"
            raise torch.multiprocessing.ProcessRaisedException(text, 0, 1)

        monkeypatch.setattr("lightning.Trainer.fit", fail)
        with pytest.raises(ValueError, match=r"strategy='auto': torch cannot .*'ddp_spawn', or"):
            rc.train(model, node, progress=False)

    def test_fewer_samples_than_a_batch(self):
        node = planted(400)
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(
            ValueError,
            match=r"node has 6 stretches of 64 frames with a whole history; a mini-batch takes "
            r"n_segments=8: lower n_segments or segment_length",
        ):
            rc.train(model, node, validation=planted(500), progress=False)

    def test_counts_that_are_none(self):
        node = planted(1500).astype(np.float32)
        model = rc.models.LN.for_recording(node, history=6)
        node["spike_count"][7] = np.nan
        with pytest.raises(ValueError, match=r"node: spike_count has 1 NaN"):
            rc.train(model, node, progress=False)
        node["spike_count"][7] = -1
        with pytest.raises(ValueError, match="node: spike_count has negative values"):
            rc.train(model, node, progress=False)

    def test_no_model(self):
        with pytest.raises(TypeError, match="model is a Linear; expected a retina model"):
            rc.train(torch.nn.Linear(2, 2), planted(500))

    def test_nothing_to_train(self):
        net = torch.nn.Flatten()
        model = rc.models.from_module(net, history=1, bin_width=0.01, cells=["a"])
        with pytest.raises(ValueError, match="model has no parameter to train"):
            rc.train(model, planted(500))

    @pytest.mark.parametrize("name", ["loss", "schedule", "silent_cells"])
    def test_unknown_choice(self, name):
        node = planted(500)
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match=f"{name}='plateu' is not known; .*choices"):
            rc.train(model, node, **{name: "plateu"})

    @pytest.mark.parametrize("name", ["learning_rate", "l1_rate", "l2_weights"])
    def test_negative(self, name):
        node = planted(500)
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match=f"{name}=-1; expected a number of at least 0"):
            rc.train(model, node, **{name: -1})

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

    def test_time_that_goes_back(self):
        """Counts are matched to predictions by their time."""
        node = planted(1500)
        model = rc.models.LN.for_recording(node, history=6)
        glm = rc.models.GLM.for_recording(node, history=6)
        back = planted(1500, blocks=np.repeat([0, 1], 750))
        onsets = np.tile(np.arange(750) * 0.01, 2)
        back = back.assign_coords(time=time_coordinate(onsets, 0.01))
        message = r": time goes back after bin 749 \(7\.49 to 0 s\), so that .* lay the blocks end"
        with pytest.raises(ValueError, match=f"node{message}"):
            rc.train(model, back, progress=False)
        with pytest.raises(ValueError, match=f"validation{message}"):
            rc.train(model, node, validation=back, progress=False)
        with pytest.raises(ValueError, match=f"node{message}"):
            rc.evaluate(model, back)
        with pytest.raises(ValueError, match=f"node{message}"):
            glm.log_likelihood(back)
        for make in (rc.models.GLM.for_recording, rc.models.GLM.from_maximum_likelihood):
            with pytest.raises(ValueError, match=f"recording{message}"):
                make(back, history=6)
        for architecture in (rc.models.GLM, rc.models.LN):
            with pytest.raises(ValueError, match=f"validation{message}"):
                architecture.from_maximum_likelihood(node, validation=back, history=6)
        still = node.assign_coords(time=time_coordinate(np.minimum(node["time"], 14.9), 0.01))
        with pytest.raises(ValueError, match=r"node: time goes back after bin 1490 \(14.9 to 14.9"):
            rc.train(model, still, progress=False)

    def test_node_without_spikes(self):
        with pytest.raises(ValueError, match="recording has no spike_count"):
            rc.models.LN.for_recording(planted(100)[["stimulus"]])

    @pytest.mark.parametrize("name", ["max_epochs", "n_segments", "segment_length", "patience"])
    def test_zero(self, name):
        node = planted(500)
        model = rc.models.LN.for_recording(node, history=6)
        with pytest.raises(ValueError, match=f"{name}=0; expected a number of at least 1"):
            rc.train(model, node, **{name: 0}, progress=False)


def test_blocks_too_short_for_a_stretch_are_named():
    """A recording of many short blocks and a long one must not be trained on the long one alone."""
    rng = np.random.default_rng(0)
    lengths = [60] * 4 + [400]
    n = sum(lengths)
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    node = xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), rng.normal(size=(n, 1, 1)).astype(np.float32)),
            "spike_count": (("time", "cell"), rng.poisson(0.3, (n, 1))),
        },
        coords={
            "time": rc.time_coordinate(np.arange(n) * 0.01 + numbers, 0.01),
            "block": ("time", numbers),
            "cell": ["a"],
        },
    )
    options = {"validation": node, "max_epochs": 1, "n_segments": 2, "progress": False}
    model = rc.models.LN.for_recording(node, history=8)
    with pytest.warns(UserWarning, match="240 of 640 frames are in blocks too short.*of 64 frames"):
        rc.train(model, node, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rc.train(model, node, segment_length=32, **options)
