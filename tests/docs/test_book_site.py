"""The book as a site: it builds without a network, is whole, and asks nobody else for anything."""

from __future__ import annotations

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from book import ROOT

pytest.importorskip("mkdocs_same_dir")

# Whoever asks for a page elsewhere does not get through.
NOBODY = "http://127.0.0.1:9"


class Places(HTMLParser):
    """What a page loads, and where its links lead."""

    def __init__(self):
        super().__init__()
        self.loaded, self.linked = [], []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag in ("script", "img", "source", "iframe") and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loaded.append(found["href"])
        if tag == "a" and found.get("href"):
            self.linked.append(found["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    env = os.environ | dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), NOBODY)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def pages(site: Path) -> list[tuple[Path, Places]]:
    found = []
    for path in site.rglob("*.html"):
        places = Places()
        places.feed(path.read_text("utf-8"))
        found.append((path, places))
    return found


def test_every_page_of_the_contents_is_there(site):
    assert len(pages(site)) >= 20
    assert (site / "index.html").read_text("utf-8").count("docs/attention/") >= 1


def test_what_a_page_loads_is_of_the_site(site):
    for path, places in pages(site):
        assert places.loaded
        for place in (one for one in places.loaded if not one.startswith("data:")):
            assert not urlsplit(place).netloc, f"{path}: {place}"
            assert target(site, path, place).is_file(), f"{path}: {place}"


def test_links_within_the_site_lead_somewhere(site):
    for path, places in pages(site):
        for place in places.linked:
            if not urlsplit(place).scheme and urlsplit(place).path:  # not an anchor alone
                assert target(site, path, place).exists(), f"{path}: {place}"


def target(site: Path, page: Path, place: str) -> Path:
    """Where a relative place, or one from the site's root, lies on the disk."""
    name = unquote(urlsplit(place).path)
    return site / name.lstrip("/") if name.startswith("/") else page.parent / name
