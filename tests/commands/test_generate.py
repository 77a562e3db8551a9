"""generate, unmask and mlx-esm from the outside: FASTA out, sentences for what cannot be."""

import io
import re
import subprocess
import sys
from pathlib import Path

import dnaio
import mlx.core as mx
import pytest
from click.testing import CliRunner

from mlx_esm_kernels.commands import cli, generate, unmask
from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.templates import parse_template
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.weights import save_weights

AMINO_ACIDS = set("ACDEFGHIKLMNPQRSTVWY")


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    mx.random.seed(0)
    path = tmp_path_factory.mktemp("weights") / "esm1.safetensors"
    save_weights(path, ESM1(ESM1Config(1, 16, 32, 2, max_positions=122)))
    return path


def run(command, weights_file, *arguments):
    arguments = ["--weights-file", weights_file, *arguments]
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def records(fasta):
    with dnaio.open(io.BytesIO(fasta.encode()), fileformat="fasta") as reader:
        return [(record.name, record.sequence) for record in reader]


def test_generate_prints_fasta_and_nothing_else_on_standard_output(weights_file):
    result = run(generate.command, weights_file, "--length", 70, "--num-samples", 3)
    assert result.exit_code == 0, result.output
    proteins = records(result.stdout)
    assert [name.split()[0] for name, _ in proteins] == [f"generated_{i}" for i in (1, 2, 3)]
    for name, sequence in proteins:
        assert re.search(r" pseudo_perplexity=\d+\.\d{3} length=70 seed=42 sampler=gibbs ", name)
        assert len(sequence) == 70
        assert set(sequence) <= AMINO_ACIDS
    assert max(map(len, result.stdout.splitlines()[1::3])) == 60
    assert "🌳 hello world: 3 proteins of 70 residues, pseudo-perplexity" in result.stderr
    assert "\r" not in result.stderr
    assert "\x1b" not in result.stderr


def test_the_same_seed_prints_the_same_proteins_and_another_seed_others(weights_file):
    def fasta(*flags):
        return run(generate.command, weights_file, "--length", 30, *flags).stdout

    assert fasta("--seed", 7) == fasta("--seed", 7)
    assert records(fasta("--seed", 7))[0][1] != records(fasta("--seed", 8))[0][1]


@pytest.mark.parametrize(
    "flags",
    [
        ("--order", "confident"),
        ("--order", "random"),
        ("--sampler", "unmask"),
        ("--steps", 4),
        ("--steps", 4, "--schedule", "cosine"),
        ("--rounds", 3),
        ("--seed-sequence", "MKTAYIAKQRMKTAYIAKQR"),
        ("--max-prob-only",),
        ("--temperature", 3),
        ("--top-p", 0.2),
    ],
)
def test_each_sampling_flag_has_an_effect(weights_file, flags):
    length = () if "--seed-sequence" in flags else ("--length", 20)
    plain = run(generate.command, weights_file, "--length", 20)
    flagged = run(generate.command, weights_file, *length, *flags)
    assert flagged.exit_code == 0, flagged.output
    assert records(plain.stdout)[0][1] != records(flagged.stdout)[0][1]


@pytest.mark.parametrize("length", [1, 120])
def test_any_length_within_the_position_table_can_be_had(weights_file, length):
    result = run(generate.command, weights_file, "--length", length)
    assert [len(sequence) for _, sequence in records(result.stdout)] == [length]


def test_output_goes_to_a_file_when_asked(weights_file, tmp_path):
    printed = run(generate.command, weights_file, "--length", 9).stdout
    path = tmp_path / "out.fasta"
    path.write_text("what was there before")
    result = run(generate.command, weights_file, "--length", 9, "-o", path)
    assert result.stdout == ""
    assert path.read_text() == printed
    assert f"saved to {path}" in result.stderr
    assert run(generate.command, weights_file, "--length", 9, "-o", "-").stdout == printed


def test_each_header_says_what_was_asked_and_not_where(weights_file):
    result = run(
        generate.command, weights_file, "--seed-sequence", "MKTAYIAKQR", "--keep", "1-3,10",
        "--sampler", "unmask", "--steps", 2, "--top-p", 0.9, "--num-samples", 2,
    )  # fmt: skip
    for name, sequence in records(result.stdout):
        facts = dict(fact.split("=") for fact in name.split()[1:])
        assert float(facts.pop("pseudo_perplexity")) > 1
        assert facts == {
            "length": "10", "seed": "42", "sampler": "unmask", "order": "random", "steps": "2",
            "schedule": "linear", "temperature": "1", "top_p": "0.9", "longest_run": "5",
            "weights": "esm1.safetensors", "kept": "1-3,10",
        }  # fmt: skip
        assert (sequence[:3], sequence[9]) == ("MKT", "R")
    assert str(weights_file.parent) not in result.output
    assert "Sampler" not in result.stderr


