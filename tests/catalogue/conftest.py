"""A catalogue of the tests' own, and a server on this machine that has its files."""

import hashlib
import http.server
import threading
from pathlib import Path

import pytest
import yaml

from retina_codec.catalogue import registry

ENTRIES = {
    "name": "toy",
    "title": "Two numbers",
    "citation": "Nobody (2000). Toys",
    "data_doi": "10.1234/toy.files",
    "paper_doi": "10.1234/toy",
    "landing_page": "https://example.org/toy",
    "licence": "CC0",
    "species": "none",
    "cells": "1",
    "layout": "text",
    "not_read": None,
    "options": {},
    "folder": "toy_files",
    "recordings": ".",
    "url_base": None,
    "files": [],
    "obtain": "Ask nobody.",
    "facts": {"spikes": {"C7": 4}},
    "sources": ["made up"],
}


@pytest.fixture
def describe(tmp_path, monkeypatch):
    """Write a description, with entries replaced (or, if ..., left out), and make it known."""
    folder = tmp_path / "descriptions"
    monkeypatch.setattr(registry, "descriptions_folder", lambda: folder)

    def write(**changed) -> Path:
        entries = {k: v for k, v in (ENTRIES | changed).items() if v is not ...}
        place = folder / str(changed.get("name", "toy"))
        place.mkdir(parents=True, exist_ok=True)
        (place / "dataset.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
        (place / "card.md").write_text("# Toy\n")
        return place

    return write


class Answers(http.server.BaseHTTPRequestHandler):
    """Sends the bodies it was given; some are cut in the middle."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path not in self.server.bodies:
            self.send_error(404)
            return
        body, how = self.server.bodies[self.path]
        self.send_response(200)
        if how != "cut, length not told":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if how == "whole" else body[: len(body) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server; `give(path, body, how)` puts a file there and returns its description."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    running.bodies, running.asked = {}, []

    def give(name: str, body: bytes, how: str = "whole", **changed) -> dict:
        running.bodies[f"/{name}"] = (body, how)
        return {
            "name": name,
            "url": f"http://127.0.0.1:{running.server_port}/{name}",
            "sha256": hashlib.sha256(body).hexdigest(),
        } | changed

    running.give = give
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
