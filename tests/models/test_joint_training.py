"""Training of several recordings with one core: a plain loop's numbers, and train's checks."""

import csv
import logging
import warnings

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.segments import Segments, joint_batches
from retina_codec.models.shared_core import train_jointly

SIZES = {"history": 5, "channels": (3, 2)}
QUICK = {"n_segments": 2, "segment_length": 16, "progress": False}
L1, L1_READOUT, L2 = 1e-2, 0.03, 0.3


def recording(n, size=(6, 7), cells=("a", "b"), seed=0):
    """Cells that see one pixel of a movie."""
    rng = np.random.default_rng(seed)
    movie = rng.normal(size=(n, *size)).astype(np.float32)
    drive = np.convolve(movie[:, 2, 3], [0.9, 0.5, -0.6])[:n]
    counts = rng.poisson(0.5 * np.log1p(np.exp(2 * drive - 0.5))[:, None], size=(n, len(cells)))
    return xr.Dataset(
        {"stimulus": (("time", "y", "x"), movie), "spike_count": (("time", "cell"), counts)},
        coords={"time": time_coordinate(np.arange(n) * 0.01, 0.01), "cell": list(cells)},
    )


def nodes():
    return {
        "one": recording(330, seed=1),
        "two": recording(140, size=(8, 6), cells=("c", "d", "e"), seed=2),
    }


def validation():
    return {
        "one": recording(120, seed=3),
        "two": recording(90, size=(8, 6), cells=("c", "d", "e"), seed=4),
    }


def shared(recordings=None):
    """Models whose readouts add no noise to their places."""
    model = rc.models.CoreReadout.for_recordings(recordings or nodes(), start="centre", **SIZES)
    with torch.no_grad():
        for session in model.sessions.values():
            session.network.readout.log_sd.fill_(-50)
    return model


def squares(session):
    """Sum of squares of the weights of the core and of this session's readout, by their names."""
    core = session.core.convolutions
    weights = [part.weight for layer in core for part in (layer.space, layer.time)]
    return sum((w**2).sum() for w in [*weights, session.network.readout.features])


def loss_of(rate, counts, kind):
    expected = rate * 0.01
    if kind == "mse":
        return ((counts - expected) ** 2).mean()
    return (expected - counts * torch.log(expected + 1e-6)).mean()


@pytest.mark.parametrize("kind", ["poisson", "mse"])
def test_two_epochs_are_those_of_a_plain_loop(kind):
    """The literal twin: one Adam over all, with the penalties written out."""
    model, twin, parts = shared(), shared(), nodes()
    history = train_jointly(
        model,
        parts,
        validation=validation(),
        max_epochs=2,
        l1_rate=L1,
        l1_readout=L1_READOUT,
        l2_weights=L2,
        schedule="constant",
        loss=kind,
        seed=3,
        **QUICK,
    )
    segments = {n: Segments(m, parts[n], 2, 16, 3) for n, m in twin.sessions.items()}
    optimizer = torch.optim.Adam(list(twin.network.parameters()), lr=1e-2)
    by_hand = {"train": np.zeros((2, 2)), "validation": np.zeros((2, 2))}
    states = []
    for epoch in range(2):
        twin.network.train()
        seen = {name: [] for name in parts}
        for name, frames, counts in joint_batches(segments, seed=3, epoch=epoch):
            session = twin.session(name)
            rate = session.network(frames)
            loss = loss_of(rate, counts, kind)
            penalty = session.network.readout.features.abs().sum() / len(session.outputs)
            optimizer.zero_grad()
            total = loss + L1 * rate.mean() + L1_READOUT * penalty + L2 / 2 * squares(session)
            total.backward()
            optimizer.step()
            seen[name].append((loss.item(), len(counts)))
        twin.network.eval()
        for i, name in enumerate(parts):
            losses, sizes = zip(*seen[name], strict=True)
            by_hand["train"][epoch, i] = np.average(losses, weights=sizes)
            rate = twin.session(name).predict(validation()[name]["stimulus"])
            counts = validation()[name]["spike_count"].values[SIZES["history"] - 1 :]
            by_hand["validation"][epoch, i] = loss_of(
                torch.from_numpy(rate.values), torch.from_numpy(counts), kind
            )
        states.append({k: v.clone() for k, v in twin.network.state_dict().items()})
    for name, values in by_hand.items():
        np.testing.assert_allclose(history[f"{name}_loss"], values, rtol=1e-4)
        np.testing.assert_allclose(history[f"mean_{name}_loss"], values.mean(1), rtol=1e-4)
    best = int(by_hand["validation"].mean(1).argmin())
    assert history.attrs["best_epoch"] == best
    for name, value in model.network.state_dict().items():
        if "bias" not in name:  # where a gradient is zero but for rounding
            torch.testing.assert_close(value, states[best][name], atol=2e-4, rtol=1e-3)


