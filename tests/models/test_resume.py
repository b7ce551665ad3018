"""Checkpoints: a killed training ends with the bits of one that was not; none of another run."""

import csv
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import retina_codec as rc
from retina_codec._common.time import time_coordinate
from retina_codec.models.checkpoint_files import checkpoint_files, read_checkpoint
from retina_codec.models.shared_core import train_jointly


def recording(n=1500, seed=0, n_cells=2):
    """Counts of cells that follow a full-field flicker."""
    rng = np.random.default_rng(seed)
    flicker = rng.normal(size=n).astype(np.float32)
    drive = np.convolve(flicker, [0.9, 0.5, -0.6, -0.3])[:n]
    counts = rng.poisson(0.5 * np.log1p(np.exp(2 * drive - 0.5))[:, None], size=(n, n_cells))
    return xr.Dataset(
        {
            "stimulus": (("time", "y", "x"), flicker[:, None, None]),
            "spike_count": (("time", "cell"), counts),
        },
        coords={
            "time": time_coordinate(np.arange(n) * 0.01, 0.01),
            "cell": [f"c{i}" for i in range(n_cells)],
        },
    )


def network(node, seed=0, **options):
    """A network with batch norm and noise."""
    return rc.models.BNCNN.for_recording(node, history=6, channels=(4, 4), seed=seed, **options)


class StoppedError(Exception):
    """What ends a training in the middle."""


def stop():
    raise StoppedError


def stopped_in(model, n_steps, end=stop):
    """Let the training of `model` end in the given step, as if it were killed."""
    stopped_in_layer(model.layers["noise1"], n_steps, end)


def stopped_in_layer(layer, n_steps, end):
    done = []

    def count(*_):
        done.append(None)
        if len(done) == n_steps:
            end()

    layer.register_forward_pre_hook(lambda *a: count() if layer.training else None)


KILLED = {"max_epochs": 6, "n_segments": 6, "seed": 4, "progress": False}
TWO = {"max_epochs": 3, "progress": False}
FORKED = {"n_segments": 3, "schedule": "constant", "progress": False}


