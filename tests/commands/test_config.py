"""`train --config`: recipes, what a run keeps of them, and what is said of wrong ones."""

import json
import re
import shutil
from pathlib import Path

import mlx.core as mx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlx_esm_kernels.commands import train
from mlx_esm_kernels.commands.run_config import _settings_by_key
from mlx_esm_kernels.commands.train_config import _COMMAND_LINE_ONLY, _options, training_values
from mlx_esm_kernels.models.config import OBJECTIVES, PRESETS, ESM1Config
from mlx_esm_kernels.models.dtypes import DTYPES
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.training.config_file import read_config, recipe_names, write_config
from mlx_esm_kernels.training.settings import OPTIMIZERS, SCHEDULES, Settings
from mlx_esm_kernels.weights import load_model, save_weights

TINY = ESM1Config(num_layers=1, embed_dim=32, ffn_dim=64, num_heads=2, max_positions=64)
SIZES = "num_layers = 1\nembed_dim = 32\nffn_dim = 64\nnum_heads = 2\nmax_positions = 64\n"
DATA = '[data]\ndata = ["proteins.fasta"]\n'
QUICK = "[training]\nnum_iters = 6\ntokens_per_batch = 128\n"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder with proteins.fasta in it, and the tiniest preset."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "small", TINY)
    rows = ["MKTAYIAKQRQISFVKSHFSR"[i % 7 :] + "ACDEFGHIKLMNPQRSTVWY"[i:] for i in range(19)]
    (tmp_path / "proteins.fasta").write_text("".join(f">p{r}\n{r}\n" for r in rows))
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(train.command, [str(argument) for argument in arguments])


