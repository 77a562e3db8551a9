"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import measuring


@pytest.fixture
def quick_turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Benchmarks whose timings nobody reads: no pauses, and small GEMMs."""
    monkeypatch.setattr(measuring, "SETTLE_S", 0.0)
    monkeypatch.setattr(measuring, "BLOCK_S", 0.0)
    monkeypatch.setattr(measuring, "GEMM_SIZE", 64)
    measuring.gemm_runs.cache_clear()
    yield
    measuring.gemm_runs.cache_clear()