def be_killed(folder):
    """Train until the second mini-batch of the fourth epoch (of three each): SIGKILL."""
    node = recording(1200)
    model = network(node)
    stopped_in(model, 3 * 3 + 2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    options = {"checkpoints": folder / "killed", "log": folder / "killed.csv", **KILLED}
    rc.train(model, node, validation=recording(500, seed=1), **options)


def be_one_of_two(folder, rank, port):
    """Train as one of two processes that a launcher such as torchrun started."""
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    node, validation = recording(2372), recording(500, seed=1)
    model = rc.models.LN.for_recording(node, history=6)
    history = rc.train(
        model,
        node,
        validation=validation,
        n_segments=3,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        log=folder / "two.csv",
        **TWO,
    )
    losses = [history.train_loss.values.tolist(), history.validation_loss.values.tolist()]
    torch.save([model.network.state_dict(), *losses], folder / f"rank{rank}.pt")


def be_forked(folder):
    """Four epochs in two processes that lightning forks, and two and two more."""
    node = recording(2000)
    options = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_fork", **FORKED}
    whole, part = network(node), network(node)
    histories = [
        rc.train(whole, node, max_epochs=4, **options),
        rc.train(part, node, max_epochs=2, checkpoints=folder / "forked", **options),
    ]
    prints = [whole.fingerprint, part.fingerprint]
    histories.append(rc.train(part, node, max_epochs=4, resume=folder / "forked", **options))
    prints.append(part.fingerprint)
    losses = [history.train_loss.values.tolist() for history in histories]
    broken = network(node)
    with torch.no_grad():
        broken.layers["dense"].weight[0, 0] = np.inf
    with pytest.raises(ValueError, match=r"^the training loss is nan in epoch 0, mini-batch 0"):
        rc.train(broken, node, **options)
    torch.save([prints, losses], folder / "forked.pt")


def sessions(readout="gaussian"):
    """A long recording and a short one, validation of both, and models with one core.

    2372 and 836 frames hold 36 and 12 stretches and their history wherever they are cut.
    """
    nodes = {"long": recording(2372, seed=2), "short, x": recording(836, seed=3, n_cells=3)}
    validation = {"long": recording(300, seed=4), "short, x": recording(300, seed=5, n_cells=3)}
    model = rc.models.CoreReadout.for_recordings(
        nodes, history=6, channels=(4, 4), readout=readout, start="centre"
    )
    return model, nodes, {"validation": validation, "n_segments": 6, "progress": False}


def stopped_together_in(model, n_steps, end=stop):
    """Let the joint training of `model` end in the given step."""
    stopped_in_layer(model.session("long").core.convolutions[0], n_steps, end)


def be_killed_jointly(folder):
    """Train until a step of the third epoch (of twelve each): SIGKILL."""
    model, nodes, options = sessions()
    stopped_together_in(model, 2 * 12 + 5, lambda: os.kill(os.getpid(), signal.SIGKILL))
    places = {"checkpoints": folder / "killed_jointly", "log": folder / "killed_jointly.csv"}
    train_jointly(model, nodes, max_epochs=4, **places, **options)


def without_norm(model):
    """Without what makes two processes differ from one with twice the batch."""
    for convolution in model.session("long").core.convolutions:
        convolution.norm = torch.nn.Identity()
    return model


def be_forked_jointly(folder):
    """Two processes: all of two epochs, and one and one more; each step has one session's data."""
    place = {"accelerator": "cpu", "devices": 2, "strategy": "ddp_fork", "schedule": "constant"}
    states, losses = [], []
    for runs in ([2], [1, 2]):
        model, nodes, options = sessions("factorised")
        without_norm(model)
        options |= {"n_segments": 3, "checkpoints": folder / f"forked_jointly{len(runs)}"}
        for max_epochs in runs:
            history = train_jointly(
                model, nodes, max_epochs=max_epochs, resume=True, **options, **place
            )
        states.append(model.network.state_dict())
        losses.append(history.validation_loss.values.tolist())
    torch.save([states, losses], folder / "forked_jointly.pt")


SCRIPT = """
import os, pathlib, sys
sys.path[:0] = sys.argv[1:3]
folder, port, n_threads = pathlib.Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
import torch
torch.set_num_threads(n_threads)
import retina_codec.models.loop
import test_resume as tests

def forked(function, *arguments):
    child = os.fork()
    if child:
        return child
    try:
        function(folder, *arguments)
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

codes = [os.waitstatus_to_exitcode(os.waitpid(forked(tests.be_killed), 0)[1])]
for child in [forked(tests.be_one_of_two, rank, port) for rank in range(2)]:
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
codes.append(os.waitstatus_to_exitcode(os.waitpid(forked(tests.be_killed_jointly), 0)[1]))
tests.be_forked(folder)
tests.be_forked_jointly(folder)
(folder / "codes").write_text(" ".join(map(str, codes)))
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Folder with what trainings in processes of their own left, and how these ended.

    One interpreter, which has not trained and can therefore be forked: libraries load once.
    """
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    n_threads = str(torch.get_num_threads())
    places = [str(Path(__file__).parent), str(Path(rc.__file__).parents[1])]
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *places, str(folder), str(port), n_threads],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": n_threads},
    )
    assert result.returncode == 0, result.stderr[-5000:]
    return folder, [int(code) for code in (folder / "codes").read_text().split()]


def assert_same_bits(first, second):
    """Weights and buffers of two models are equal, and not close."""
    ours, theirs = first.network.state_dict(), second.network.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def assert_same_history(first, second):
    """All but the seconds."""
    xr.testing.assert_identical(first.drop_vars("seconds"), second.drop_vars("seconds"))


