"""Nothing is documented that does not run: Python, settings and links of the documents."""

import itertools
import os
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import yaml

import retina_codec as rc
from retina_codec.jobs import Job, read_job

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(
            page
            for folder in ("docs", "datasets", "models", "benchmarks", "tutorials")
            for page in (ROOT / folder).rglob("*.md")
        ),
    ]
)
PLACES = r"(?<![\w.:/])/(?:work|home|root|tmp|Users)/\S*"
JOB_OPTIONS = {field.name for field in fields(Job)}


def blocks(page, language):
    """Fenced code blocks of one language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)
    return [text for text in found if text.strip()]


def name_of(page):
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if blocks(page, "python")], ids=name_of
)
def test_python_of_the_documents_runs(page, tmp_path):
    # One namespace and one folder for a page, as a reader who copies block after block has them.
    script = tmp_path / "blocks.py"
    script.write_text("\n\n".join(blocks(page, "python")), "utf-8")
    done = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def job_texts():
    """YAML blocks of documents, and files beside data sets, that are settings of a job."""
    for page in DOCUMENTS:
        for number, text in enumerate(blocks(page, "yaml")):
            if "folder" in (yaml.safe_load(text) or {}):
                yield pytest.param(text, id=f"{name_of(page)}-{number}")
    for file in sorted((ROOT / "datasets").glob("*/run.yaml")):
        yield pytest.param(file.read_text("utf-8"), id=name_of(file))


@pytest.mark.parametrize("text", list(job_texts()))
def test_settings_of_jobs_are_read(text, tmp_path, monkeypatch):
    monkeypatch.setenv("RETINA_CODEC_DATA", str(tmp_path))
    file = tmp_path / "job.yaml"
    file.write_text(text, "utf-8")
    given = yaml.safe_load(text)
    job = read_job(file)
    assert set(given) <= JOB_OPTIONS
    assert job.folder == given["folder"]
    assert job.modes.k == given.get("modes", {}).get("k", 2)


@pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    missing = [
        link
        for link in links
        if not re.match(r"https?://|mailto:|#", link)
        and not (page.parent / link.split("#")[0]).exists()
    ]
    assert missing == []


def test_every_public_name_is_in_the_list_of_names():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    listed = set(re.findall(r"`(?:rc\.)?([\w.]+)(?:\(.*?\))?`", text))
    assert [name for name in rc.__all__ if name not in listed] == []
    rooms = (
        "models",
        "classifiers",
        "stimuli",
        "simulation",
        "plot",
        "modes",
        "analysis",
        "recordings",
    )
    inside = [
        f"{room}.{name}"
        for room in (*rooms, "interneurons", "reporting", "validation")
        for name in getattr(rc, room).__all__
    ]
    absent = [name for name in inside if not {name, name.split(".")[1]} & listed]
    assert absent == []


def test_names_in_the_list_of_names_exist():
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    for dotted in re.findall(r"^\| `rc\.([\w.]+)", text, re.M):
        thing = rc
        for part in dotted.split("."):
            assert hasattr(thing, part), f"docs/api.md names rc.{dotted}"
            thing = getattr(thing, part)


def options_of(cls, prefix=""):
    """Every option of a job as ``section.name``, with its default as YAML."""
    hints = get_type_hints(cls)
    for field in fields(cls):
        kinds = (hints[field.name], *get_args(hints[field.name]))
        kind = next((k for k in kinds if is_dataclass(k)), None)
        if kind is not None:
            yield from options_of(kind, f"{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def test_table_of_options_is_that_of_the_code():
    text = (ROOT / "docs" / "command_line.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w.]+)` \| ([^|]+?) \|", text, re.M))
    options = dict(options_of(Job))
    assert set(rows) == set(options)
    for name, field in options.items():
        if isinstance(field.default, str | int | float) or field.default is None:
            said = yaml.safe_load(rows[name].strip("`"))
            expected = field.default
            assert said == expected or (expected is None and rows[name].startswith("(")), name


def test_no_document_names_a_place_of_one_machine():
    texts = itertools.chain(DOCUMENTS, ROOT.glob("datasets/*/*.yaml"), ROOT.glob("docs/*.py"))
    for page in texts:
        found = re.findall(PLACES, page.read_text("utf-8"))
        assert found == [], name_of(page)
