"""`evaluate`, as a person types it."""

import json
import signal

import numpy as np
import pytest
from click.testing import CliRunner
from random_models import esm1, esm1b, randomised

from mlx_esm_kernels import ESM1, ESM1Config, evaluate, save_weights
from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.commands import evaluate as evaluate_command
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES, Alphabet
from mlx_esm_kernels.data.fasta import read_fasta
from mlx_esm_kernels.data.proteins import Proteins, split_held_out
from mlx_esm_kernels.data.synthetic import SyntheticFamilies, make_sample

OTHER_IDS = Alphabet(("<cls>", "<pad>", "<eos>", "<unk>", "<mask>", *STANDARD_RESIDUES[::-1]))


def write_fasta(path, sequences):
    path.write_text("".join(f">p{i}\n{s}\n" for i, s in enumerate(sequences)))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    save_weights("w.safetensors", esm1b())
    save_weights("v.safetensors", esm1b(1))
    rng = np.random.default_rng(0)
    sequences = [
        "".join(rng.choice(list(STANDARD_RESIDUES), int(n))) for n in rng.integers(5, 38, size=40)
    ]
    write_fasta(tmp_path / "p.fasta", sequences)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(cli.main, ["evaluate", *arguments])


def done(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments):
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    return " ".join(result.stderr.split())


def small_sample(*, alphabet):
    return make_sample(num_proteins=400, shortest=16, longest=20, alphabet=alphabet)


def sequences_of(path):
    return [sequence for _, sequence in read_fasta(path)]


def test_what_is_printed_written_and_drawn_is_what_python_gives(place):
    output = done(
        "--weights-file", "w.safetensors", "p.fasta", "--json", "out.json", "--picture", "out.png"
    )
    expected = evaluate(esm1b(), sequences_of("p.fasta"))
    assert f"{expected.whole.num_targets:,} masked residues of 40 proteins (6 draws" in output
    assert f"{expected.perplexity:.2f} ± {expected.perplexity_error:.2f}" in output
    found = json.loads((place / "out.json").read_text())
    model = found["models"]["w.safetensors"]
    score = model["all"]["scores"]["this model"]
    assert score["perplexity"] == pytest.approx(expected.perplexity)
    assert score["accuracy"]["value"] == pytest.approx(expected.accuracy)
    assert len(model["by_residue"]) == 20
    np.testing.assert_allclose(model["confusion"], expected.confusion)
    assert (found["kind"], found["proteins"], model["planted_pairs"]) == ("proteins", 40, None)
    assert (place / "out.png").read_bytes().startswith(b"\x89PNG")


def test_several_models_are_compared_on_the_same_residues(place):
    save_weights("u.safetensors", esm1())
    save_weights("t.safetensors", esm1b(3))
    names = ["w.safetensors", "v.safetensors", "u.safetensors", "t.safetensors"]
    flags = [part for name in names for part in ("--weights-file", name)]
    output = done(*flags, "p.fasta", "--json", "out.json")
    found = json.loads((place / "out.json").read_text())
    assert list(found["models"]) == names
    assert len(found["differences"]) == 6
    nats = {n: m["all"]["scores"]["this model"]["nats"] for n, m in found["models"].items()}
    for one in found["differences"]:
        apart = nats[one["model"]]["value"] - nats[one["less"]]["value"]
        assert one["nats"]["value"] == pytest.approx(apart)
        assert one["nats"]["error"] > 0
    baselines = [m["all"]["scores"]["neighbours"] for m in found["models"].values()]
    assert all(one == baselines[0] for one in baselines)
    assert "model 4: t.safetensors" in output
    assert "the other model: see --json" in output


@pytest.mark.parametrize("models", [1, 3])
@pytest.mark.parametrize("data", ["sample", "p.fasta"])
def test_lines_fit_80_columns(place, monkeypatch, models, data):
    monkeypatch.setattr(evaluate_command, "make_sample", small_sample)
    save_weights("u.safetensors", esm1b(2))
    names = ["w.safetensors", "v.safetensors", "u.safetensors"][:models]
    output = done(*(part for name in names for part in ("--weights-file", name)), data)
    assert max(map(len, output.splitlines())) <= 80


def test_held_out_proteins_are_those_of_train(place):
    done("--weights-file", "w.safetensors", "p.fasta", "--part", "held-out", "--json", "out.json")
    sequences = sequences_of("p.fasta")
    others, held_out = split_held_out(Proteins.from_sequences(sequences))
    expected = evaluate(
        esm1b(),
        [sequences[i] for i in held_out],
        baseline_from=[sequences[i] for i in others],
    )
    found = json.loads((place / "out.json").read_text())
    assert (found["proteins"], found["kind"]) == (len(held_out), "held-out proteins")
    for who, score in expected.whole.scores.items():
        theirs = found["models"]["w.safetensors"]["all"]["scores"][who]
        assert theirs["nats"]["value"] == pytest.approx(score.nats.value)


def test_baselines_may_come_from_other_files(place):
    write_fasta(place / "q.fasta", ["A" * 30])
    done(
        *("--weights-file", "w.safetensors", "p.fasta", "--json", "out.json"),
        *("--baseline-from", "q.fasta"),
    )
    expected = evaluate(esm1b(), sequences_of("p.fasta"), baseline_from=["A" * 30])
    found = json.loads((place / "out.json").read_text())
    theirs = found["models"]["w.safetensors"]["all"]["scores"]["neighbours"]
    assert theirs["perplexity"] == pytest.approx(expected.whole.scores["neighbours"].perplexity)