def test_a_header_is_ascii_and_its_facts_have_no_spaces(tmp_path):
    path = tmp_path / "my wëights.safetensors"
    save_weights(path, ESM1(ESM1Config(1, 16, 32, 2, max_positions=22)))
    result = run(generate.command, path, "--length", 5, "-o", tmp_path / "out.fasta")
    assert result.exit_code == 0, result.output
    header = (tmp_path / "out.fasta").read_text(encoding="ascii").splitlines()[0]
    assert header.endswith(" weights=my_w_ights.safetensors")


def test_lengths_of_a_range_or_of_a_file_are_drawn_for_each_protein(weights_file, tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKTAY\n>b\nMKTAYIAK\n>far too long\n" + "M" * 200)
    for length, allowed in (("5-7", {5, 6, 7}), (path, {5, 8})):
        flags = ("--length", length, "--num-samples", 12, "--rounds", 1)
        result = run(generate.command, weights_file, *flags)
        assert {len(sequence) for _, sequence in records(result.stdout)} == allowed
        first = run(generate.command, weights_file, *flags[:2], "--rounds", 1)
        assert records(first.stdout) == records(result.stdout)[:1]


def test_sequences_of_a_file_are_started_from_in_turn(weights_file, tmp_path):
    path = tmp_path / "p.fasta"
    path.write_text(">a\nMKTAY\n>b\nWWWWWWWW\n")
    flags = ("--seed-sequence", path, "--keep", "1-2", "--num-samples", 3)
    proteins = [text for _, text in records(run(generate.command, weights_file, *flags).stdout)]
    assert [(len(text), text[:2]) for text in proteins] == [(5, "MK"), (8, "WW"), (5, "MK")]


def test_the_sampler_that_was_chosen_is_said_and_the_one_that_does_not_suit(weights_file):
    said = run(generate.command, weights_file, "--length", 9).stderr
    assert "🎲 sampler gibbs: 20 rounds in 10 blocks (the model's objective: mlm)" in said
    assert "⚠️" not in said
    said = run(generate.command, weights_file, "--length", 9, "--order", "random").stderr
    assert "🎲 sampler unmask: random order, one mask a step" in said
    assert "⚠️ this model was trained with 15% of the residues masked, and unmask shows" in said


def test_weights_for_any_share_of_masks_are_unmasked(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, ESM1(ESM1Config(1, 16, 32, 2, max_positions=22, objective="diffusion")))
    result = run(generate.command, path, "--length", 9)
    assert "🎲 sampler unmask: random order" in result.stderr
    assert "⚠️" not in result.stderr


@pytest.mark.parametrize("text", ["MK*T<mask>_WX", "mk * t <MASK>\n_wx"])
def test_unmask_fills_the_masks_and_keeps_the_rest(weights_file, text):
    result = run(unmask.command, weights_file, "--seq", text, "--num-samples", 2)
    assert result.exit_code == 0, result.output
    proteins = records(result.stdout)
    assert [name.split()[0] for name, _ in proteins] == ["unmasked_1", "unmasked_2"]
    for _, sequence in proteins:
        assert re.fullmatch("MK[A-Y]T[A-Y]{2}WX", sequence)
        assert set(sequence[:-1]) <= AMINO_ACIDS


def test_a_template_is_residues_and_masks():
    m, k, w = ESM1B.encode("MKW")
    mask = ESM1B.mask_idx
    assert parse_template("m<Mask>K*_w", ESM1B).tolist() == [m, mask, k, mask, mask, w]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the sequence is empty; give residues and masks"),
        (" \n", "the sequence is empty; give residues and masks"),
        ("MKT", "there is no mask to fill; write one as *, _ or <mask>"),
        ("M1*-j", "not a residue: '1' (position 2), '-' (position 4), 'j' (position 5); write"),
        ("<mask>é", "not a residue: 'é' (position 2); write residues as letters"),
        ("<cls>*", "not a residue: '<' (position 1), '>' (position 5)"),
        ("12345678*", "'5' (position 5) and 3 more; write"),
        ("*" * 121, "121 residues are too many: the position table of this model ends at 120"),
    ],
)
def test_a_template_that_cannot_be_filled_has_one_sentence(weights_file, text, sentence):
    result = run(unmask.command, weights_file, "--seq", text)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ("--length", 121),
            "--length: 121 residues are too many: the position table of this model",
        ),
        (("--length", 0), "--length: a protein has at least 1 residue; got 0."),
        (("--length", "9-5"), "--length: 9-5 goes down; expected the shorter length first: 5-9."),
        (("--length", "long"), "--length: 'long' is no length; expected a number"),
        (("--seed-sequence", ""), "--seed-sequence: the sequence is empty"),
        (("--seed-sequence", "MKX"), "--seed-sequence: the sequence has 'X' at position 3"),
        (("--seed-sequence", "MKT", "--length", 3), "--length is that of --seed-sequence"),
        (("--seed-sequence", "MKT", "--steps", 2), "takes what --keep names: say which residues"),
        (("--seed-sequence", "M" * 121), "--seed-sequence: 121 residues are too many"),
        (("--keep", "1-2"), "--keep needs --seed-sequence"),
        (("--seed-sequence", "MKT", "--keep", "2-4"), "--keep: 2-4 goes beyond the end"),
        (("--seed-sequence", "MKT", "--keep", "1,1"), "--keep: 1 overlaps what is kept already"),
        (("--steps", 101), "steps must be at most the masks of a protein, 100; got 101."),
        (("--rounds", 0), "0 is not in the range x>=1"),
        (("--burn-in", 21), "burn-in must be from 0 to the 20 rounds"),
        (("--sampler", "gibbs", "--order", "random"), "the sampler gibbs has no order"),
        (("--schedule", "cosine"), "give steps too"),
        (("--num-samples", 0), "0 is not in the range x>=1"),
        (("--temperature", 0), "0.0 is not in the range x>0"),
        (("--temperature", "nan"), "expected a finite number; got nan"),
        (("--top-p", 1.5), "1.5 is not in the range 0<x<=1"),
        (("--order", "up"), "'up' is not one of"),
        (("-o", "/nowhere/out.fasta"), "out.fasta cannot be written: there is no folder /nowhere"),
    ],
)
def test_flags_that_cannot_be_have_one_sentence(weights_file, flags, sentence):
    result = run(generate.command, weights_file, *flags)
    assert result.exit_code == (1 if flags[0] == "-o" else 2)
    assert sentence in " ".join(result.stderr.split())
    assert isinstance(result.exception, SystemExit)


