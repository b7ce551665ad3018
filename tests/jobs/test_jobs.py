"""Settings, stages that are kept, and one line for every mistake."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import yaml

import retina_codec as rc
from retina_codec.cli import main
from retina_codec.jobs import read_job, stages
from retina_codec.jobs.folder import RunFolder


def write_recording(folder, n_blocks=4, running=1500, frozen=150):
    """A text folder of frozen noise: two planted full-field cells."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    frozen_part = rng.normal(size=frozen)
    flicker = np.concatenate(
        [part for _ in range(n_blocks) for part in (rng.normal(size=running), frozen_part)]
    )
    marks = 1.0 + np.arange(len(flicker) + 1) / 75
    np.savetxt(folder / "stimulus_noise.txt", flicker)
    np.savetxt(folder / "frametimes_noise.txt", marks)
    (folder / "01_noise_parameters.txt").write_text(
        f"FrozenNoise\nRunningFrames={running}\nFrozenFrames={frozen}"
    )
    for name, sign in (("C1", 1), ("C2", -1)):
        drive = np.convolve(sign * flicker, [0.2, 0.8, 0.6, -0.4])[: len(flicker)]
        counts = rng.poisson(0.5 * np.log1p(np.exp(2 * drive)))
        starts = np.repeat(marks[:-1], counts)
        np.savetxt(
            folder / f"noise_{name}.txt", np.sort(starts + rng.uniform(0, 0.013, len(starts)))
        )
    return folder


def settings_for(tmp_path, **changes):
    settings = {
        "folder": str(tmp_path / "run"),
        "recording": {"path": str(tmp_path / "recording")},
        "model": {"history": 6, "channels": [3, 3]},
        "training": {"max_epochs": 3},
        "contributions": {"steps": 5},
        "modes": {"n_modes": 6, "k": 2, "max_epochs": 5},
    }
    for name, value in changes.items():
        settings[name] = value if not isinstance(value, dict) else settings.get(name, {}) | value
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on a recording from text files."""
    tmp_path = tmp_path_factory.mktemp("job")
    write_recording(tmp_path / "recording")
    file = settings_for(tmp_path)
    assert main(["run", str(file), "--progress", "false"]) == 0
    return tmp_path


def test_run_writes_everything_that_it_promises(finished, capsys):
    run = finished / "run"
    scores = rc.open_tree(run / "evaluation.nc")
    assert float(scores["ln"]["pearson_r"].mean()) > 0.4
    assert scores["trained"].attrs["n_repeats"] == 4
    model = rc.load_model(run / "models" / "trained")
    tree = rc.open_contributions(run / "contributions" / "trained.zarr")
    assert tree.attrs["model_fingerprint"] == model.fingerprint
    node = tree["layers/relu2"].to_dataset()
    change = tree["target"] - tree["target_baseline"]
    summed = node["contribution"].sum(("sign", "channel"))
    np.testing.assert_allclose(summed, change + node["completeness_error"], rtol=1e-3, atol=1e-2)
    described = rc.open_tree(run / "descriptions.nc")["trained/relu2"].to_dataset()
    assert set(described["family"].values) == {"light"}  # a 1 x 1 movie has no motion
    assert set(described["label"].values) <= {"light", "none"}
    summary = json.loads((run / "summary.json").read_text())
    assert summary["numbers"]["modes"]["trained"]["relu2"]["l0"] <= 2
    assert summary["numbers"]["prediction"]["cells"] == ["C1", "C2"]
    page = (run / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert sorted(path.suffix for path in (run / "figures").iterdir())[0] == ".png"
    left = [path for path in run.rglob(".*") if not path.name.startswith(".z")]  # .zarray
    assert not left, "something half-written"


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, and settings for it with changes."""
    shutil.copytree(finished / "run", tmp_path / "run")
    recording = {"path": str(finished / "recording")}
    return tmp_path / "run", lambda **changes: settings_for(
        tmp_path, recording=recording, **changes
    )