def test_the_sample_has_a_floor_and_planted_pairs(place, monkeypatch):
    monkeypatch.setattr(evaluate_command, "make_sample", small_sample)
    output = done("--weights-file", "w.safetensors", "sample", "--json", "out.json")
    found = json.loads((place / "out.json").read_text())
    model = found["models"]["w.safetensors"]
    _, held_out = split_held_out(small_sample(alphabet=ESM1B).proteins)
    assert found["proteins"] == len(held_out)
    assert model["differences"]["entropy floor"]["value"] > 0
    assert model["planted_pairs"]["measure"] == "contact regression"
    assert "planted pairs among" in output
    assert "held-out synthetic proteins" in output


def test_a_sample_without_pairs_says_nothing_of_them(place, monkeypatch):
    def without_pairs(*, alphabet):
        alone = [one.without_pairs() for one in small_sample(alphabet=alphabet).families]
        return SyntheticFamilies(alone, 400, 0, alphabet)

    monkeypatch.setattr(evaluate_command, "make_sample", without_pairs)
    assert "planted" not in done("--weights-file", "w.safetensors", "sample", "--draws", "1")


def test_one_protein_has_no_standard_error_and_that_is_said(place):
    write_fasta(place / "one.fasta", ["MKTAYIAKQRQISFVK"])
    output = done("--weights-file", "w.safetensors", "one.fasta", "--json", "out.json")
    assert "one protein tells no standard error" in output
    assert "±" not in output
    json.loads((place / "out.json").read_text())


def test_long_proteins_are_refused_or_seen_in_windows(place):
    write_fasta(place / "long.fasta", ["MKTAYIAKQR" * 9, "MKT"])
    said = refused("--weights-file", "w.safetensors", "long.fasta")
    assert "w.safetensors: protein 1 ('p0') has 90 residues" in said
    assert "--long window" in said
    assert "2 proteins" in done("--weights-file", "w.safetensors", "long.fasta", "--long", "window")


def test_ctrl_c_gives_the_figures_so_far_and_leaves_files_alone(place, monkeypatch):
    (place / "out.json").write_text("precious")

    def interrupted(models, targets, *, on_step, stopped, **options):
        def step(count):
            on_step(count)
            signal.raise_signal(signal.SIGINT)

        return real(models, targets, tokens_per_pass=64, on_step=step, stopped=stopped, **options)

    real = evaluate_command.measure
    monkeypatch.setattr(evaluate_command, "measure", interrupted)
    result = run("--weights-file", "w.safetensors", "p.fasta", "--json", "out.json")
    assert result.exit_code == 130
    assert "this model" in result.output
    assert "stopped after" in result.output
    assert "no file was written" in result.output
    assert (place / "out.json").read_text() == "precious"


def test_a_signal_at_the_very_end_is_no_loss(place, monkeypatch):
    def late(*arguments, **options):
        found = real(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return found

    real = evaluate_command.measure
    monkeypatch.setattr(evaluate_command, "measure", late)
    done("--weights-file", "w.safetensors", "p.fasta", "--json", "out.json")
    assert (place / "out.json").exists()


@pytest.mark.slow
def test_a_first_run_nears_the_floor_and_finds_the_planted_pairs(place):
    trained = CliRunner().invoke(cli.main, ["train", "--weights-dir", "run", "--seed", "1"])
    assert trained.exit_code == 0, trained.output
    done("--weights-file", "run/weights.safetensors", "sample", "--json", "out.json")
    model = json.loads((place / "out.json").read_text())["models"]["run/weights.safetensors"]
    beyond = model["differences"]["entropy floor"]
    assert 0 < 3 * beyond["error"] < beyond["value"] < 0.1
    planted = model["planted_pairs"]
    assert planted["at_all"] > 0.9 > 2 * planted["chance_at_distance"]


# What cannot be


def test_too_little_data_is_a_sentence(place):
    write_fasta(place / "x.fasta", ["X" * 4])
    assert "none of the 20 amino acids" in refused("--weights-file", "w.safetensors", "x.fasta")
    write_fasta(place / "one.fasta", ["MKT", "MKT"])
    said = refused("--weights-file", "w.safetensors", "one.fasta", "--part", "held-out")
    assert "At least two different proteins are needed" in said


def test_a_model_without_a_language_head_is_named(place):
    save_weights("head.safetensors", esm1b(language_head=False))
    flags = ("--weights-file", "w.safetensors", "--weights-file", "head.safetensors")
    assert "head.safetensors: this model has no language head" in refused(*flags, "p.fasta")


def test_models_that_held_out_other_proteins_are_not_compared_on_them(place):
    config = ESM1Config.of(
        OTHER_IDS, num_layers=1, embed_dim=16, ffn_dim=32, num_heads=2, max_positions=40
    )
    save_weights("other.safetensors", randomised(ESM1(config, OTHER_IDS)))
    flags = ("--weights-file", "w.safetensors", "--weights-file", "other.safetensors", "p.fasta")
    assert "have other ids for the residues" in refused(*flags, "--part", "held-out")
    assert "model 2" in done(*flags)


def test_other_mistakes_are_sentences(place):
    weights = ("--weights-file", "w.safetensors")
    assert "is given twice" in refused(*weights, *weights, "p.fasta")
    assert "leave out either sample or the files" in refused(*weights, "sample", "p.fasta")
    assert "out.jpg must end in .png" in refused(*weights, "p.fasta", "--picture", "out.jpg")
    assert "p.fasta is the input too" in refused(*weights, "p.fasta", "--json", "p.fasta")
    assert "nowhere.fasta does not exist" in refused(*weights, "nowhere.fasta")
