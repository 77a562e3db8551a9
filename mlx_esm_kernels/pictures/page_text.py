"""What pages are made of: the files in `page/`, whose places are filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def part(name: str) -> str:
    """The text of a file in `page/`."""
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def filled(name: str, parts: Mapping[str, str]) -> str:
    """The page of a file in `page/`, `{{title}}` and the like replaced.

    In one pass, so that a name which looks like a place of the page is none.
    """
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], part(name))


def as_data(value: Any) -> str:
    """JSON for a script element; `<` in a name does not end the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
