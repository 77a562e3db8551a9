"""Fixtures of several files; and hypothesis profiles, chosen with HYPOTHESIS_PROFILE.

fast (the default): a few examples per property, new ones each run.
ci (the default where CI is set): as many, but the same ones every time.
thorough: many, for a change of a kernel.
"""

import io
import os

import pytest
from hypothesis import HealthCheck, settings

# No deadline: the first call of an op may compile or start threads, and machines differ.
# Data come from a seed, so a slow draw is no sign of a poor strategy.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("fast", _COMMON, max_examples=30)
settings.register_profile("ci", _COMMON, max_examples=30, derandomize=True, print_blob=True)
settings.register_profile("thorough", _COMMON, max_examples=500)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
)


@pytest.fixture
def write(tmp_path):
    """Writes bytes into a file of a fresh folder and gives its path."""

    def write_file(content, name="proteins.fasta"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_file


@pytest.fixture
def stdin(monkeypatch):
    """Puts bytes on standard input."""

    def give(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    return give
