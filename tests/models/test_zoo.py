"""The zoo: models that load by name, what their cards say, and what is wrong with damaged ones."""

import dataclasses
import importlib.util
import re
import shutil
import socket

import numpy as np
import pytest
import yaml

import retina_codec as rc
from retina_codec import cli
from retina_codec._common.time import runs_of
from retina_codec.models import zoo
from retina_codec.models.saving import SavedModel

NAMES = zoo.model_names()
NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SECTIONS = ("Data", "Training", "Scores", "Limits", "Licence", "Make it again")


@pytest.fixture(scope="module")
def script():
    """The script that makes both."""
    place = importlib.util.spec_from_file_location(
        "make_models", zoo.zoo_folder() / "simulated_bncnn" / "make.py"
    )
    script = importlib.util.module_from_spec(place)
    place.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def recording(script):
    """Their recording: the node ``test`` whole, the others too short to train on."""
    settings = dataclasses.replace(
        script.RECORDING, natural_frames=900, artificial_frames=900, probe_cycles=1, probe_epoch=0.1
    )
    return script.simulated_recording(settings, script.SEED)


@pytest.fixture
def copied(tmp_path):
    """A model of the zoo in a folder where it can be damaged."""
    return shutil.copytree(zoo.zoo_folder() / "simulated_bncnn", tmp_path / "model")


def numbers(card):
    """All numbers of a card."""
    return [float(number) for number in NUMBER.findall(card)]


@pytest.mark.parametrize("name", NAMES)
class TestEachModel:
    def test_loads_by_name_anywhere_offline(self, name, tmp_path, monkeypatch):
        def refuse(*_, **__):
            raise AssertionError("the network was asked")

        monkeypatch.setattr(socket, "socket", refuse)
        monkeypatch.chdir(tmp_path)
        model = rc.load_model(name)
        config = yaml.safe_load((zoo.zoo_folder() / name / "config.yaml").read_text())
        assert model.fingerprint == config["fingerprint"]
        movie = rc.stimuli.white_noise(n_frames=model.history + 4, shape=model.input_shape, seed=0)
        rates = model.predict(movie)
        assert rates.sizes == {"time": 5, "cell": len(config["arguments"]["cells"])}
        assert np.isfinite(rates).all()
        assert (rates >= 0).all()

    def test_is_small(self, name):
        folder = zoo.zoo_folder() / name
        assert (folder / "weights.safetensors").stat().st_size < 500_000

    def test_its_card_is_whole(self, name):
        card = zoo.model_card(name)
        assert card.startswith("# ")
        assert tuple(re.findall(r"^## (.*)$", card, re.MULTILINE)) == SECTIONS
        assert "python models/simulated_bncnn/make.py" in card.split("## Make it again")[1]
        for cell in rc.load_model(name).outputs:
            assert f"| {cell} |" in card

    def test_show_tells_the_card_and_the_settings(self, name, capsys):
        assert cli.main(["models", "show", name]) == 0
        shown = capsys.readouterr().out
        card = zoo.model_card(name)
        assert shown.startswith(f"{name}: {card.splitlines()[0].removeprefix('# ')}\n")
        assert card.split("\n", 1)[1].strip() in shown
        assert rc.load_model(name).fingerprint in shown


def test_the_cards_tell_the_scores_that_the_models_have(script, recording, tmp_path):
    loaded = {name: rc.load_model(name) for name in (script.NETWORK, script.BASELINE)}
    script.write(loaded, script.scores(loaded, recording), tmp_path)
    for name, model in loaded.items():
        told, found = zoo.model_card(name), (tmp_path / name / "card.md").read_text()
        # The script keeps the text that people wrote.
        assert NUMBER.sub("#", found) == NUMBER.sub("#", told)
        # Another processor rounds the last digit differently.
        np.testing.assert_allclose(numbers(found), numbers(told), atol=0.011)
        assert len(numbers(told.split("## Scores")[1])) > 12 * len(model.outputs)
        assert rc.load_model(tmp_path / name).fingerprint == model.fingerprint


def test_the_script_trains_both_on_the_same_part(script, recording, monkeypatch):
    seen = {}

    def train(model, node, *, validation, **options):
        seen["network"] = (node, validation)

    def least_squares(node, *, validation, **options):
        seen["baseline"] = (node, validation)
        return rc.models.LN.for_recording(node, history=script.HISTORY)

    monkeypatch.setattr(script.rc, "train", train)
    monkeypatch.setattr(script.rc.models.LN, "from_least_squares", staticmethod(least_squares))
    made = script.models(recording, progress=False)
    assert list(made) == [script.NETWORK, script.BASELINE]
    for ours, theirs in zip(seen["network"], seen["baseline"], strict=True):
        assert ours is theirs
    training, validation = seen["network"]
    shown = set(recording["train"]["epoch"].values.tolist())
    for part in (training, validation):
        assert {"natural", "grating", "bar", "noise"} <= set(part["epoch"].values.tolist()) <= shown
        assert len(np.unique(part["block"])) == len(list(runs_of(part)))
    apart = np.abs(training["time"].values[:, None] - validation["time"].values)
    assert apart.min() > script.HISTORY * 0.01
    assert str(made[script.NETWORK].network) == str(rc.load_model(script.NETWORK).network)