def test_history_is_that_of_train_with_each_session(tmp_path):
    model = shared()
    history = train_jointly(model, nodes(), max_epochs=3, log=tmp_path / "log.csv", **QUICK)
    single = rc.train(model.session("one"), nodes()["one"], max_epochs=1, **QUICK)
    assert {"train_loss", "validation_loss", "learning_rate", "seconds"} == set(single)
    assert set(single) | {"mean_train_loss", "mean_validation_loss"} == set(history)
    for name in single:
        assert history[name].attrs == single[name].attrs
    assert history["validation_loss"].dims == ("epoch", "session")
    assert history["session"].values.tolist() == ["one", "two"]
    assert history["learning_rate"].values.argmax() == 0  # 30 % of the way
    assert float(history["learning_rate"][-1]) < 1e-3
    assert history.attrs.keys() == single.attrs.keys()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:5] == [
        "epoch",
        "train_loss",
        "validation_loss",
        "learning_rate",
        "seconds",
    ]
    for name in ("one", "two"):
        written = [float(row[f"train_loss of {name}"]) for row in rows]
        assert written == history["train_loss"].sel(session=name).values.tolist()


def test_one_session_learns_what_train_learns():
    """The same loop: the same bits."""
    node, unseen = nodes()["one"], validation()["one"]
    alone = rc.models.CoreReadout.for_recording(node, **SIZES)
    model = rc.models.CoreReadout.for_recordings({"x": node}, **SIZES)
    expected = rc.train(alone, node, validation=unseen, max_epochs=2, **QUICK)
    history = train_jointly(model, {"x": node}, validation={"x": unseen}, max_epochs=2, **QUICK)
    assert model.session("x").fingerprint == alone.fingerprint
    np.testing.assert_array_equal(
        history["validation_loss"].sel(session="x"), expected["validation_loss"]
    )
    np.testing.assert_array_equal(history["mean_train_loss"], expected["train_loss"])


def test_each_process_has_a_mini_batch_in_every_epoch():
    """A cut at a random offset may cost a run one of its stretches, here of two."""
    recordings = {"short": recording(140)}
    model = shared(recordings)
    for process in range(2):
        segments = Segments(model.session("short"), recordings["short"], 1, 64, seed=0)
        segments.process, segments.n_processes = process, 2
        assert segments.n_stretches == 2
        for segments.epoch in range(6):
            assert segments.n_batches() == len(list(segments)) == 1


def test_sessions_are_named_by_numbers():
    recordings = {1: recording(200), 2: recording(200, seed=1)}
    history = train_jointly(shared(recordings), recordings, max_epochs=1, **QUICK)
    assert history["session"].values.tolist() == ["1", "2"]


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError)])
def test_a_seed_is_a_whole_number(seed, error):
    with pytest.raises(error, match=f"seed={seed}; expected a .*number of at least 0"):
        train_jointly(shared(), nodes(), seed=seed, **QUICK)


