"""Weights of a ResNet: from files, by torchvision's names, and what is refused."""

from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision

from retina_codec.classifiers import resnet18
from retina_codec.classifiers.published import _unique

NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def source():
    return resnet18(categories=NAMES, seed=5)


@pytest.fixture(scope="module")
def state(source):
    return source.network.state_dict()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".th", ".safetensors"])
def test_file_gives_the_same_model_back(source, state, tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    again = resnet18(path, categories=NAMES, seed=9)
    assert again.fingerprint == source.fingerprint
    assert list(resnet18(str(path)).outputs) == ["0", "1", "2"]


def test_checkpoint_of_a_parallel_training(source, state, tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    assert resnet18(path, categories=NAMES).fingerprint == source.fingerprint


def test_old_files_without_batch_counters(source, state, tmp_path):
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    assert resnet18(path, categories=NAMES).fingerprint == source.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "conv1.weight"}, "1 missing: conv1.weight"),
        (lambda s: {k: v for k, v in s.items() if k != "fc.weight"}, "1 missing: fc.weight"),
        (lambda s: {**s, "extra.weight": torch.ones(1)}, "1 unknown: extra.weight"),
        (lambda s: {**s, "bn1.weight": torch.ones(5)}, r"bn1.weight \(5,\) instead of \(64,\)"),
        (lambda s: {"state_dict": 3}, "holds no state dict"),
    ],
)
def test_names_the_keys_that_do_not_fit(state, tmp_path, change, message):
    path = tmp_path / "weights.pt"
    torch.save(change(dict(state)), path)
    with pytest.raises(ValueError, match=message):
        resnet18(path)


def test_refuses_what_it_cannot_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        resnet18(tmp_path / "none.pth")
    for name in ("damaged.pth", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        with pytest.raises(OSError, match="cannot be read"):
            resnet18(tmp_path / name)
    torch.save({"a": np.zeros}, tmp_path / "code.pt")
    with pytest.raises(OSError, match="cannot be read"):
        resnet18(tmp_path / "code.pt")
    with pytest.raises(ValueError, match="did you mean 'IMAGENET1K_V1'"):
        resnet18("IMAGENET1K_V2")
    with pytest.raises(TypeError, match="weights is a int"):
        resnet18(3)


def test_counts_categories_against_the_file(state, tmp_path):
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"categories has 2 names; .* have 3 outputs"):
        resnet18(tmp_path / "w.safetensors", categories=["a", "b"])


def test_torchvision_weights_by_name(monkeypatch):
    torch.manual_seed(0)
    published = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(
        torchvision.models._api, "load_state_dict_from_url", lambda url, **options: published
    )
    model = resnet18("IMAGENET1K_V1")
    loaded = model.network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in published.items())
    assert model.outputs[1] == "goldfish"
    assert model.mean == (0.485, 0.456, 0.406)


def test_download_that_fails_says_to_pass_a_file(monkeypatch):
    def offline(url, **options):
        raise URLError("no network")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(OSError, match="pass a local file"):
        resnet18("IMAGENET1K_V1")


def test_random_weights_have_the_imagenet_names_each_once():
    names = resnet18().outputs
    assert len(names) == len(set(names)) == 1000
    assert names[0] == "tench"
    assert _unique(["crane", "dog", "crane"]) == ["crane 0", "dog", "crane 2"]