def test_list_has_a_line_for_each_model(capsys):
    assert cli.main(["models", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[1 : lines.index("")]
    assert [line.split()[0] for line in table] == NAMES
    for line, name in zip(table, NAMES, strict=True):
        model = rc.load_model(name)
        assert line.split()[1] == type(model).__name__
        assert " x ".join(map(str, model.input_shape)) in line
        assert f"{model.history * model.bin_width:g} s" in line


def test_a_folder_comes_before_the_zoo(tmp_path, monkeypatch):
    mine = rc.models.BNCNN((3, 3), history=2, bin_width=0.01, cells=["a"])
    mine.save(tmp_path / "simulated_ln")
    monkeypatch.chdir(tmp_path)
    assert rc.load_model("simulated_ln").fingerprint == mine.fingerprint
    (tmp_path / "simulated_ln" / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no config\.yaml"):
        rc.load_model("simulated_ln")


class TestBadInput:
    def test_unknown_name(self):
        with pytest.raises(FileNotFoundError, match="did you mean 'simulated_ln'"):
            rc.load_model("simulated_lnn")
        with pytest.raises(ValueError, match="did you mean 'simulated_bncnn'"):
            zoo.show_command("simulated_bncn")

    def test_unknown_name_on_the_command_line(self, capsys):
        assert cli.main(["models", "show", "simulated_bncn"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("retina-codec: error: name='simulated_bncn' is no model of the zoo")
        assert said.count("\n") == 1

    @pytest.mark.parametrize("name", ["../models/simulated_ln", "", ".", "simulated_ln/"])
    def test_a_path_is_no_name(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"has no config\.yaml"):
            rc.load_model(name)
        with pytest.raises(ValueError, match="is no model of the zoo"):
            zoo.model_card(name)

    def test_a_file(self, copied):
        with pytest.raises(NotADirectoryError, match="is a file; expected a folder"):
            rc.load_model(copied / "weights.safetensors")

    @pytest.mark.parametrize("name", ["config.yaml", "weights.safetensors"])
    def test_missing_file(self, copied, name):
        (copied / name).unlink()
        with pytest.raises(FileNotFoundError, match=f"has no {re.escape(name)}"):
            rc.load_model(copied)

    @pytest.mark.parametrize("kept", [0.0, 0.0001, 0.01, 0.5, 0.999])
    def test_truncated_weights(self, copied, kept):
        weights = copied / "weights.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[: int(kept * len(whole))])
        with pytest.raises(ValueError, match=r"weights\.safetensors .* cut short or damaged"):
            rc.load_model(copied)

    def test_a_flipped_bit(self, copied):
        weights = copied / "weights.safetensors"
        damaged = bytearray(weights.read_bytes())
        damaged[-5] ^= 1
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match="not those that were saved"):
            rc.load_model(copied)

    def test_weights_of_another_architecture(self, copied):
        other = zoo.zoo_folder() / "simulated_ln" / "weights.safetensors"
        shutil.copyfile(other, copied / "weights.safetensors")
        with pytest.raises(ValueError, match=r"those of another: conv1\.weight is missing; .*more"):
            rc.load_model(copied)

    def test_weights_of_another_size(self, copied, tmp_path):
        arguments = yaml.safe_load((copied / "config.yaml").read_text())["arguments"]
        other = rc.models.BNCNN(
            **{**arguments, "channels": [8, 4], "input_shape": tuple(arguments["input_shape"])}
        ).save(tmp_path / "other")
        shutil.copyfile(other / "weights.safetensors", copied / "weights.safetensors")
        with pytest.raises(
            ValueError, match=r"conv2\.weight has shape \(4, 8, 5, 5\), expected \(8, 8, 5, 5\)"
        ):
            rc.load_model(copied)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("architecture: [", "is not a YAML file"),
            ("- 1\n", "holds no settings of a model"),
            ("", "holds no settings of a model"),
            ("architecture: BNCNN\n", "lacks the entries 'fingerprint' or 'arguments'"),
            ("{architecture: BNCNN, fingerprint: a, arguments: 3}", "lacks the entries"),
            ("{architecture: BNCNN, fingerprint: a, arguments: {}}", "does not describe a BNCNN"),
            ("{architecture: SharedCore, sessions: {session0: a}}", "SharedCore.load.*: session0"),
        ],
    )
    def test_damaged_configuration(self, copied, text, message):
        (copied / "config.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            rc.load_model(copied)

    def test_configuration_that_is_no_text(self, copied):
        (copied / "config.yaml").write_bytes(b"\xff\xfe\x00\x01")
        with pytest.raises(ValueError, match="is not a YAML file"):
            rc.load_model(copied)

    def test_an_argument_of_a_later_version(self, copied):
        config = yaml.safe_load((copied / "config.yaml").read_text())
        config["arguments"]["dilation"] = 2
        config["retina_codec_version"] = "9.0"
        (copied / "config.yaml").write_text(yaml.safe_dump(config))
        with pytest.raises(ValueError, match=r"written by 9\.0\): .*dilation"):
            rc.load_model(copied)


def test_every_architecture_that_is_saved_is_known():
    assert {"BNCNN", "LN"} <= set(SavedModel.architectures)