def test_killed_in_an_epoch_and_resumed_gives_the_same_bits(processes, tmp_path):
    place, codes = processes
    assert codes[0] == -signal.SIGKILL
    folder, log = place / "killed", place / "killed.csv"
    written = [file.name for file in checkpoint_files(folder)]
    assert written == ["epoch-00002.ckpt", "epoch-00003.ckpt"]
    assert len(log.read_text().splitlines()) == 1 + 3
    node = recording(1200)
    options = {"validation": recording(500, seed=1), **KILLED}
    whole, resumed = network(node), network(node, seed=9)  # its weights come from the checkpoint
    expected = rc.train(whole, node, checkpoints=tmp_path, **options)
    history = rc.train(resumed, node, resume=folder, log=log, **options)
    assert history.sizes["epoch"] == 6
    assert_same_bits(resumed, whole)
    assert_same_history(history, expected)
    lines = [line.split(",") for line in log.read_text().splitlines()[1:]]
    assert [float(line[2]) for line in lines] == history.validation_loss.values.tolist()
    # Not only the best weights: the last ones, the optimiser and the generators too.
    first, second = (read_checkpoint(checkpoint_files(each)[-1]) for each in (folder, tmp_path))
    for state in (first, second):
        state["record"] = [row[:3] for row in state["record"]]  # without the seconds
    assert flat(first) == flat(second)


