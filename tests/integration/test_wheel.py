"""A wheel carries what the package needs, and nothing but the package."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import retina_codec as rc

ROOT = Path(rc.__file__).parents[1]


def test_an_installed_wheel_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet",
         "--wheel-dir", str(tmp_path), str(ROOT)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    target = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(target)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"retina_codec"}
    code = (
        "import retina_codec as rc; print(rc.__file__);"
        "print(len(rc.simulation.circuit().outputs), rc.__version__);"
        "print(*rc.catalogue.dataset_names());"
        "sample = rc.catalogue.open_dataset('simulated_sample');"
        "print(rc.catalogue.dataset('simulated_sample').place, sample['train'].sizes['time']);"
        "print(*rc.models.zoo.model_names());"
        "print(rc.models.zoo.zoo_folder(), rc.load_model('simulated_bncnn').fingerprint)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    place, facts, names, sample, models, zoo = ran.stdout.splitlines()
    assert Path(place).is_relative_to(target)
    assert facts == f"20 {rc.__version__}"
    assert names.split() == rc.catalogue.dataset_names()
    sample_place, n_frames = sample.rsplit(" ", 1)
    assert Path(sample_place) == target / "retina_codec" / "_datasets" / "simulated_sample"
    assert n_frames == "3000"
    assert models.split() == rc.models.zoo.model_names()
    zoo_place, fingerprint = zoo.rsplit(" ", 1)
    assert Path(zoo_place) == target / "retina_codec" / "_models"
    assert fingerprint == rc.load_model("simulated_bncnn").fingerprint
