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


@pytest.fixture
def small_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of arrays that take no time to make."""
    from harness import copies

    monkeypatch.setattr(copies, "COPY_BYTES", 1 << 16)