def test_finished_stages_are_not_repeated(copied, capsys):
    run, settings = copied
    stamp = {p: p.stat().st_mtime_ns for p in run.rglob("*.nc")}
    file = settings()
    assert main(["run", str(file)]) == 0
    err = capsys.readouterr().err
    assert err.count("kept") == 10
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*.nc")} == stamp
    file = settings(modes={"k": 1})
    assert main(["run", str(file)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    states = dict(line.split("] ")[1].rsplit(" ", 1) for line in lines)
    assert states["contributions"] == "kept"
    assert states["modes"] == states["description"] == states["report"] == "..."


def test_nothing_of_other_layers_or_movies_stays(copied, capsys):
    run, settings = copied
    (run / "modes" / "trained" / "relu7").mkdir()
    (run / "selectivity.nc").write_text("of a movie with epochs")
    assert not list(run.rglob("population"))  # this movie has none
    file = settings(modes={"n_modes": 5})
    assert main(["run", str(file), "--progress", "false"]) == 0
    capsys.readouterr()
    assert {path.name for path in (run / "modes" / "trained").iterdir()} == {"relu1", "relu2"}
    assert not (run / "selectivity.nc").exists()
    assert rc.load_modes(run / "modes" / "trained" / "relu2").loadings.sizes["mode"] == 5


def test_too_many_modes_of_the_population_are_called_by_their_setting(tmp_path, capsys):
    file = tmp_path / "job.yaml"
    settings = {
        "folder": str(tmp_path / "run"),
        "simulation": {
            "size": 16, "natural_frames": 1500, "artificial_frames": 450, "test_frames": 60,
            "repeats": 2, "probe_cycles": 1, "probe_epoch": 0.05,
        },
        "model": {"history": 10, "channels": [2, 2]},
        "training": {"max_epochs": 1},
        "contributions": {"node": "probe", "layers": ["relu2"], "steps": 1},
        "modes": {"n_modes": 4, "max_epochs": 1, "population_modes": 100_000},
    }  # fmt: skip
    file.write_text(yaml.safe_dump(settings))
    assert main(["run", str(file), "--progress", "false"]) == 2
    message = capsys.readouterr().err
    assert "modes.population_modes=100000, relu2: contribution has" in message
    left = [path.name for path in (tmp_path / "run").iterdir() if "modes" in path.name]
    assert not left, "something half-written"


def test_report_alone(finished, capsys):
    assert main(["report", str(finished / "run")]) == 0
    assert "report.html" in capsys.readouterr().out


def test_gratings_and_bars_are_one_class_beside_another():
    def classes(*kinds):
        return stages._classes(xr.DataArray(list(kinds), dims="time"))

    assert classes("bar", "grating", "on_step") == {"motion": ["grating", "bar"]}
    assert classes("bar", "still", "transition") == {"motion": ["bar"]}
    assert classes("bar", "grating", "natural") == {}  # then told from each other
    assert classes("on_step", "off_step") == {}


def test_a_stage_is_repeated_when_one_before_it_changed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    first = folder.key("a", {"n": 1}, ())
    second = folder.key("b", {}, ("a",))
    folder.finish("a", first)
    folder.finish("b", second)
    again = RunFolder(tmp_path / "run")
    assert again.finished("a", again.key("a", {"n": 1}, ()))
    assert again.finished("b", again.key("b", {}, ("a",)))
    changed = RunFolder(tmp_path / "run")
    assert not changed.finished("a", changed.key("a", {"n": 2}, ()))
    assert not changed.finished("b", changed.key("b", {}, ("a",)))


def test_environment_variables_in_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("RETINA_CODEC_DATA", "/somewhere")
    file = settings_for(tmp_path, recording={"path": "${RETINA_CODEC_DATA}/noise"})
    assert read_job(file).recording.path == "/somewhere/noise"


MISTAKES = {
    "unknown option": (
        {"modes": {"n_mode": 3}},
        "unknown option modes.n_mode; did you mean 'n_modes'",
    ),
    "wrong type": ({"modes": {"k": "two"}}, "two"),
    "both inputs": ({"simulation": {}}, "either recording: or simulation:"),
    "missing path": ({"recording": {"path": "nowhere"}}, "'nowhere' does not exist"),
    "unset variable": ({"recording": {"path": "${NOT_SET_HERE}/a"}}, "variable that is not set"),
    "unknown node": ({"contributions": {"node": "tset"}}, "did you mean 'test'"),
    "unknown layer": ({"contributions": {"layers": ["relu3"]}}, "no layer 'relu3'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_and_exit_code_2(tmp_path, mistake, capsys, monkeypatch):
    monkeypatch.delenv("NOT_SET_HERE", raising=False)
    write_recording(tmp_path / "recording")
    changes, message = MISTAKES[mistake]
    assert main(["run", str(settings_for(tmp_path, **changes)), "--progress", "false"]) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "note:" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("retina-codec: error: ")
    assert message in lines[0]
    assert not captured.out
    run = tmp_path / "run"
    assert not run.exists() or not list(run.glob(".*"))


DAMAGES = {
    "empty folder": (lambda r: [p.unlink() for p in r.iterdir()], "recording"),
    "text in a spike file": (
        lambda r: (r / "noise_C1.txt").write_text("0.1\nabc\n"),
        "noise_C1.txt",
    ),
    "unequal lengths": (lambda r: (r / "stimulus_noise.txt").write_text("1\n2\n"), "stimulus"),
    "nan in the stimulus": (
        lambda r: (r / "stimulus_noise.txt").write_text(
            (r / "stimulus_noise.txt").read_text().replace("\n", "\nnan\n", 1)
        ),
        "line 2: 'nan'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_recording_is_refused(tmp_path, damage, capsys):
    recording = write_recording(tmp_path / "recording")
    spoil, word = DAMAGES[damage]
    spoil(recording)
    assert main(["run", str(settings_for(tmp_path)), "--progress", "false"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("retina-codec: error: ")
    assert err.count("\n") == 1
    assert word in err
    assert not (tmp_path / "run").exists()


def test_a_file_of_the_wrong_kind(tmp_path, capsys):
    (tmp_path / "recording").write_bytes(b"%PDF-1.4")
    assert main(["run", str(settings_for(tmp_path))]) == 2
    assert main(["run", str(tmp_path / "recording")]) == 2
    assert main(["run", str(tmp_path / "no.yaml")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(errors) == 3
    assert "is not a file" in errors[2]


def test_a_folder_of_other_things_is_not_touched(tmp_path, capsys):
    write_recording(tmp_path / "recording")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("x")
    assert main(["run", str(settings_for(tmp_path))]) == 2
    assert "holds files that no run made" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("arguments", [["demo", "--quik"], ["rum", "a.yaml"], ["run"]])
def test_wrong_arguments(arguments, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("retina-codec: error: ")
    assert err.count("\n") == 1


def test_help_and_version():
    for arguments, word in ((["--help"], "demo"), (["--version"], rc.__version__)):
        done = subprocess.run(
            [sys.executable, "-m", "retina_codec.cli", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        assert word in done.stdout
