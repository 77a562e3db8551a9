"""A TOML file that `train --config` cannot mean is a sentence: file, table, key, what came."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.models.config import PRESETS, ESM1Config
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.weights import save_weights

TINY = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
MODEL = "[model]\nnum_layers = 1\nembed_dim = 32\nffn_dim = 64\nnum_heads = 2\nmax_positions = 64\n"
DATA = '[data]\ndata = ["proteins.fasta"]\n'


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "small", TINY)
    (tmp_path / "proteins.fasta").write_text(">a\nMKTAYIAKQR\n>b\nMKQRQISFVK\n")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def write(name, *parts):
    Path(name).write_text("".join(parts), "utf-8")
    return name


def said(result):
    """The sentence, however many lines it stands on."""
    return " ".join(result.output.split("Error: ")[-1].split())


WRONG = [
    ("seed = \n", "r.toml: expected TOML; invalid value (at line 1, column 8)."),
    ("[training]\n[training]\n", "r.toml: expected TOML; cannot declare ('training',) twice"),
    ("[trainning]\nseed = 1\n", "there is no such table; did you mean training?"),
    ("[other]\n", "r.toml, [other]: expected the tables [model], [data], [training]; there is no"),
    ("seed = 1\n", "r.toml, seed: expected it in the table [training]; it stands in none."),
    ("model = 3\n", "r.toml, model: expected keys in the tables [model], [data], [training];"),
    ("[training]\nlearnin_rate = 1\n", "r.toml, [training] learnin_rate: there is no such key; did "
     "you mean learning_rate?"),
    ("[training]\nnum-iters = 1\n", "there is no such key; did you mean num_iters?"),
    ("[training]\nzzz = 1\n", "r.toml, [training] zzz: there is no such key."),
    ("[data]\nseed = 1\n", "r.toml, [data] seed: expected it in the table [training]."),
    ("[training]\nweights_dir = 'x'\n", "this belongs on the command line: --weights-dir."),
    ("[training]\nnum_iters = 'ten'\n", 'r.toml, [training] num_iters: expected a whole number of '
     'at least 1; got "ten".'),
    ("[training]\nnum_iters = 1.5\n", "num_iters: expected a whole number of at least 1; got 1.5."),
    ("[training]\nnum_iters = true\n", "expected a whole number of at least 1; got true."),
    ("[training]\nnum_iters = 0\n", "num_iters: expected a whole number of at least 1; got 0."),
    ("[training]\nnum_iters = [5]\n", "num_iters: expected a whole number of at least 1; got [5]."),
    ("[training]\nlearning_rate = inf\n", "rate: expected a number above 0; got Infinity."),
    ("[training]\nweight_decay = nan\n", "weight_decay: expected a number of at least 0; got NaN."),
    ("[training]\nweight_decay = 1979-05-27\n", 'of at least 0; got "1979-05-27".'),
    ("[training]\nbetas = [0.9]\n", "expected 2 numbers of at least 0 and below 1; got [0.9]."),
    ("[training]\nbetas = 0.9\n", "betas: expected 2 numbers of at least 0 and below 1; got 0.9."),
    ("[training]\nbetas = [0.9, 1.0]\n", "at least 0 and below 1; got [0.9, 1.0]."),
    ("[training]\nschedule = 'steep'\n", 'schedule: expected one of "linear", "cosine", "const'),
    ("[training]\ngrad_checkpointing = 1\n", "grad_checkpointing: expected true or false; got 1."),
    ("[training]\ncheckpoint_every = 'often'\n", '15m or 2h, or never; got "often".'),
    ("[training]\ncheckpoint_every = 0\n", 'such as 500, a time such as 90s, 15m or 2h, or never'),
    ("[data]\ndata = [1]\n", "r.toml, [data] data: expected a list of texts; got [1]."),
    ("[data]\ndataset_partitions = ['1']\n", "a list of partition numbers such as [1, 2, 3]; got"),
    ("[data]\ndata = []\n", "r.toml, [data]: expected files in data or numbers in dataset_part"),
    ("[model]\npreset = 'huge'\n", 'r.toml, [model] preset: expected one of "small", '),
    ("[model]\nnum_layers = 4\n", "r.toml, [model] embed_dim: expected a whole number beside num_"
     "layers; it is missing."),
    (MODEL + "alphabet = 'dna'\n", 'alphabet: expected "esm1b" or "esm1"; got "dna".'),
    (MODEL.replace("heads = 2", "heads = 5"), "r.toml, [model] embed_dim must be a multiple of num_"
     "heads; got embed_dim 32 and num_heads 5."),
    (MODEL.replace("layers = 1", "layers = '1'"), "[model] num_layers must be an integer at least "
     "1; got '1'."),
    (MODEL.replace("layers = 1", "layers = -1"), "num_layers must be at least 1; got -1."),
    (MODEL + "token_dropout = 1\n", "token_dropout must be True or False; got 1."),
    (MODEL + "vocab_size = 33\n", "r.toml, [model] vocab_size: there is no such key."),
    (MODEL + "preset = 'small'\n", "r.toml, [model] preset: expected it alone, as it is the size "
     'of a new model; got "small" and num_layers.'),
    ("[model]\npreset = 'small'\nweights_file = 'w'\n", 'got "small" and weights_file.'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_with_a_file_is_a_sentence(workplace, text, sentence):
    result = invoke("--config", write("r.toml", text))
    assert result.exit_code == 2, result.output
    assert sentence in said(result)
    assert "Traceback" not in result.output
    assert not (workplace / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--config", "my-own"), "and the recipes of this package are first-minute, "),
        (("--config", "first-minut"), "did you mean first-minute?"),
        (("--config", "folder"), "folder is a folder, not a TOML file."),
        (("--config", "binary.toml"), "binary.toml: expected text in UTF-8; byte 0 is none."),
        (("--config", "sizes.toml", "--preset", "medium"), "--preset medium is the size of a new "
         "model, but sizes.toml, [model] has num_layers, embed_dim, ffn_dim ...: leave one"),
        (("--config", "sizes.toml", "--resume", "run"), "leave out --config."),
        (("--config", "other.toml", "--weights-file", "w.safetensors"), "other.toml, [model] num_"
         "layers: expected 1, as the weights of w.safetensors have; got 2."),
        (("--config", "folder", "--seed", "x"), "folder is a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_beside_a_file_is_a_sentence(workplace, arguments, sentence):
    (workplace / "folder").mkdir()
    (workplace / "binary.toml").write_bytes(b"\xff\xfe\x00")
    write("sizes.toml", MODEL, DATA)
    write("other.toml", MODEL.replace("layers = 1", "layers = 2"), DATA)
    save_weights("w.safetensors", ESM1(TINY))
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert sentence in said(result)
    assert not (workplace / "runs").exists()


def test_a_folder_of_a_run_says_which_file_may_be_meant(workplace):
    (workplace / "run").mkdir()
    write("run/config.toml", DATA)
    assert "did you mean run/config.toml?" in said(invoke("--config", "run"))