def test_plateau_and_patience_follow_the_mean():
    options = {"learning_rate": 0.1, "schedule": "plateau", "patience": 7, **QUICK}
    history = train_jointly(shared(), nodes(), max_epochs=20, **options)
    mean = history["validation_loss"].mean("session").values
    best = int(mean.argmin())
    assert history.attrs["best_epoch"] == best
    assert len(mean) == best + 8 < 20
    # Halved when for more than three epochs there was no loss below the lowest by a 10,000th.
    rates, rate, lowest, n_bad = [], 0.1, np.inf, 0
    for loss in mean:
        rates.append(rate)
        better = rates == [0.1] or loss < lowest - 1e-4 * abs(lowest)
        lowest, n_bad = (loss, 0) if better else (lowest, n_bad + 1)
        if n_bad > 3:
            rate, n_bad = rate / 2, 0
    np.testing.assert_allclose(history["learning_rate"], rates)
    assert rates[-1] < 0.1


def test_a_silent_cell_is_kept_or_left_out():
    recordings = nodes()
    recordings["two"]["spike_count"][:, 1] = 0
    options = {"validation": validation(), "max_epochs": 3, "learning_rate": 0.05, **QUICK}
    kept, dropped = shared(recordings), shared(recordings)
    before = dropped.session("two").network.readout.features[1].detach().clone()
    train_jointly(kept, recordings, silent_cells="keep", l1_readout=0.1, **options)
    train_jointly(dropped, recordings, silent_cells="drop", l1_readout=0.1, **options)
    assert torch.equal(dropped.session("two").network.readout.features[1], before)
    assert not torch.allclose(dropped.session("two").network.readout.features[0], before)
    assert not torch.allclose(kept.session("two").network.readout.features[1], before, atol=0.01)


def test_movies_share_the_budget(monkeypatch):
    """Read in regions, a training sees each movie all the same."""
    monkeypatch.setattr("retina_codec.models.segments.MOVIE_BUDGET", 2 * 330 * 42 * 4 - 1)
    recordings = nodes()
    model = shared()
    segments = Segments(model.session("one"), recordings["one"], 2, 16, 0, sharing=2)
    assert segments._whole is None
    assert Segments(model.session("one"), recordings["one"], 2, 16, 0)._whole is not None
    history = train_jointly(model, recordings, max_epochs=1, **QUICK)
    assert np.isfinite(history["validation_loss"]).all()