def flat(value):
    """Plain values of a checkpoint, bit for bit."""
    if isinstance(value, dict):
        return {name: flat(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [flat(item) for item in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "plateau", "learning_rate": 0.1, "loss": "mse"},
        {"schedule": "constant", "patience": 2, "learning_rate": 0.1},
        {"schedule": "one_cycle", "l2_weights": 1e-3, "n_segments": 3},
    ],
)
def test_any_schedule_goes_on_where_it_was(tmp_path, options):
    node = recording(1200)
    options = {"max_epochs": 8, "progress": False, "segment_length": 32, **options}
    whole, killed, resumed = (network(node) for _ in range(3))
    expected = rc.train(whole, node, **options)
    n_steps = -(-1000 // (32 * options.get("n_segments", 8)))
    # Patience may run out early: rounding, and so the epoch, differs among processors.
    stopped_in(killed, n_steps * (min(expected.sizes["epoch"], 5) - 1))
    with pytest.raises(StoppedError):
        rc.train(killed, node, checkpoints=tmp_path, **options)
    n_done = len(read_checkpoint(checkpoint_files(tmp_path)[-1])["record"])
    assert 1 <= n_done < expected.sizes["epoch"]
    history = rc.train(resumed, node, resume=tmp_path, **options)
    assert_same_bits(resumed, whole)
    assert_same_history(history, expected)


def test_a_finished_run_is_not_trained_again(tmp_path):
    node = recording()
    options = {"max_epochs": 2, "progress": False, "checkpoints": tmp_path}
    first, second = network(node), network(node)
    history = rc.train(first, node, resume=True, **options)  # nothing there yet: from the start
    stopped_in(second, 1)
    again = rc.train(second, node, resume=True, log=tmp_path / "log.csv", **options)
    xr.testing.assert_identical(history, again)
    assert_same_bits(first, second)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_more_epochs_can_follow_but_for_one_cycle(tmp_path):
    node = recording()
    options = {"schedule": "constant", "progress": False}
    whole, part = network(node), network(node)
    expected = rc.train(whole, node, max_epochs=4, **options)
    rc.train(part, node, max_epochs=2, checkpoints=tmp_path, **options)
    history = rc.train(part, node, max_epochs=4, resume=tmp_path, **options)
    assert_same_bits(part, whole)
    np.testing.assert_array_equal(history.train_loss, expected.train_loss)


class TestBadInput:
    @pytest.fixture
    def folder(self, tmp_path):
        node = recording(1200)
        rc.train(network(node), node, checkpoints=tmp_path / "a", **self.options)
        return tmp_path / "a"

    options = {"max_epochs": 2, "n_segments": 4, "progress": False}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"noise": 0.3}, "noise1 is .*sd=0.05.* there and .*sd=0.3.* here; make"),
            ({"channels": (4, 5)}, r"conv2.weight is \(4, 4, .* there and \(5, 4, .* here"),
            ({"bin_width": 0.02}, None),
        ],
    )
    def test_another_model(self, folder, options, message):
        node = recording(1200)
        if message is None:
            node["time"] = time_coordinate(np.arange(1200) * 0.02, 0.02)
            model = network(node)
            message = "bin_width is 0.01 there and 0.02 here"
        else:
            options = {"channels": (4, 4), **options}
            model = rc.models.BNCNN.for_recording(node, history=6, **options)
        before = model.fingerprint
        with pytest.raises(ValueError, match=f"is a checkpoint of another model: .*({message})"):
            rc.train(model, node, resume=folder, **self.options)
        assert model.fingerprint == before
        assert not model.network.training

    def test_another_architecture(self, folder):
        node = recording(1200)
        with pytest.raises(
            ValueError, match="another model: architecture is BNCNN there and LN here"
        ):
            rc.train(
                rc.models.LN.for_recording(node, history=6), node, resume=folder, **self.options
            )

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"learning_rate": 0.5}, r"learning_rate=0.01 there and 0.5 here; give those"),
            ({"max_epochs": 5}, r"max_epochs=2 there and 5 here"),
            ({"seed": 1, "loss": "mse"}, r"loss='poisson' there .*, seed=0 there and 1 here"),
        ],
    )
    def test_other_settings(self, folder, options, message):
        node = recording(1200)
        with pytest.raises(ValueError, match=f"written with other settings: {message}"):
            rc.train(network(node), node, resume=folder, **{**self.options, **options})

    def test_other_data(self, folder):
        node = recording(1200)
        model = network(node)
        node["spike_count"][200, 0] += 1
        with pytest.raises(ValueError, match="in a training on other data"):
            rc.train(model, node, resume=folder, **self.options)

    @pytest.mark.parametrize("n_bytes", [0, 100, -1000])
    def test_truncated(self, folder, n_bytes):
        earlier, newest = checkpoint_files(folder)
        newest.write_bytes(newest.read_bytes()[:n_bytes])
        node = recording(1200)
        model = network(node)
        with pytest.raises(ValueError, match=r"00002.ckpt is damaged .* resume='.*00001.ckpt'"):
            rc.train(model, node, resume=folder, **self.options)
        whole = network(node)
        rc.train(whole, node, **self.options)
        rc.train(model, node, resume=earlier, **self.options)  # the remedy
        assert_same_bits(model, whole)
        assert read_checkpoint(newest)["settings"]["seed"] == 0

    def test_truncated_with_none_before(self, folder):
        earlier, newest = checkpoint_files(folder)
        earlier.unlink()
        newest.write_bytes(newest.read_bytes()[:100])
        node = recording(1200)
        with pytest.raises(ValueError, match="there is none before it: train from the start"):
            rc.train(network(node), node, resume=newest, **self.options)

    def test_another_kind_of_file(self, tmp_path):
        torch.save({"weights": torch.zeros(2)}, tmp_path / "x.pt")
        node = recording(1200)
        with pytest.raises(ValueError, match=r"x.pt is no checkpoint of .*: it has no 'format'"):
            rc.train(network(node), node, resume=tmp_path / "x.pt", **self.options)

    def test_code_is_not_unpickled(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "made"),)

        torch.save({"format": 1, "model": Evil()}, tmp_path / "x.ckpt")
        node = recording(1200)
        with pytest.raises(ValueError, match="damaged or no checkpoint"):
            rc.train(network(node), node, resume=tmp_path / "x.ckpt", **self.options)
        assert not (tmp_path / "made").exists()

    def test_no_checkpoint(self, tmp_path):
        node = recording(1200)
        model = network(node)
        with pytest.raises(FileNotFoundError, match="has no checkpoint: the run ended before"):
            rc.train(model, node, resume=tmp_path, **self.options)
        with pytest.raises(FileNotFoundError, match="does not exist; expected a checkpoint"):
            rc.train(model, node, resume=tmp_path / "none", **self.options)
        with pytest.raises(ValueError, match="resume=True goes on from the folder checkpoints="):
            rc.train(model, node, resume=True, **self.options)

    def test_checkpoints_of_an_earlier_run_are_not_overwritten(self, folder, tmp_path):
        node = recording(1200)
        contents = [file.read_bytes() for file in checkpoint_files(folder)]
        with pytest.raises(FileExistsError, match="continue it with resume=True, or give another"):
            rc.train(network(node), node, checkpoints=folder, **self.options)
        other = tmp_path / "b"
        rc.train(network(node), node, checkpoints=other, **self.options)
        with pytest.raises(FileExistsError, match="has checkpoints of an earlier training"):
            rc.train(network(node), node, checkpoints=folder, resume=other, **self.options)
        assert [file.read_bytes() for file in checkpoint_files(folder)] == contents