def trained(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def write(name, *parts):
    Path(name).write_text("".join(parts), "utf-8")
    return name


def said(result):
    """The sentence, without the box of lines that click may break it into."""
    return " ".join(result.output.split("Error: ")[-1].split())


def rows_of(run):
    """All but the times."""
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    times = {"residues_per_second", "waiting"}
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def same_end(a, b):
    assert rows_of(a) == rows_of(b)
    one, other = (mx.load(f"{run}/weights.safetensors") for run in (a, b))
    assert all(mx.array_equal(one[name], other[name]) for name in one)


# A recipe, and what a run keeps of it


def test_a_recipe_says_what_the_command_line_leaves_unsaid():
    write("r.toml", f"[model]\n{SIZES}", DATA, QUICK, "learning_rate = 1\nbetas = [0.5, 0.25]\n")
    trained("--config", "r.toml", "--learning-rate", 0.01, "--weights-dir", "run")
    tables = read_config("run/config.toml").tables
    assert tables["training"]["betas"] == [0.5, 0.25]
    assert tables["training"]["learning_rate"] == 0.01
    assert rows_of("run")[-1]["step"] == 6
    assert load_model("run/weights.safetensors").config == TINY


EVERY_SETTING = (
    *("--schedule", "cosine", "--betas", 0.9, 0.95, "--weight-decay", 0.1, "--clip-norm", 0.5),
    *("--precision", "bfloat16", "--grad-accumulation", 2, "--grad-checkpointing"),
    *("--max-length", 20, "--valid-every", 4, "--seed", 7, "--warmup", 3, "--as-protein"),
    *("--optimizer", "muon", "--learning-rate", 0.0123456789, "--checkpoint-every", 3, "--keep", 5),
)


@pytest.mark.parametrize("settings", [(), EVERY_SETTING], ids=["defaults", "every setting"])
def test_a_run_s_config_repeats_it_bit_for_bit(monkeypatch, workplace, settings):
    run = ("--data", "proteins.fasta", "--num-iters", 9, "--tokens-per-batch", 128)
    trained(*run, *settings, "--weights-dir", "first")
    (workplace / "elsewhere").mkdir()
    monkeypatch.chdir(workplace / "elsewhere")
    monkeypatch.delitem(PRESETS, "small")  # another version of the package has another one
    trained("--config", "../first/config.toml", "--weights-dir", "second")
    same_end("../first", "second")
    assert read_config("../first/config.toml").tables == read_config("second/config.toml").tables


def test_a_setting_that_a_config_left_out_would_be_noticed(workplace):
    run = ("--data", "proteins.fasta", "--num-iters", 9, "--tokens-per-batch", 128)
    plain = invoke(*run, "--weights-dir", "plain")
    assert plain.exit_code == 0
    trained(*run, "--clip-norm", 0.01, "--weights-dir", "clipped")
    assert rows_of("plain") != rows_of("clipped")


def test_every_option_but_those_of_the_command_line_is_in_a_run_s_config():
    trained("--config", write("r.toml", DATA, QUICK), "--weights-dir", "run")
    written = [key for table in read_config("run/config.toml").tables.values() for key in table]
    # Which there are only where they are given.
    optional = {"preset", "weights_file", "max_minutes", "valid_every", "hugging_face"}
    with train.command.make_context("train", []) as ctx:
        keys = {key for key, _ in _options(ctx) if not key.startswith("lora_")}
    assert keys - optional <= set(written)
    assert not _COMMAND_LINE_ONLY & set(written)


def test_a_run_of_the_esm_1_architecture_is_repeated():
    sizes = SIZES + 'alphabet = "esm1"\nsinusoidal_positions = true\nbias_kv = true\n'
    trained("--config", write("r.toml", f"[model]\n{sizes}", DATA, QUICK), "--weights-dir", "a")
    trained("--config", "a/config.toml", "--weights-dir", "b")
    same_end("a", "b")
    assert not load_model("b/weights.safetensors").config.append_eos


def test_a_run_from_weights_is_repeated_and_leaves_them_as_they_are(workplace):
    save_weights("given.safetensors", ESM1(TINY))
    before = (workplace / "given.safetensors").read_bytes()
    recipe = write("r.toml", DATA, QUICK)
    trained("--config", recipe, "--weights-file", "given.safetensors", "--weights-dir", "a")
    trained("--config", "a/config.toml", "--weights-dir", "b")
    same_end("a", "b")
    assert (workplace / "given.safetensors").read_bytes() == before


def test_the_weights_of_a_run_that_a_recipe_names_are_only_read(workplace):
    """On the command line --weights-file goes on in their folder, which a repetition must not."""
    trained("--config", write("r.toml", DATA, QUICK), "--weights-dir", "first")
    before = (workplace / "first" / "weights.safetensors").read_bytes()
    weights = '[model]\nweights_file = "first/weights.safetensors"\n'
    trained("--config", write("more.toml", weights, DATA, QUICK))
    assert (workplace / "first" / "weights.safetensors").read_bytes() == before
    assert rows_of("runs/proteins-1")[0]["valid_loss"] == rows_of("first")[-1]["valid_loss"]


def test_the_config_of_the_run_before_is_kept_where_weights_go_on_in_their_folder(workplace):
    trained("--config", write("r.toml", DATA, QUICK), "--weights-dir", "run")
    before = (workplace / "run" / "config.toml").read_text()
    weights = "run/weights.safetensors"
    trained("--config", "r.toml", "--weights-file", weights, "--seed", 5)
    assert (workplace / "run" / "config-before-1.toml").read_text() == before
    now = (workplace / "run" / "config.toml").read_text()
    assert "seed = 5" in now
    assert re.search("weights_file = .* # as it was then: this run has trained it on", now)
    again = trained("--config", "run/config.toml")
    assert "run/config.toml itself: this one begins with what it is now" in again.output
    assert rows_of("runs/proteins-1")[0]["valid_loss"] == rows_of("run")[-1]["valid_loss"]


def test_it_is_as_it_was_after_resume_which_reports_and_saves_as_before(workplace):
    recipe = write("r.toml", DATA, QUICK, "checkpoint_every = 2\nkeep = 9\n")
    trained("--config", recipe, "--weights-dir", "run")
    before = (workplace / "run" / "config.toml").read_text()
    shutil.copytree("run", "killed")
    for step in (4, 6):
        shutil.rmtree(f"killed/checkpoints/step-{step:09d}")
    trained("--resume", "killed")
    same_end("run", "killed")
    assert (workplace / "killed" / "config.toml").read_text() == before
    assert (workplace / "killed" / "checkpoints" / "step-000000004").is_dir()
    trained("--resume", "killed", "--keep", 1)  # said here, it wins


def test_resume_does_not_pass_over_a_config_that_was_changed(workplace):
    recipe = write("r.toml", DATA, QUICK, "checkpoint_every = 2\n")
    trained("--config", recipe, "--weights-dir", "run")
    config = workplace / "run" / "config.toml"
    config.write_text(config.read_text().replace("seed = 42", "seed = 43"))
    result = invoke("--resume", "run")
    assert result.exit_code == 2
    assert "run/config.toml, [training] seed: expected 42, with which the run was beg" in said(
        result
    )
    config.unlink()
    trained("--resume", "run")


def test_data_of_the_command_line_take_the_place_of_those_of_a_recipe(monkeypatch):
    asked = []
    monkeypatch.setattr(
        train, "_load", lambda names, partitions, *rest: asked.append((names, partitions)) or 1 / 0
    )
    write("both.toml", '[data]\ndata = "swissprot"\ndataset_partitions = [1, 2]\n')
    write("partitions.toml", "[data]\ndataset_partitions = [1]\n")
    for arguments in (
        ("--config", "both.toml"),
        ("--config", "both.toml", "--data", "a", "b"),
        ("--config", "both.toml", "--dataset-partitions", "5"),
        ("--config", "partitions.toml"),
        ("--dataset-partitions", "3", "--data", "a"),
        ("--dataset-partitions", "3"),
    ):
        assert "ZeroDivisionError" in invoke(*arguments).output
    assert [(list(names), list(partitions)) for names, partitions in asked] == [
        (["swissprot"], [1, 2]),
        (["a", "b"], []),
        ([], [5]),
        ([], [1]),
        (["a"], [3]),
        ([], [3]),
    ]


# The recipes of the package


def test_the_default_run_is_the_first_recipe(workplace):
    trained("--data", "proteins.fasta", "--num-iters", 3, "--tokens-per-batch", 128)
    trained("--config", "first-minute", "--data", "proteins.fasta", "--num-iters", 3,
            "--tokens-per-batch", 128, "--learning-rate", 0.2 / 32, "--warmup", 0)  # fmt: skip
    same_end("runs/proteins-1", "runs/proteins-2")


def test_the_library_s_defaults_are_those_of_the_first_recipe():
    said = dict(read_config("first-minute").tables["training"])
    settings = Settings(num_iters=1, learning_rate=1.0, warmup=0)
    names = {"accumulation": "grad_accumulation", "checkpointing": "grad_checkpointing"}
    own = {names.get(name, name): value for name, value in vars(settings).items()}
    shared = set(own) & set(said) - {"num_iters", "learning_rate", "warmup"}
    assert {"clip_norm", "betas", "schedule", "seed", "weight_decay"} <= shared
    for key in shared:
        assert list(own[key]) == said[key] if key == "betas" else own[key] == said[key]


@pytest.mark.parametrize(
    ("arguments", "rate", "iters", "warmup"),
    [
        ((), 0.2 / 32, 1000, 100),
        (("--preset", "esm2_t6_8M"), 0.2 / 320, 1000, 100),
        (("--preset", "medium"), 0.1 / 320, 1000, 100),  # which learns mixed
        (("--preset", "medium", "--objective", "mlm"), 0.2 / 320, 1000, 100),
        (("--num-iters", 20), 0.2 / 32, 20, 2),
        (("--objective", "mlm"), 0.2 / 32, 1000, 100),
        (("--objective", "mixed"), 0.1 / 32, 1000, 100),
        (("--objective", "diffusion", "--preset", "medium"), 0.1 / 320, 1000, 100),
        (("--objective", "mixed", "--lora-rank", 8), 0.0005, 1000, 100),
        (("--max-minutes", 5), 0.2 / 32, None, 100),
        (("--max-minutes", 5, "--num-iters", 30), 0.2 / 32, 30, 3),
        (("--learning-rate", 0.1, "--warmup", 7, "--num-iters", 9), 0.1, 9, 7),
    ],
)
def test_defaults_that_depend_on_others(arguments, rate, iters, warmup):
    with train.command.make_context("train", [str(a) for a in arguments]) as ctx:
        settings = train._settings(ctx, ctx.params, PRESETS[ctx.params["preset"]])
    assert settings.learning_rate == rate
    assert (settings.num_iters, settings.warmup) == (iters, warmup)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_one_and_gives_the_reason_of_each_number(name):
    with train.command.make_context("train", ["--config", name]) as ctx:
        config = ctx.params["config"]
        train._settings(ctx, ctx.params, TINY)
    model = config.model_config() if config.sizes else PRESETS[ctx.params["preset"]]
    assert model.num_layers > 0
    text = (Path(train.__file__).parents[1] / "recipes" / f"{name}.toml").read_text("utf-8")
    plain = r"(dataset_partitions|as_protein|seed) = "
    for number, line in enumerate(text.splitlines(), 1):
        if " = " in line and not line.startswith("#") and not re.match(plain, line):
            assert "#" in line, f"line {number} has no reason: {line}"


def test_a_file_of_windows_is_read(workplace):
    text = (f"[model]\n{SIZES}" + DATA + QUICK).replace("\n", "\r\n")
    (workplace / "r.toml").write_bytes(b"\xef\xbb\xbf" + text.encode())
    trained("--config", "r.toml", "--weights-dir", "run")
    assert rows_of("run")[-1]["step"] == 6


def test_odd_texts_and_numbers_come_back_as_they_were(tmp_path):
    tables = {"data": {"data": ['a"b\\', "é\n#", "[x]"]}, "training": {"a": 0.1 + 0.2, "b": 1e-30}}
    write_config(tmp_path / "c.toml", tables, {"a": "odd"}, "head\nof two lines")
    assert read_config(str(tmp_path / "c.toml")).tables == tables


# What is given comes back, whatever it is

FRACTIONS = st.floats(0, 1, exclude_max=True)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
GIVEN = {
    "--num-iters": st.integers(1, 10**9),
    "--max-minutes": POSITIVE,
    "--tokens-per-batch": st.integers(32, 10**6),
    "--learning-rate": POSITIVE,
    "--warmup": st.integers(0, 10**6),
    "--schedule": st.sampled_from(SCHEDULES),
    "--optimizer": st.sampled_from(OPTIMIZERS),
    "--betas": st.tuples(FRACTIONS, FRACTIONS),
    "--weight-decay": POSITIVE,
    "--clip-norm": POSITIVE,
    "--precision": st.sampled_from(list(DTYPES)),
    "--objective": st.sampled_from(OBJECTIVES),
    "--grad-accumulation": st.integers(1, 100),
    "--valid-every": st.integers(1, 10**6),
    "--seed": st.integers(0, 2**62),
    "--checkpoint-every": st.sampled_from(["1", "500", "90s", "15m", "3h", "61m", "never"]),
    "--keep": st.integers(1, 9),
    "--report-to": st.sampled_from(["wandb", "tensorboard", "none"]),
    "--hugging-face": st.sampled_from(["out", "none", "/of ours/ü"]),
}


def arguments_of(given):
    for name, value in given.items():
        yield name
        yield from map(str, value if isinstance(value, tuple) else [value])


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional=GIVEN), st.booleans())
def test_what_is_written_of_any_options_is_read_as_the_same(tmp_path_factory, given, checkpointing):
    flag = "--grad-checkpointing" if checkpointing else "--no-grad-checkpointing"
    path = tmp_path_factory.mktemp("law") / "c.toml"
    with train.command.make_context("train", [*arguments_of(given), flag]) as ctx:
        settings = train._settings(ctx, ctx.params, TINY)
        written = training_values(ctx, _settings_by_key(settings))
        write_config(path, {"training": written}, {}, "")
        expected = dict(ctx.params)
    with train.command.make_context("train", ["--config", str(path)]) as ctx:
        assert train._settings(ctx, ctx.params, PRESETS["medium"]) == settings
        for name in ("tokens_per_batch", "every", "keep", "report_to", "hugging_face"):
            assert ctx.params[name] == expected[name]
