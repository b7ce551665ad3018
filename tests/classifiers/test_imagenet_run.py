"""The run over ImageNet (benchmarks/imagenet.py), on a folder of four small pictures."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

import retina_codec as rc

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """The script, on a small network and one picture a batch."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = runpy.run_path(str(BENCHMARKS / "imagenet.py"), run_name="imagenet")
    sys.modules.pop("side_by_side", None)
    small = rc.classifiers.cifar_resnet(depth=8, seed=0)
    small.preprocess = rc.classifiers.Preprocessing(32, (32, 32), mean=small.mean, sd=small.sd)
    monkeypatch.setattr(rc.classifiers, "resnet50", lambda weights: small)
    whole = rc.contributions
    monkeypatch.setattr(rc, "contributions", lambda *a, **k: whole(*a, **k, batch_size=1))
    return names["main"], small


def test_killed_and_resumed_it_ends_as_undisturbed(script, tmp_path, monkeypatch, capsys):
    main, model = script
    rng = np.random.default_rng(0)
    for i in range(4):
        file = tmp_path / "val" / f"n{i % 2:08d}" / f"{i}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(file)
    resumed = tmp_path / "resumed.zarr"
    reads, read = [], rc.classifiers.images.read_picture
    interrupt = [True]

    def marks():
        return list(Path(f"{resumed}.unfinished/done").glob("[0-9]*"))

    def looked_at(path, **options):
        if len(marks()) == 2 and interrupt:
            interrupt.clear()
            raise KeyboardInterrupt
        reads.append(path.name)
        return read(path, **options)

    monkeypatch.setattr(rc.classifiers.images, "read_picture", looked_at)
    main([str(tmp_path / "val"), str(tmp_path / "whole.zarr"), "--steps", "2"])
    assert "4 images, 3 layers" in capsys.readouterr().out
    undisturbed = len(reads)
    with pytest.raises(KeyboardInterrupt):
        main([str(tmp_path / "val"), str(resumed), "--steps", "2"])
    assert not resumed.exists()
    assert len(marks()) == 2  # two of four pictures are done
    reads.clear()
    main([str(tmp_path / "val"), str(resumed), "--steps", "2"])
    assert len(reads) <= undisturbed - 2  # and are not done again
    one, two = rc.open_contributions(tmp_path / "whole.zarr"), rc.open_contributions(resumed)
    xr.testing.assert_identical(one.compute(), two.compute())
    assert list(two["label"].values) == ["n00000000"] * 2 + ["n00000001"] * 2

    # The numbers are those of images in memory.
    images = rc.classifiers.open_images(tmp_path / "val", preprocess=model.preprocess).load()
    tree = rc.contributions(
        model,
        images,
        layers="layer3.0",
        method=rc.methods.IntegratedGradients(steps=2),
        split_sign=True,
        sum_over=("y", "x"),
        progress=False,
    )
    np.testing.assert_allclose(
        two["layers/layer3.0/contribution"],
        tree["layers/layer3.0/contribution"],
        rtol=1e-4,
        atol=1e-5,
    )