class TestTwoProcesses:
    def test_are_one_with_twice_the_batch(self, processes):
        """LN has no batch norm or noise.

        2372 frames hold 36 stretches and their history wherever they are cut: six whole batches.
        """
        folder, codes = processes
        assert codes[1:3] == [0, 0]
        (first, *losses), (second, *others) = (
            torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)
        )
        node = recording(2372)
        model = rc.models.LN.for_recording(node, history=6)
        start = model.network.state_dict()["filter.weight"].clone()
        expected = rc.train(model, node, validation=recording(500, seed=1), n_segments=6, **TWO)
        assert losses == others
        for name, value in model.network.state_dict().items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4)
        assert (first["filter.weight"] - start).abs().max() > 0.05
        np.testing.assert_allclose(losses[0], expected.train_loss, rtol=1e-5)
        np.testing.assert_allclose(losses[1], expected.validation_loss, rtol=1e-5)
        assert len((folder / "two.csv").read_text().splitlines()) == 4

    def test_resume_with_the_noise_of_each(self, processes):
        """Batch norm and noise: what processes of their own learn comes back to the caller."""
        folder, _ = processes
        prints, losses = torch.load(folder / "forked.pt", weights_only=True)
        assert prints[0] == prints[2] != prints[1]
        assert losses[0] == losses[2]
        assert losses[0][:2] == losses[1]
        assert losses[0][3] < losses[0][0]
        newest = checkpoint_files(folder / "forked")[-1]
        one, other = (states["cpu"] for states in read_checkpoint(newest)["generators"])
        assert not torch.equal(one, other)
        node = recording(2000)
        with pytest.raises(ValueError, match="n_processes=2 there and 1 here"):
            rc.train(network(node), node, max_epochs=6, resume=newest, **FORKED)


