"""The report of a small run: one page, whole, escaped, and honest about what is missing."""

from __future__ import annotations

import base64
import re
import shutil
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pytest
import yaml
from PIL import Image

from retina_codec._common.files import open_tree
from retina_codec.reporting import report
from retina_codec.reporting.figures import _busy_stretch
from retina_codec.reporting.page import Section, page, paragraph, table

VOID = {"meta", "img", "br", "hr", "link", "input"}
SECTIONS = ["findings", "run", "model", "contributions", "modes", "interneurons"]


class Page(HTMLParser):
    """Tags must nest; texts, addresses and ids are collected."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "srcset"):
                self.addresses.append((tag, name, value))
            if name == "id":
                self.ids.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style",):
            self.text += data


@pytest.fixture(scope="module")
def written(finished_run, tmp_path_factory):
    folder = shutil.copytree(finished_run, tmp_path_factory.mktemp("report") / "run")
    path = report(folder)
    return path, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def parsed(written):
    return Page(written[1])


def test_it_is_one_self_contained_page(written, parsed):
    path, html = written
    assert path.name == "report.html"
    assert "<script" not in html.lower() and "@import" not in html and "url(" not in html
    for tag, name, value in parsed.addresses:
        if tag == "img":
            assert value.startswith("data:image/png;base64,")
        else:
            assert (tag, name) == ("a", "href")
            assert value.startswith(("#", "https://arxiv.org/", "https://doi.org/"))


def test_every_section_is_there_and_linked(parsed):
    expected = [*SECTIONS, "provenance", "cite"]
    assert parsed.ids == expected
    anchors = [value[1:] for _, _, value in parsed.addresses if value.startswith("#")]
    assert anchors == expected


def test_text_is_escaped(written, parsed):
    _, html = written
    for raw in ("<b>", "<i>", "<u>", "<run>", "<carry>"):
        assert raw not in html
    assert not {"b", "i", "u"} & set(parsed.seen)
    assert any(f"of cell {cell}," in parsed.text for cell in ("<b>", "<i> & 2", "<u>"))
    assert 'A "small" <run>' in parsed.text
    assert "Modes <carry> light." in parsed.text
    assert "circuit: <script>" in parsed.text  # of job.yaml


def test_captions_numbers_and_provenance(written, parsed):
    path, _ = written
    folder = path.parent
    assert parsed.seen.count("figcaption") == parsed.seen.count("figure") >= 10
    scores = open_tree(folder / "evaluation.nc")
    median = float(np.median(scores["trained"]["pearson_r"]))
    assert f"reaches a median Pearson r of {median:.2f} over 3 cells" in parsed.text
    better = int((scores["trained"]["pearson_r"] > scores["ln"]["pearson_r"]).sum())
    assert f"In {better} of 3 cells it is above the LN baseline" in parsed.text
    assert scores["trained"].attrs["model_fingerprint"] in parsed.text
    assert "IntegratedGradients(steps=2" in parsed.text
    assert "untrained network" in parsed.text and "3 of 4" in parsed.text
    tree = open_tree(folder / "contributions" / "trained.zarr")
    change = (tree["target"] - tree["target_baseline"]).values
    error = tree["layers/conv1"]["completeness_error"].values
    share = 100 * np.sqrt((error**2).mean() / (change**2).mean())
    assert f"{share:.2g} %" in parsed.text


def test_figures_stand_beside_it_and_in_it(written):
    path, html = written
    figures = path.parent / "figures"
    names = {file.stem for file in figures.glob("*.png")}
    assert names == {file.stem for file in figures.glob("*.svg")}
    assert {
        "movie",
        "reliability",
        "scores",
        "predictions",
        "training",
        "filters",
        "contribution_conv1",
        "contribution_conv2",
        "mode_features_conv1",
        "mode_timeline_conv1",
        "dictionary_conv1",
        "mode_cells_conv1",
        "epoch_selectivity_conv1",
        "interneurons",
    } == names
    inside = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    on_disk = {file.read_bytes() for file in figures.glob("*.png")}
    assert {base64.b64decode(data) for data in inside} == on_disk
    for file in figures.glob("*.png"):
        with Image.open(file) as image:
            assert image.info["dpi"][0] == pytest.approx(150, abs=1)
            assert np.asarray(image.convert("L")).min() < 128


def test_a_second_report_is_the_same(run_folder):
    open_before = plt.get_fignums()  # docstrings tested before may have left some
    first = report(run_folder).read_bytes()
    assert plt.get_fignums() == open_before
    svg = {file.name: file.read_bytes() for file in (run_folder / "figures").glob("*.svg")}
    assert report(run_folder).read_bytes() == first
    assert svg == {file.name: file.read_bytes() for file in (run_folder / "figures").glob("*.svg")}


def test_absent_parts_are_left_out(run_folder):
    for name in ("contributions", "modes", "figures"):
        shutil.rmtree(run_folder / name, ignore_errors=True)
    for name in (
        "reliability.nc",
        "training.nc",
        "predictions.nc",
        "mode_scores.nc",
        "descriptions.nc",
        "selectivity.nc",
        "interneurons.nc",
        "summary.json",
    ):
        (run_folder / name).unlink()
    parsed = Page(report(run_folder, title="Short").read_text(encoding="utf-8"))
    assert parsed.ids == ["run", "model", "provenance", "cite"]
    assert parsed.text.strip().startswith("Short")
    assert {file.stem for file in (run_folder / "figures").glob("*.png")} == {"scores", "filters"}


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        ("job.yaml", "has no job.yaml"),
        ("recording.zarr", "the stage 'recording' is missing"),
        ("models/trained", "the stage 'training' is missing"),
        ("evaluation.nc", "the stage 'evaluation' is missing"),
    ],
)
def test_a_missing_stage_is_named(run_folder, removed, words):
    path = run_folder / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=words):
        report(run_folder)
    assert not (run_folder / "report.html").exists()


def test_title_of_the_caller_wins(run_folder):
    job = yaml.safe_load((run_folder / "job.yaml").read_text())
    (run_folder / "job.yaml").write_text(yaml.safe_dump({**job, "title": None}))
    parsed = Page(report(run_folder).read_text(encoding="utf-8"))
    assert parsed.text.strip().startswith("What the model's interneurons contribute")


def test_the_stretch_with_most_kinds_of_epoch_is_shown(finished_run):
    tree = open_tree(finished_run / "contributions" / "trained.zarr")
    target = tree["target"].load()
    start, stop = _busy_stretch(target, 2.0)
    assert stop - start == pytest.approx(1.99)
    kinds = set(target["epoch"].sel(time=slice(start, stop)).values) - {"transition"}
    others = [
        set(target["epoch"].isel(time=slice(i, i + 200)).values) - {"transition"}
        for i in range(0, target.sizes["time"] - 200, 50)
    ]
    assert len(kinds) == max(map(len, others))


def test_page_escapes_all_text():
    body = paragraph("a < b", "", "& c") + table(["<h>"], [["<i>"]], "<c>")
    html = page("<t>", paragraph("x"), [Section("one", "<s>", body)], "<f>")
    parsed = Page(html)
    assert not {"t", "s", "f", "h", "i", "c"} & set(parsed.seen)
    assert "a < b & c" in parsed.text