def test_a_weights_file_that_cannot_be_used_has_one_sentence(tmp_path):
    for command, flags in ((generate.command, ()), (unmask.command, ("--seq", "M*"))):
        result = run(command, tmp_path / "none.safetensors", *flags)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: There is no weights file ")


def test_weights_that_hold_nan_give_a_sentence_and_no_protein(tmp_path):
    model = ESM1(ESM1Config(1, 16, 32, 2, max_positions=122))
    model.lm_head.bias = model.lm_head.bias + float("nan")
    save_weights(tmp_path / "nan.safetensors", model)
    result = run(generate.command, tmp_path / "nan.safetensors")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is damaged: lm_head.bias has numbers that are NaN or infinite" in result.stderr


def test_help_says_what_the_perplexity_is():
    for command in (generate.command, unmask.command):
        text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
        assert "pseudo-perplexity: exp of the mean of -log p(residue), each residue masked" in text


def test_mlx_esm_is_the_commands_in_one(weights_file):
    package = Path(generate.__file__).parents[1]
    doors = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert set(cli.main.commands) == doors | {"completion"}  # which is of mlx-esm itself
    flags = ["--weights-file", str(weights_file), "--seq", "M*K"]
    whole = CliRunner().invoke(cli.main, ["unmask", *flags])
    assert whole.stdout == CliRunner().invoke(unmask.command, flags).stdout != ""


def test_python_m_runs_the_command_with_only_fasta_on_its_standard_output(weights_file):
    command = [sys.executable, "-m", "mlx_esm_kernels.generate", "--length", "12"]
    process = subprocess.run(
        [*command, "--weights-file", str(weights_file)], capture_output=True, check=True
    )
    assert len(records(process.stdout.decode())[0][1]) == 12
    assert "🌳" in process.stderr.decode()


def test_a_model_without_eos_generates_and_unmasks_to_the_last_residue(tmp_path):
    mx.random.seed(0)
    config = ESM1Config.esm1(num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=12)
    path = tmp_path / "esm1.safetensors"
    save_weights(path, ESM1(config))
    ((_, sequence),) = records(run(generate.command, path, "--length", "11").stdout)
    assert len(sequence) == 11
    assert set(sequence) <= AMINO_ACIDS
    ((_, sequence),) = records(run(unmask.command, path, "--seq", "MK*TW").stdout)
    assert (sequence[:2], sequence[3:]) == ("MK", "TW")
    result = run(generate.command, path, "--length", "12")
    assert len(records(result.stdout)[0][1]) == 12  # its positions have no end
    assert "a protein of 12 residues is taken whole, and this model was trained on" in result.stderr