class TestJointTraining:
    def test_killed_and_resumed_gives_the_same_bits(self, processes, tmp_path):
        place, codes = processes
        assert codes[3] == -signal.SIGKILL
        folder, log = place / "killed_jointly", place / "killed_jointly.csv"
        assert [f.name for f in checkpoint_files(folder)] == [
            "epoch-00001.ckpt",
            "epoch-00002.ckpt",
        ]
        whole, nodes, options = sessions()
        resumed = sessions()[0]
        with torch.no_grad():
            for value in resumed.network.state_dict().values():
                value.zero_()  # the weights come from the checkpoint
        expected = train_jointly(whole, nodes, max_epochs=4, checkpoints=tmp_path, **options)
        history = train_jointly(resumed, nodes, max_epochs=4, resume=folder, log=log, **options)
        assert_same_bits(resumed, whole)
        assert resumed.fingerprint == whole.fingerprint == history.attrs["model_fingerprint"]
        assert_same_history(history, expected)
        first, second = (read_checkpoint(checkpoint_files(f)[-1]) for f in (folder, tmp_path))
        for state in (first, second):
            state["record"] = [row[:3] + row[4:] for row in state["record"]]  # but the seconds
        assert flat(first) == flat(second)
        with log.open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4
        for name in nodes:
            written = [float(row[f"validation_loss of {name}"]) for row in rows]
            assert written == history.validation_loss.sel(session=name).values.tolist()
        written = [float(row["validation_loss"]) for row in rows]
        assert written == history.mean_validation_loss.values.tolist()

    @pytest.mark.parametrize(
        "options",
        [
            {"schedule": "plateau", "learning_rate": 0.1, "loss": "mse"},
            {"schedule": "constant", "patience": 1, "learning_rate": 0.2},
            {"schedule": "one_cycle", "l2_weights": 1e-3, "l1_readout": 1e-3},
        ],
    )
    def test_any_schedule_goes_on_where_it_was(self, tmp_path, options):
        whole, nodes, given = sessions()
        killed, resumed = sessions()[0], sessions()[0]
        options = {"max_epochs": 6, **given, **options}
        expected = train_jointly(whole, nodes, **options)
        stopped_together_in(killed, 12 + 3)
        with pytest.raises(StoppedError):
            train_jointly(killed, nodes, checkpoints=tmp_path, **options)
        assert len(read_checkpoint(checkpoint_files(tmp_path)[-1])["record"]) == 1
        history = train_jointly(resumed, nodes, resume=tmp_path, **options)
        assert_same_bits(resumed, whole)
        assert_same_history(history, expected)
        assert history.sizes["epoch"] == 6 or options.get("patience")

    def test_two_processes_are_one_with_twice_the_batch(self, processes):
        """The readouts that a step does not use stay alone, as in one process."""
        folder, _ = processes
        (first, second), (losses, others) = torch.load(
            folder / "forked_jointly.pt", weights_only=True
        )
        assert losses == others
        model, nodes, options = sessions("factorised")
        start = {k: v.clone() for k, v in without_norm(model).network.state_dict().items()}
        history = train_jointly(model, nodes, max_epochs=2, schedule="constant", **options)
        np.testing.assert_allclose(losses, history.validation_loss, rtol=1e-4)
        for name, value in model.network.state_dict().items():
            assert torch.equal(first[name], second[name])
            torch.testing.assert_close(first[name], value, rtol=1e-3, atol=2e-4)
            assert not torch.allclose(value, start[name], atol=1e-2)

    def test_another_run(self, tmp_path):
        model, nodes, options = sessions()
        train_jointly(model, nodes, max_epochs=1, checkpoints=tmp_path / "a", **options)
        resume = {"max_epochs": 1, "resume": tmp_path / "a", **options}
        with pytest.raises(
            ValueError, match=r"other settings: l1_readout=0\.0 there and 0\.1 here"
        ):
            train_jointly(model, nodes, l1_readout=0.1, **resume)
        changed = nodes["short, x"].copy(deep=True)
        changed["spike_count"][200, 0] += 1
        with pytest.raises(ValueError, match="in a training on other data"):
            train_jointly(model, nodes | {"short, x": changed}, **resume)
        fewer = {"short, x": nodes["short, x"].isel(cell=[0, 1])}
        other = rc.models.CoreReadout.for_recordings(nodes | fewer, history=6, channels=(4, 4))
        validation = options["validation"]
        validation = validation | {"short, x": validation["short, x"].isel(cell=[0, 1])}
        with pytest.raises(ValueError, match=r"another model: .*outputs of 'short, x' is \['c0', "):
            train_jointly(other, nodes | fewer, **resume | {"validation": validation})
        single = model.session("long")
        with pytest.raises(
            ValueError, match="another model: architecture is SharedCore there and CoreReadout here"
        ):
            rc.train(single, nodes["long"], resume=tmp_path / "a", max_epochs=1, progress=False)
        with pytest.raises(FileExistsError, match="continue it with resume=True"):
            train_jointly(model, nodes, max_epochs=1, checkpoints=tmp_path / "a", **options)