class TestBadInput:
    @pytest.fixture
    def model(self):
        return shared()

    def refused(self, model, error, message, recordings=None, **options):
        """Training is refused with this message, and the model is what it was."""
        before = model.fingerprint
        options = {"max_epochs": 1, "validation": validation(), **QUICK, **options}
        with pytest.raises(error, match=message):
            train_jointly(model, nodes() if recordings is None else recordings, **options)
        assert model.fingerprint == before
        assert not any(module.training for module in model.network.modules())

    def test_silent_cell(self, model):
        recordings = nodes()
        recordings["two"]["spike_count"][:, 1] = 0
        message = "recordings: two has no spike of the cells d in its training part: take"
        self.refused(model, ValueError, message, recordings)

    def test_fewer_stretches_than_a_batch(self, model):
        message = r"recordings: two has 8 stretches of 16 frames .* takes n_segments=9: lower"
        self.refused(model, ValueError, message, n_segments=9)

    @pytest.mark.parametrize(
        ("value", "message"), [(-1, "has negative values"), (np.nan, "has 1 NaN")]
    )
    def test_counts_that_are_none(self, model, value, message):
        parts = {"recordings": nodes(), "validation": validation()}
        for where, recordings in parts.items():
            broken = recordings["two"].copy()
            broken["spike_count"] = broken["spike_count"].astype(np.float64)
            broken["spike_count"][7, 0] = value
            given = {**parts, where: recordings | {"two": broken}}
            self.refused(model, ValueError, f"{where}: two: spike_count {message}", **given)

    def test_nan_in_validation_is_not_the_best(self, model):
        """A filter that is finite in training, where batch norm takes it back, and not after."""
        norm = model.session("two").core.convolutions[0].norm
        norm.running_var.fill_(np.nan)
        message = "the validation loss of 'one' is nan after epoch 0: lower .* keeps the weights it"
        before = model.fingerprint
        with pytest.raises(ValueError, match=message):
            train_jointly(model, nodes(), validation=validation(), max_epochs=1, **QUICK)
        assert model.fingerprint == before

    def test_nan_in_training_keeps_the_best_epoch(self, model, tmp_path):
        options = {"validation": validation(), "schedule": "constant", **QUICK}
        expected = shared()
        train_jointly(expected, nodes(), max_epochs=1, **options)
        n_steps = []

        def spoil(module, arguments):
            n_steps.append(module.training)
            if sum(n_steps) == 11 + 3:  # eleven mini-batches of 'one' in an epoch
                with torch.no_grad():
                    module.bias.fill_(np.nan)

        model.session("one").network.readout.register_forward_pre_hook(spoil)
        with pytest.raises(
            ValueError,
            match=r"training loss of 'one' is nan in epoch 1, mini-batch \d+: lower .*; the model "
            r"keeps the weights of epoch 0, and the last checkpoint is .*epoch-00001.ckpt",
        ):
            train_jointly(model, nodes(), max_epochs=3, checkpoints=tmp_path, **options)
        assert model.fingerprint == expected.fingerprint

    def test_names(self, model):
        message = r"validation has \['one'\]; the model has the sessions \['one', 'two'\]"
        self.refused(model, ValueError, message, validation={"one": validation()["one"]})

    def test_frames_of_another_size(self, model):
        recordings = nodes() | {"one": recording(330, size=(5, 5))}
        message = r"recordings: one: its stimulus does not fit .* frames of \(5, 5\)"
        self.refused(model, ValueError, message, recordings)

    def test_no_names_no_shared_core(self, model):
        self.refused(
            model, TypeError, "recordings is a Dataset; expected .* by name", nodes()["one"]
        )
        self.refused(model, TypeError, "validation is a list; expected", validation=[])
        with pytest.raises(TypeError, match="model is a CoreReadout; expected a SharedCore"):
            train_jointly(model.session("one"), nodes())

    def test_time_that_goes_back(self, model):
        node = nodes()["one"]
        twice = xr.concat([node, node], "time", combine_attrs="override").assign_coords(
            block=("time", np.repeat([0, 1], 330))
        )
        message = r"recordings: one: time goes back after bin 329 \(3\.29 to 0 s\)"
        self.refused(model, ValueError, message, nodes() | {"one": twice})

    @pytest.mark.parametrize("name", ["max_epochs", "n_segments", "segment_length", "patience"])
    def test_zero(self, model, name):
        self.refused(model, ValueError, f"{name}=0; expected a number of at least 1", **{name: 0})

    @pytest.mark.parametrize("name", ["learning_rate", "l1_rate", "l1_readout", "l2_weights"])
    def test_negative(self, model, name):
        self.refused(model, ValueError, f"{name}=-1; expected a number of at", **{name: -1})

    @pytest.mark.parametrize("name", ["loss", "schedule", "silent_cells"])
    def test_unknown_choice(self, model, name):
        self.refused(model, ValueError, f"{name}='plateu' is not known", **{name: "plateu"})

    def test_nothing_to_train(self, model):
        model.network.requires_grad_(False)
        self.refused(model, ValueError, "model has no parameter to train")

    def test_short_blocks_are_named_with_their_recording(self, model):
        numbers = np.r_[np.repeat(np.arange(3), 18), np.full(276, 3)]
        recordings = nodes()
        recordings["one"] = recordings["one"].assign_coords(block=("time", numbers))
        options = {"validation": validation(), "max_epochs": 1, **QUICK}
        with pytest.warns(UserWarning, match="recordings: one: 54 of 330 frames are in blocks too"):
            train_jointly(model, recordings, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            train_jointly(model, recordings, **{**options, "segment_length": 8})


def test_nothing_is_left_behind():
    model = shared()
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    train_jointly(model, nodes(), max_epochs=1, **QUICK)
    assert [logger.level for logger in loggers] == levels
    assert all(p.grad is None and p.requires_grad for p in model.network.parameters())
    assert model.session("one").core is model.session("two").core
