"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import measuring

ESM_CPP = """
import mlx.core as mx, numpy as np
from mlx_esm_kernels import load_model
__version__ = "9"
current_isa = lambda: "none"
class Model:
    load_from_safetensors = classmethod(lambda cls, path: cls(path))
    def __init__(self, path): self.model = load_model(path)
    def quantize_weights(self): pass
    def forward_scheduled(self, batch): pass
    def forward_with_hidden_states(self, ids):
        print("libraries print")
        return None, [np.array(self.model.encode(mx.array(ids[None])))[0] * 1.00001]
"""


@pytest.fixture
def esm_cpp_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An interpreter that has a package of that name, which is our model in its place."""
    (tmp_path / "esm_cpp.py").write_text(ESM_CPP)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    return sys.executable


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
