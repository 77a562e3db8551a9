"""What is asked wrongly, or with the wrong file, ends in a sentence and the right exit code.

2: the command line is wrong, whatever is in the files. 1: all else.
"""

import os
import shlex
from pathlib import Path

import mlx.core as mx
import pytest
from click.testing import CliRunner
from pdb_files import protein
from random_models import esm1b

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.commands import cli

W = "--weights-file w.safetensors"
NO_COMMAND_LINE = [
    ("trian", "No such command 'trian'. Did you mean 'train'?"),
    ("train extra", "unexpected extra argument (extra)"),
    ("train --nmu-iters 5", "No such option '--nmu-iters'."),
    ("train --preset esm2_t6_8m", "Did you mean 'esm2_t6_8M'?"),
    ("train --num-iters -5", "-5 is not in the range x>=1."),
    ("train --num-iters many", "'many' is not a valid integer"),
    ("train --max-minutes nan", "expected a finite number; got nan."),
    ("train --betas 0.9", "'--betas' requires 2 arguments."),
    ("train --checkpoint-every often", "a time such as 90s, 15m or 2h, or never; got 'often'."),
    ("train --dataset-partitions 300", "expected partitions 1 to 200; got 300."),
    ("train --config unknown.toml", "[training] seeed: there is no such key; did you mean seed?"),
    ("train --config not.toml", "not.toml: expected TOML"),
    ("train --config nowhere.toml", "nowhere.toml: there is no such file (looked for in"),
    ("train --resume folder --seed 1", "settings of the run: leave out --seed."),
    ("train --weights-dir p.fasta", "Directory 'p.fasta' is a file."),
    ("train --lora-rank 4", "give --weights-file, too."),
    (f"train --data p.fasta --preset medium {W}", "leave one of them out."),
    ("train --report-to none wandb", "expected none alone; got none wandb."),
    ("train --device tpu", "'tpu' is not one of 'cpu', 'gpu'."),
    ("train --device gpu", "MLX has no GPU on this machine; leave it out, or say cpu."),
    ('train --data ""', "A value of --data is empty"),
    (f"embed {W} p.fasta", "Missing option '-o' / '--output'."),
    (f"embed {W} -o o.npz", "Missing argument 'FASTA...'."),
    ("embed --weights-file= p.fasta -o o.npz", "A value of --weights-file is empty"),
    (f"embed {W} --include boss p.fasta -o o.npz", "Did you mean 'bos'?"),
    ('view "" -o o.html', "A value of the command is empty"),
    (f"score {W} --dms-output o.csv --all-single", "either --sequence or --fasta."),
    (f"score {W} --sequence MKT --dms-output o.csv", "Give either --dms-input or --all-single."),
    (f"score {W} --dms-output o.csv --offset-idx x", "'x' is not a valid integer."),
    (
        f"score {W} --sequence MKT --dms-input m.csv --dms-output o.csv --html o.html",
        "--html shows every substitution: it needs --all-single.",
    ),
    (f"fit {W} --data l.csv --target-col y -o o", "Choose from regression, classification."),
    (f"generate {W} --length 100", "the position table of this model ends at 38."),
    (f"generate {W} --temperature nan", "expected a finite number; got nan."),
    (f"unmask {W} --seq MKT", "there is no mask to fill; write one as *, _ or <mask>."),
    (f"view p.pdb -o o.html --contacts c.npz {W}", "Give either --contacts or --weights-file."),
    ("judge p.fasta", "Missing option '--against'."),
    ("judge --against p.fasta", "Missing argument 'FASTA...'."),
    ("judge long.fasta --against p.fasta --sample 0", "0 is not in the range x>=1."),
    ("judge long.fasta --against p.fasta --adapter folder", "--adapter is of a model: give"),
    ("view p.pdb -o o.html --chain Q", "--chain is of contacts: give --contacts or"),
    ("doctor --json folder", "File 'folder' is a directory."),
    ("completion tcsh", "'tcsh' is not one of 'bash', 'zsh', 'fish'."),
    ("completion", "Missing argument 'SHELL'. Choose from bash, zsh, fish."),
]
IT_WENT_WRONG = [
    ("train --resume folder", "folder/checkpoints has no checkpoint to go on from."),
    ("train --resume p.fasta", "p.fasta is no folder of a run."),
    ("train --data nowhere.fasta", "nowhere.fasta does not exist (looked for in"),
    ("train --data swisprot", "There is no FASTA file swisprot. Did you mean swissprot?"),
    ("train --data empty.fasta", "empty.fasta is empty; expected FASTA"),
    ("train --data folder", "folder is a folder; name the FASTA files in it"),
    ("train --data dna.fasta", "looks like nucleotides, not proteins"),
    ("train --data p.fasta --weights-file nobody/has-it", "HF_HUB_OFFLINE is set"),
    (f"embed {W} headers.fasta -o o.npz", "has records, but not one residue"),
    (f"embed {W} digits.fasta -o o.npz", "expected residues; got digits among them"),
    (f"embed {W} long.fasta -o o.npz", "the position table of this model ends at 38"),
    (f"embed {W} w.safetensors -o o.npz", "w.safetensors is not FASTA"),
    (f"embed {W} p.fasta -o nowhere/o.npz", "there is no folder nowhere."),
    (f"embed {W} p.fasta -o o.txt", "must end in one of .safetensors, .npz, .h5."),
    (f"embed {W} p.fasta -o w.safetensors --overwrite", "w.safetensors is the input too"),
    (f"embed {W} --layers 9 p.fasta -o o.npz", "layers must be from -3 to 2"),
    (f"embed {W} --adapter folder p.fasta -o o.npz", "folder is no adapter"),
    ("embed --weights-file p.fasta p.fasta -o o.npz", "it is FASTA. Proteins go to"),
    ("embed --weights-file damaged.safetensors p.fasta -o o.npz", "is cut short: it has"),
    ("embed --weights-file noise.safetensors p.fasta -o o.npz", "or a damaged one."),
    ("embed --weights-file noise.npz p.fasta -o o.npz", "is no .npz file, or a damaged one."),
    ("embed --weights-file folder p.fasta -o o.npz", "folder is a folder without config.json"),
    ("embed --weights-file esm2_t6_8M_UR50 p.fasta -o o.npz", "model esm2_t6_8M_UR50D?"),
    ("embed --weights-file locked p.fasta -o o.npz", "locked cannot be read: Permission denied."),
    (f"embed {W} locked -o o.npz", "locked cannot be read: Permission denied."),
    (f"contacts {W} p.fasta -o o.txt", "must be a folder, or a file that ends in .npz."),
    ("contacts --weights-file headless.safetensors p.fasta -o o.npz", "no contact regression"),
    (f"score {W} --sequence MK1 --all-single --dms-output o.csv", "has '1' at position 3"),
    (f"score {W} --sequence MKT --dms-input m.csv --dms-output m.csv", "is the input too"),
    (f"score {W} --sequence MKT --dms-input wrong.csv --dms-output o.csv", "has M there."),
    (f"score {W} --fasta p.fasta --all-single --dms-output o.csv", "expected one, the wild type."),
    (
        f"score {W} --fasta wt.html --all-single --dms-output o.csv --html wt.html",
        "wt.html is the input too; give the output another name.",
    ),
    (f"score {W} --sequence MKT --all-single --dms-output o.csv --html -", "- must end in .html."),
    (
        f"score {W} --sequence MKT --all-single --dms-output o.csv --html nowhere/o.html",
        "there is no folder nowhere.",
    ),
    (f"evaluate {W} p.fasta --json w.safetensors", "w.safetensors is the input too"),
    (f"evaluate {W} p.fasta --json o.png --picture o.png", "is the file of --json too"),
    (f"evaluate {W} sample p.fasta", "leave out either sample or the files."),
    (f"fit {W} --data l.csv --target-col z --task regression -o o", "has no column 'z'; it has"),
    (f"fit {W} --data p.fasta --target-col y --task regression -o o", "p.fasta is FASTA; expected"),
    (f"fit {W} --data l.csv --target-col y --task regression -o full", "give a new folder."),
    ("judge p.fasta --against p.fasta", "p.fasta is given twice; expected generated"),
    ("judge p.fasta --against long.fasta ./long.fasta", "long.fasta is given twice"),
    ("judge - --against -", "standard input is given twice"),
    ("judge empty.fasta --against p.fasta", "empty.fasta is empty; expected FASTA"),
    ("judge long.fasta --against headers.fasta", "has records, but not one residue"),
    ("judge unknown.fasta --against p.fasta", "have none of the 20 amino acids in them."),
    ("judge long.fasta --against p.fasta --json p.fasta", "p.fasta is the input too"),
    ("judge long.fasta --against p.fasta -o o.jpg", "o.jpg must end in .png."),
    ("judge long.fasta --against p.fasta -o o.png --json o.png", "is the file of --json too"),
    ("judge long.fasta --against p.fasta --weights-file p.fasta", "it is FASTA. Proteins go to"),
    ("predict folder p.fasta -o o.csv", "folder is no folder of a head"),
    (f"fuse {W} --adapter folder -o o.npz", "o.npz must end in .safetensors."),
    ("convert w.safetensors o.npz", "o.npz must end in .safetensors."),
    ("convert w.safetensors w.safetensors", "w.safetensors is the input too"),
    (f"generate {W} --length 5 -o w.safetensors", "w.safetensors is the input too"),
    ("view p.fasta -o o.html", "p.fasta has no atoms; expected a structure (PDB or mmCIF)."),
    ("view p.pdb -o o.html --model 9", "p.pdb has 1 model; there is no model 9."),
    ("view p.pdb -o o.html --contacts p.fasta", "is not an .npz of contact maps"),
    ("doctor --json nowhere/o.json", "there is no folder nowhere."),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with weights, proteins and tables, right and wrong ones."""
    folder = tmp_path_factory.mktemp("place")
    save_weights(folder / "w.safetensors", esm1b())
    save_weights(folder / "headless.safetensors", esm1b(contact_head=False))
    whole = (folder / "w.safetensors").read_bytes()
    (folder / "damaged.safetensors").write_bytes(whole[:-100])
    for name in ("noise.safetensors", "noise.npz"):
        (folder / name).write_bytes(b"\xff" * 100)
    for name, text in {
        "p.fasta": ">a\nMKTAYI\n>b\nMKQRQI\n",
        "wt.html": ">a\nMKT\n",
        "p.pdb": protein("MKTAYI"),
        "dna.fasta": f">a\n{'ACGT' * 30}\n>b\n{'ACGTTGCA' * 20}\n",
        "empty.fasta": "",
        "headers.fasta": ">a\n>b\n",
        "digits.fasta": ">a\nMK1TA\n",
        "unknown.fasta": ">a\n" + 4 * "X" + "\n",
        "long.fasta": f">a\n{'MKTAYIAKQR' * 10}\n",
        "unknown.toml": "[training]\nseeed = 1\n",
        "not.toml": "seed: 1\n",
        "l.csv": "sequence,y\nMKTA,1\nMKTC,2\n",
        "m.csv": "mutant,y\nM1P,1\n",
        "wrong.csv": "mutant,y\nA1P,1\n",
        "locked": ">a\nMK\n",
        "full/x": "x",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "folder").mkdir()
    (folder / "locked").chmod(0)
    return folder


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        pytest.param(line, code, sentence, id=line)
        for code, cases in ((2, NO_COMMAND_LINE), (1, IT_WENT_WRONG))
        for line, sentence in cases
    ],
)
def test_it_ends_in_a_sentence(place, monkeypatch, line, code, sentence):
    if "locked" in line and os.access(place / "locked", os.R_OK):
        pytest.skip("who runs this may read everything")
    monkeypatch.chdir(place)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(mx, "is_available", lambda device: device.type == mx.cpu)
    before = contents(place)
    result = CliRunner().invoke(cli.main, shlex.split(line), prog_name="mlx-esm")
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    last = result.stderr.splitlines()[-1]
    assert result.exit_code == code
    assert last.startswith("Error: ")
    assert sentence in last
    assert contents(place) == before


def contents(folder: Path):
    """What stands in the files of a folder, but for those that may not be read."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "locked"]
    return {path: path.read_bytes() for path in files}
