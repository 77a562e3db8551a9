"""Runs notebooks anew and writes what they show into them: `python tools/notebooks/execute.py`.

It needs `pip install -e ".[notebooks]"`. Each runs in a folder of its own, with nothing but the
files that it reads, so that what is kept names no place of this machine.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "notebooks"
NOTEBOOKS = tuple(sorted(FOLDER.glob("*.ipynb")))
_SECONDS = 600  # for one cell, on a machine that does other things, too


def executed(path):
    """The notebook with what its cells show now, tidied.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises.
    """
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        for file in FOLDER.iterdir():
            if file.is_file() and file not in NOTEBOOKS:
                shutil.copy(file, folder)
        commands = str(Path(sys.executable).parent)  # mlx-esm, as where Jupyter is started from it
        before = os.environ["PATH"]
        os.environ["PATH"] = os.pathsep.join([commands, before])
        try:
            NotebookClient(
                notebook,
                timeout=_SECONDS,
                kernel_name="python3",
                record_timing=False,
                resources={"metadata": {"path": folder}},
            ).execute()
        finally:
            os.environ["PATH"] = before
    notebook.metadata.language_info = {"name": "python"}  # less its version
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = tidied(cell.outputs)
    nbformat.validate(notebook)
    return notebook


def tidied(outputs):
    """Outputs with streams joined, and lines as they are in the end."""
    found = []
    for output in outputs:
        last = found[-1] if found else {}
        if output["output_type"] == "stream" and output["name"] == last.get("name"):
            last["text"] += output["text"]
        else:
            found.append(output)
    for output in found:
        if output["output_type"] == "stream":
            lines = [line.rstrip("\r").split("\r")[-1] for line in output["text"].split("\n")]
            output["text"] = "\n".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", x) for x in lines)
    return found


if __name__ == "__main__":
    import nbformat

    for notebook in NOTEBOOKS:
        nbformat.write(executed(notebook), notebook)
