"""Every command in the README and the book is one that there is, and runs.

The fast tests have click take each line apart: an unknown option, a wrong word or a missing
argument turns them red. The slow ones run them, page by page and in their order, in a folder with
stand-ins for what a reader brings: small files under the names used, and models of the same
architecture that are a few numbers wide. `SHORTER` and `NOT_RUN` say what is done otherwise; other
programs (pip, pytest, the benchmarks, which tests/bench runs) are only taken apart.
"""

from __future__ import annotations

import gzip
import importlib
import re
import shutil
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
from book import PAGES, ROOT, Command, blocks, commands, inline_commands
from checkpoint_files import write_hugging_face
from click.testing import CliRunner
from hub_server import running_hub
from huggingface_hub import constants
from pdb_files import protein
from random_models import esm1b, esm2

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.commands import cli, train
from mlx_esm_kernels.models.esm1 import PRESETS, ESM1Config

COMMANDS = cli.main.commands
LINES = [one for page in PAGES for one in commands(page)]
OURS = [one for one in LINES if one.name in COMMANDS]
OTHERS = [one for one in LINES if one.name not in COMMANDS]

# What is added to a command, since a reader's run would take minutes: the last of an option counts.
SHORTER = {
    "train": [
        *("--num-iters", "3", "--checkpoint-every", "1"),
        *("--tokens-per-batch", "256", "--max-length", "64"),
    ],
    "fit": ["--max-epochs", "2"],
    "doctor": ["--quick"],
}
# What takes what nobody has here; the fast test has taken it apart.
NOT_RUN = {
    "--data uniref50": "a download of 10 GB",
    "--config small-mac": "a download of Swiss-Prot",
    "--hosts mac-1,mac-2": "two Macs",
}
# mlx.launch is left out of what is run: tests/commands/test_several_processes.py has it.

WILD_TYPE = "HPETLVKVKDAEDQLGARVGYIELDLNSGKILESFRPEERF"


def named(command: Command) -> str:
    return f"{command.page}: {command.text}"


def random_fasta(count: int, length: int = 40, seed: int = 0) -> str:
    rows = np.random.default_rng(seed).choice(list("ACDEFGHIKLMNPQRSTVWY"), (count, length))
    return "".join(f">p{i}\n{''.join(row)}\n" for i, row in enumerate(rows))


def scan(column: str) -> str:
    """A table of substitutions of the wild type, from number 24 on, with a measured score each."""
    rows = [f"mutant,sequence,{column},DMS_score"]
    for place, residue in enumerate(WILD_TYPE):
        new = "A" if residue != "A" else "G"
        changed = WILD_TYPE[:place] + new + WILD_TYPE[place + 1 :]
        rows.append(f"{residue}{place + 24}{new},{changed},{place % 7},{place % 5}")
    return "\n".join(rows) + "\n"


def write_files(folder: Path) -> None:
    """What a reader of the book has, by the names that it uses."""
    (folder / "proteins.fasta").write_text(random_fasta(24))  # few: each gets a map of contacts
    for name in ("family", "natural", "archaea_sprot", "mitochondria_sprot"):
        (folder / f"{name}.fasta").write_text(random_fasta(60))
    for name in ("more", "viruses_sprot"):
        (folder / f"{name}.fasta.gz").write_bytes(gzip.compress(random_fasta(60, seed=1).encode()))
    (folder / "p.fasta").write_text(random_fasta(1, length=60))
    (folder / "long.fasta").write_text(random_fasta(1, length=1100))
    (folder / "wt.fasta").write_text(f">wt\n{WILD_TYPE}\n")
    (folder / "dms.csv").write_text(scan("2500"))
    (folder / "scan.csv").write_text(scan("fitness"))
    sequences = random_fasta(60).splitlines()[1::2]
    labelled = "".join(f"{one},{place % 9}\n" for place, one in enumerate(sequences))
    (folder / "labelled.csv").write_text(f"sequence,stability\n{labelled}")
    classes = "".join(f"{one},{'HEC' * 13}H\n" for one in sequences)
    (folder / "ss.csv").write_text(f"sequence,ss\n{classes}")
    (folder / "2N2U.pdb").write_text(protein(WILD_TYPE))
    save_weights(folder / "weights.safetensors", esm1b(max_positions=1026))
    for name in ("W", "seed.npz", "esm1b_t33_650M_UR50S.pt"):  # the content says what a file is
        shutil.copy(folder / "weights.safetensors", folder / name)


def write_models(folder: Path) -> None:
    """The released models of fair-esm's names, as the cache has them after their download."""
    folder.mkdir(parents=True)
    save_weights(folder / "esm2_t6_8M_UR50D.safetensors", esm2(num_layers=6))
    for name in ("esm1b_t33_650M_UR50S", *(f"esm1v_t33_650M_UR90S_{n}" for n in range(1, 6))):
        save_weights(folder / f"{name}.safetensors", esm1b(max_positions=1026))


def tiny(config: ESM1Config) -> ESM1Config:
    """The architecture of a preset in a size that takes milliseconds a step."""
    fields = {name: getattr(config, name) for name in config.__dataclass_fields__}
    fields |= {"num_layers": 1, "embed_dim": 32, "ffn_dim": 64, "num_heads": 2}
    return ESM1Config(**fields)


