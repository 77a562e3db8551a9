"""The notebooks: they run, they were run, and they name no machine.

Running them needs the extra `notebooks`; where it is missing that test is skipped, and says so,
unless MLX_ESM_KERNELS_NOTEBOOKS=required, as .ci/run has it.
"""

import ast
import importlib
import json
import os
import re
import shlex

import pytest
from notebooks import make_hairpins
from notebooks.execute import FOLDER, NOTEBOOKS, executed, tidied

from mlx_esm_kernels.commands.cli import main
from mlx_esm_kernels.data.structure import load_structure
from mlx_esm_kernels.inference.contact_precision import contacts_of

MOST_BYTES = 700_000
# The first name of a path from the root, before another; a page of HTML has more in its scripts.
A_PLACE = re.compile(r"(?<![\w.:<>/])/[\w.~-]+/[\w.~-]+|\b[A-Z]:\\")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text(lines):
    return lines if isinstance(lines, str) else "".join(lines)


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def plain(output):
    """What an output says without a picture or a page."""
    return text(output.get("text", output.get("data", {}).get("text/plain", "")))


def kinds(cell):
    """Of each output its type, and the stream or the forms that it has."""
    return [(o["output_type"], o.get("name") or sorted(o["data"])) for o in cell["outputs"]]


def stable(told):
    """What is said, less numbers, the machine, the mutants that a number chose, and what a bar says
    of work that takes half a minute."""
    told = re.sub(r"(?m)^.* left$", "", told)
    told = re.sub(r"(\d+ h )?(\d+ min )?\d+ s\b", "TIME", told)
    told = re.sub(r"[+-]?\d[\d,.]*", "#", told)
    told = re.sub(r"\b[A-Z]#[A-Z]\b", "MUTANT", told)
    return re.sub(r"\s+", " ", told).replace("on the gpu", "on the cpu").strip()


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["score_and_view", "train_and_sample"]


def test_it_is_a_notebook_of_no_special_kernel(notebook):
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    assert set(notebook) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}  # no widgets, no machine
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert cell["cell_type"] in ("markdown", "code")
        assert cell["metadata"] == {}
        assert text(cell["source"]).strip()


def test_every_cell_was_run_in_order_and_none_failed(notebook):
    cells = code_cells(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(cell["outputs"] for cell in cells[1:])  # the first one imports
    assert {output["output_type"] for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert not any(re.search(r"Error|Traceback|Warning", plain(output)) for output in outputs)


def test_nothing_that_it_shows_names_a_place_of_a_machine(notebook):
    for cell in code_cells(notebook):
        for output in cell["outputs"]:
            assert A_PLACE.search(plain(output)) is None
            assert not re.search(r"[\r\x1b]", plain(output))


def test_it_is_small(path):
    assert path.stat().st_size < MOST_BYTES


def test_the_names_and_the_files_it_uses_exist(notebook):
    for cell in code_cells(notebook):
        source = re.sub(r"^(\s*)!.*$", r"\1pass", text(cell["source"]), flags=re.M)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == "mlx_esm_kernels":
                module = importlib.import_module(node.module)
                assert {alias.name for alias in node.names} <= set(module.__all__)
    for cell in notebook["cells"]:
        for file in re.findall(
            r'"([\w/]+\.(?:fasta|pdb))"|\]\(([\w/]+\.\w+)\)', text(cell["source"])
        ):
            name = "".join(file)
            assert name == "new.fasta" or (FOLDER / name).exists(), name


def test_the_commands_it_runs_know_their_options(notebook):
    found = re.findall(r"!mlx-esm (.*)", "\n".join(text(c["source"]) for c in code_cells(notebook)))
    assert found
    for line in found:
        name, *words = shlex.split(line.split("|")[0])
        main.commands[name].make_context(name, words)  # raises what a user would be told


def test_its_proteins_are_those_that_were_made(tmp_path):
    make_hairpins.main(tmp_path)
    for name in ("hairpins.fasta", "hairpin.pdb"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_what_varies_together_in_them_touches_in_their_fold():
    (chain,) = load_structure(FOLDER / "hairpin.pdb").chains
    contacts = contacts_of(chain.cb)
    first, second = make_hairpins.family(make_hairpins.np.random.default_rng(0)).pairs.T
    assert len(first) == 12
    assert contacts[first, second].all()
    assert contacts.sum() < 0.25 * contacts.size


def test_tidied_outputs_hold_the_lines_as_they_are_in_the_end():
    def stream(said, name="stdout"):
        return {"output_type": "stream", "name": name, "text": said}

    bars = [stream("one\r\n\r 5%"), stream("\r50%\r    \rtwo\r\n"), stream("\x1b[Athree", "stderr")]
    assert tidied(bars) == [stream("one\ntwo\n"), stream("three", "stderr")]


@pytest.mark.slow
def test_run_anew_it_shows_what_it_shows(path, notebook):
    for needed in ("nbclient", "ipykernel"):
        try:
            importlib.import_module(needed)
        except ImportError:
            why = f'{needed} is missing: pip install -e ".[notebooks]"'
            if os.environ.get("MLX_ESM_KERNELS_NOTEBOOKS") == "required":
                pytest.fail(why)
            pytest.skip(why)
    for then, now in zip(code_cells(notebook), code_cells(executed(path)), strict=True):
        assert kinds(now) == kinds(then)
        for one, other in zip(now["outputs"], then["outputs"], strict=True):
            assert stable(plain(one)) == stable(plain(other))
