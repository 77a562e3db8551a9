"""The README is true: its Python runs, and it is short enough to be read."""

import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_python_in_the_readme_runs():
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_files_and_folders_it_names_exist():
    tree = re.search(r"## Where things are\n\n```\n(.*?)```", README, flags=re.DOTALL)
    assert tree
    names = [
        name for line in tree[1].splitlines() for name in re.findall(r"^\S+|(?<=/ )\S+/", line)
    ]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert len(names) >= 7
    for name in (*names, *pictures):
        assert (Path(__file__).parents[2] / name).exists(), name


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150
