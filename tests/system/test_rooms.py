"""The rooms keep to their arrows, and a contract that is broken is noticed."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("importlinter")
tomllib = pytest.importorskip("tomllib")  # new in Python 3.11, as what import-linter needs

ROOT = Path(__file__).parents[2]
PYPROJECT = ROOT / "pyproject.toml"
# A contract, a file of the package, and a line in it that breaks the contract.
VIOLATIONS = [
    ("arrows", "system/console.py", "from ..data.alphabet import ESM1B"),
    ("arrows", "data/fasta.py", "from ..ops import linear"),
    ("arrows", "data/fasta.py", "from ..models.config import ESM1Config"),
    ("arrows", "ops/tiles.py", "from ..data.alphabet import ESM1B"),
    ("arrows", "ops/tiles.py", "from ..models.config import ESM1Config"),
    ("arrows", "distributed/ranks.py", "from ..ops import masked_attention"),
    ("arrows", "models/config.py", "from ..weights.opened import WeightsError"),
    ("arrows", "inference/windows.py", "from ..weights import load_model"),
    ("arrows", "weights/opened.py", "from ..inference.windows import tile"),
    ("arrows", "pictures/figure.py", "from ..inference.windows import tile"),
    ("arrows", "pictures/figure.py", "from ..weights import load_model"),
    ("arrows", "weights/opened.py", "from ..training.schedule import learning_rate"),
    ("arrows", "training/schedule.py", "from ..commands.flags import open_model"),
    ("arrows", "inference/windows.py", "from ..fitting.head import Head"),
    ("arrows", "fitting/head.py", "from ..training.schedule import learning_rate"),
    ("arrows", "training/schedule.py", "from ..fitting.head import Head"),
    ("doors", "commands/cli.py", "from ..embed import command"),
    ("doors", "__init__.py", "def late():\n    from .train import command"),
    ("package", "inference/windows.py", "from mlx_esm_kernels import load_model"),
    ("pictures", "pictures/figure.py", "from ..data.proteins import Proteins"),
    ("pictures", "pictures/figure.py", "from ..models.config import ESM1Config"),
    ("pictures", "pictures/figure.py", "import mlx.core as mx"),
    ("data", "data/masking.py", "import mlx.core as mx"),
    ("truth", "ops/truth.py", "import mlx.core as mx"),
    ("reference", "models/reference.py", "from ..ops import linear"),
    ("click", "system/console.py", "import click"),
    ("torch", "inference/windows.py", "def late():\n    import torch"),
    ("cycles", "inference/windows.py", "from .variants import marginals"),
]


@pytest.fixture
def package(tmp_path):
    """A copy of the package, beside a copy of the contracts."""
    shutil.copytree(
        ROOT / "mlx_esm_kernels",
        tmp_path / "mlx_esm_kernels",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    shutil.copy(PYPROJECT, tmp_path)
    return tmp_path / "mlx_esm_kernels"


# The copy, not what is installed: the finder of an editable installation would come first.
LINT = """
import sys
sys.meta_path = sys.meta_path[-3:]
sys.path.insert(0, ".")
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint(package, *flags):
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo", *flags],
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_package_as_it_is_keeps_every_contract(package):
    result = lint(package)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.slow  # a second each, for a reader of the whole package
@pytest.mark.parametrize(("contract", "file", "line"), VIOLATIONS)
def test_an_import_that_breaks_a_contract_is_noticed(package, contract, file, line):
    with (package / file).open("a") as source:
        source.write(f"\n{line}\n")
    result = lint(package, "--contract", contract)
    assert result.returncode == 1, result.stdout
    assert "0 kept, 1 broken" in result.stdout


def test_every_contract_is_broken_by_a_test():
    contracts = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == {name for name, _, _ in VIOLATIONS}