@pytest.fixture
def reader(tmp_path, monkeypatch):
    """A reader's folder, a cache with what was downloaded before, and a Hub that is here."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, config in PRESETS.items():
        monkeypatch.setitem(train.PRESETS, name, tiny(config))
    write_files(place)
    write_models(tmp_path / "cache" / "models")
    with running_hub(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name, layers in (("esm2_t6_8M_UR50D", 6), ("esm2_t12_35M_UR50D", 12)):
            folder = hub.publish(f"facebook/{name}")
            write_hugging_face(folder, esm2(num_layers=layers, max_positions=1026))
        yield place


def run(name: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(COMMANDS[name], arguments, prog_name=f"mlx-esm {name}")
    assert result.exit_code == 0, result.output


def run_of(place: Path, name: str) -> None:
    """The folder of a run that a page goes on with and another page, or another day, began."""
    if not (place / "runs" / name).exists():
        data = ["--data", "family.fasta", "--weights-dir", f"runs/{name}"]
        run("train", [*data, *SHORTER["train"]])


def adapter_of(place: Path, name: str) -> None:
    if not (place / "runs" / name).exists():
        base = ["--weights-file", "W", "--data", "family.fasta", "--lora-rank", "2"]
        run("train", [*base, *SHORTER["train"], "--weights-dir", f"runs/{name}"])


# Taken apart


def test_there_are_commands_to_test():
    assert len(OURS) >= 50
    assert {one.page for one in OURS} >= {"README.md", "docs/variants.md", "docs/install.md"}
    assert {one.name for one in OURS} >= set(COMMANDS) - {"unmask"}


@pytest.mark.parametrize("command", OURS, ids=named)
def test_click_takes_it(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)
    for name in ("swissprot-1", "mine", "x-1", "sample-1", "family-1"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.toml").write_text("[training]\nseed = 1\n")
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "head.json").write_text("{}")
    arguments = [one for one in command.arguments if one != "..."]
    COMMANDS[command.name].make_context(command.name, arguments)


def files_of(command: Command) -> tuple[set[str], set[str]]:
    """The names of files that it reads, and of those that it writes."""
    written = {"-o", "--output", "--dms-output", "--json", "--picture"}
    words = ["", *command.arguments]
    named = {word for word in words if re.fullmatch(r"[\w-]+(\.[a-z]+)+", word)}
    writes = {word for before, word in pairwise(words) if before in written}
    if command.name == "convert":
        writes.add(words[-1])
    return named - writes, writes


@pytest.mark.parametrize("page", sorted({one.page for one in OURS}))
def test_a_file_that_is_read_is_a_readers_or_was_written_before(page, tmp_path):
    write_files(tmp_path)
    there = {path.name for path in tmp_path.iterdir()}
    for command in (one for one in OURS if one.page == page):
        reads, writes = files_of(command)
        assert reads <= there, command.text
        there |= writes


@pytest.mark.parametrize("command", OTHERS, ids=named)
def test_another_program_is_one_that_there_is(command):
    program, *arguments = command.words
    if program == "python":
        script = ROOT / arguments[0]
        assert script.is_file(), command.text
        benchmark = importlib.import_module(script.stem).main
        known = {opt for one in benchmark.params for opt in one.opts}
    elif program == "pip":
        assert arguments[:2] == ["install", "-e"]
        known = {"-e"}
        extras = re.fullmatch(r"\.(?:\[([a-z0-9,]+)\])?", arguments[2])
        assert extras, command.text
        text = (ROOT / "pyproject.toml").read_text("utf-8")
        for extra in filter(None, (extras[1] or "").split(",")):
            assert re.search(rf"^{extra} = \[", text, flags=re.MULTILINE), extra
    else:
        known = {
            "pytest": {"-m", "-n", "--dist"},
            "pre-commit": set(),
            "mkdocs": {"--strict", "-d"},
        }.get(program)
        assert known is not None or (ROOT / program).is_file(), command.text
    flags = [one for one in arguments if one.startswith("-")]
    assert set(flags) <= set(known or ()), command.text
    for one in arguments:
        if one.startswith("tests/"):
            assert (ROOT / one).exists(), one


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_prose_have_options_that_there_are(page):
    for name, *words in inline_commands(page):
        if name == "--help":
            continue
        assert name in COMMANDS, f"{page}: mlx-esm {name}"
        known = {opt for one in COMMANDS[name].params for opt in one.opts} | {"--help"}
        flags = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert flags <= known, f"{page}: mlx-esm {name} {' '.join(words)}"


# Run


def is_left_out(command: Command) -> bool:
    return any(part in command.text for part in NOT_RUN)


def test_what_is_left_out_is_in_the_book():
    for part in NOT_RUN:
        assert any(part in one.text for one in OURS), part


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({one.page for one in OURS}))
def test_the_commands_of_a_page_run(page, reader):
    run_of(reader, "swissprot-1")
    for command in (one for one in OURS if one.page == page and not is_left_out(one)):
        text = command.text
        if "runs/family-1" in text:
            adapter_of(reader, "family-1")
        for name in ("x-1", "sample-1", "mine"):
            if f"runs/{name}" in text and f"--weights-dir runs/{name}" not in text:
                run_of(reader, name)
        arguments = [one for one in command.arguments if one != "..."]
        shorter = [] if "--resume" in arguments else SHORTER.get(command.name, [])
        run(command.name, [*arguments, *shorter])


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_of_a_page_runs(page, reader):
    source = ["--weights-file", "facebook/esm2_t6_8M_UR50D", "proteins.fasta"]
    run("embed", [*source, "-o", "proteins.safetensors"])
    for body in blocks(page, "python"):
        if "metal_emulator" not in body:  # an outline; tests/metal has what it is of
            exec(compile(body, page, "exec"), {})


def test_click_is_what_refuses():
    with pytest.raises(click.ClickException, match="No such option"):
        COMMANDS["train"].make_context("train", ["--nmu-iters", "5"])
