"""The book names files that exist, leads where it says, and quotes what the program says."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from functools import cache

import pytest
from book import PAGES, ROOT, text_of

NAV = (ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:\n")[2]
_LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")


def without_code(page: str) -> str:
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^    .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`]*`", "", text)


def anchors(page: str) -> set[str]:
    """Those of the headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"\s", "-", one) for one in plain}


def is_outside(target: str) -> bool:
    return target.startswith(("https://", "mailto:"))


# Links


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_what_there_is(page):
    here = ROOT / page
    for target in filter(lambda one: not is_outside(one), _LINK.findall(without_code(page))):
        path, _, anchor = target.partition("#")
        linked = (here.parent / path).resolve() if path else here
        assert linked.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(linked.relative_to(ROOT).as_posix()), f"{page}: {target}"


def test_every_page_is_in_the_contents_once():
    named = re.findall(r"[\w/]+\.(?:md|ipynb)", NAV)
    assert sorted(named) == sorted(set(named))
    assert set(PAGES) <= set(named)
    for page in named:
        assert (ROOT / page).is_file(), page


# Files


@pytest.mark.parametrize("page", ["docs/add_an_op.md", "docs/proofs.md", "docs/benchmarks.md"])
def test_the_files_that_a_page_names_exist(page):
    """Whatever has a folder in it; a bare name is one of the folder that was named before."""
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\s]+)`", prose)
    paths = [one for one in spans if re.fullmatch(r"\.?\w+/[\w./-]*", one)]
    inside = {"harness/", "against/", "metal/", "report_parts/"}  # of bench/
    assert len(paths) >= 5
    for path in paths:
        assert (ROOT / ("bench" if path in inside else "") / path).exists(), path


def test_no_file_of_the_op_is_left_out():
    text = text_of("docs/add_an_op.md")
    folders = (ROOT / "csrc" / "rotary", ROOT / "bench", ROOT / "tests")
    for folder in folders:
        for path in folder.rglob("*"):
            of_it = folder.name == "rotary" or "rotary" in path.name
            if path.is_file() and of_it and path.suffix != ".pyc":
                name = path.relative_to(ROOT).as_posix()
                if name != "tests/models/test_rotary.py":  # of the model that uses it
                    assert f"`{name}`" in text, name


def test_extras_that_are_named_exist():
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    known = pyproject.partition("[project.optional-dependencies]")[2].partition("\n[project")[0]
    table = text_of("docs/install.md").partition("| extra |")[2].partition("\n\n")[0]
    named = {one for row in table.splitlines() for one in re.findall(r"`(\w+)`(?=.*\|.*\|)", row)}
    assert named == set(re.findall(r"^(\w+) = \[", known, flags=re.MULTILINE))


@pytest.mark.parametrize("drawing", sorted((ROOT / "docs" / "drawings").glob("*.svg")), ids=str)
def test_a_drawing_is_for_light_and_dark_and_asks_for_nothing(drawing):
    text = drawing.read_text("utf-8")
    assert ElementTree.fromstring(text).find("{http://www.w3.org/2000/svg}title") is not None
    assert "prefers-color-scheme:dark" in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert f"drawings/{drawing.name})" in text_of("docs/attention.md")


# What the program says


@cache
def literals() -> list[str]:
    """The texts in the package, those around what is filled in each by itself, longest first."""
    found = set()
    for path in (ROOT / "mlx_esm_kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value.strip())
    return sorted(found, key=len, reverse=True)


def strange(sentence: str) -> str:
    """What of a sentence no text of the program has; *this* is what a run fills in."""
    left = []
    for part in (one.strip() for one in re.split(r"\*[^*]*\*", sentence)):
        if part not in literals():  # short texts count only where they stand alone
            for literal in literals():
                part = part.replace(literal, " ") if len(literal) >= 8 else part
            left.append(part)
    return re.sub(r"[^\w]", "", "".join(left))


def quotations(page: str) -> list[str]:
    """The paragraphs of the page's block quotes, each as one line."""
    quotes = re.findall(r"(?:^>.*\n)+", text_of(page), flags=re.MULTILINE)
    paragraphs = (one for quote in quotes for one in re.split(r"^>\n", quote, flags=re.MULTILINE))
    return [" ".join(one.replace("\n> ", " ")[2:].split()) for one in paragraphs]


SENTENCES = quotations("docs/troubleshooting.md")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_is_the_programs_own(sentence):
    assert strange(sentence) == ""


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_changed_word_is_noticed(sentence):
    words = sentence.split()
    places = [at for at, word in enumerate(words) if len(word) > 5 and "*" not in word]
    assert places
    for at in places:
        changed = " ".join([*words[:at], "changed", *words[at + 1 :]])
        assert strange(changed) != "", changed
