"""`judge`, as a person types it."""

import gzip
import json

import numpy as np
import pytest
from click.testing import CliRunner
from random_models import esm1b

from mlx_esm_kernels import save_weights
from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.commands import judge as judge_command
from mlx_esm_kernels.data import natural_range, nearest
from mlx_esm_kernels.data.alphabet import ESM1B, STANDARD_RESIDUES
from mlx_esm_kernels.data.proteins import load_proteins
from mlx_esm_kernels.inference.naturalness import assess


def at_random(count, seed, longest=38):
    rng = np.random.default_rng(seed)
    return [
        "M" + "".join(rng.choice(list(STANDARD_RESIDUES), int(n)))
        for n in rng.integers(20, longest, size=count)
    ]


def fasta(sequences):
    return "".join(f">p{i}\n{s}\n" for i, s in enumerate(sequences))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(natural_range, "_MOST_DRAWS", 200)
    monkeypatch.setattr(nearest, "CANDIDATES", 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLX_ESM_KERNELS_CACHE", str(tmp_path / "cache"))
    save_weights("w.safetensors", esm1b())
    (tmp_path / "new.fasta").write_text(fasta(at_random(8, 0)))
    (tmp_path / "natural.fasta").write_text(fasta(at_random(40, 1)))
    return tmp_path


def run(*arguments, **options):
    return CliRunner().invoke(cli.main, ["judge", *arguments], **options)


def done(*arguments, **options):
    result = run(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result.output


BOTH = ("new.fasta", "--against", "natural.fasta")


def test_what_is_printed_written_and_drawn_is_what_was_found(place):
    output = done(*BOTH, "--weights-file", "w.safetensors", "--json", "out.json", "-o", "out.png")
    sets = load_proteins("new.fasta"), load_proteins("natural.fasta")
    expected = assess(*sets, ESM1B, model=esm1b())
    found = json.loads((place / "out.json").read_text())
    assert (found["generated"]["proteins"], found["natural"]["all_proteins"]) == (8, 40)
    assert found["natural_sets"] == {"proteins": 8, "draws": 200, "range": 0.95}
    for name, figure in expected.comparison.figures.items():
        assert found["figures"][name]["value"] == figure.value
        assert found["figures"][name]["natural"]["high"] == figure.natural.high
    assert found["residues"]["C"]["value"] == expected.comparison.residues[1].value
    kinship = found["nearest_natural"]["generated"]
    assert kinship["median_identity"] == expected.to_natural.median_identity
    assert kinship["relatives"][0]["name"].startswith("p")
    model = found["model"]
    assert model["generated"]["nats"]["value"] == pytest.approx(
        expected.likelihoods.generated.nats.value, rel=1e-5
    )
    assert f"{expected.comparison.figures['composition'].value:.3f}" in output
    assert f"{expected.likelihoods.natural.perplexity:.2f} ±" in output
    assert (place / "out.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_off_is_in_words_and_in_the_json(place):
    cysteine = [f"{text[:9]}{'C' * 12}" for text in at_random(8, 0)]
    (place / "new.fasta").write_text(fasta(cysteine))
    output = " ".join(done(*BOTH, "--json", "out.json").split())
    words = json.loads((place / "out.json").read_text())["findings"]
    assert any(sentence.startswith("Cysteine is ") for sentence in words)
    assert all(f"- {sentence}" in output for sentence in words)
    assert "Nothing is off" not in output


def test_that_nothing_is_off_is_said(place):
    assert "- Nothing is off" in done(*BOTH, "--json", "out.json")
    assert json.loads((place / "out.json").read_text())["findings"] == []


@pytest.mark.parametrize(("generated", "natural"), [(1, 1), (1, 40), (8, 2), (300, 40)])
def test_lines_fit_80_columns_and_nothing_is_nan(place, natural, generated):
    (place / "new.fasta").write_text(fasta([*at_random(generated, 3), "XBM"]))
    (place / "natural.fasta").write_text(fasta(at_random(natural, 4)))
    model = ("--weights-file", "w.safetensors", "--sample", "3", "-o", "out.png")
    output = done(*BOTH, *model, "--json", "out.json")
    assert max(map(len, output.splitlines())) <= 80
    assert "nan" not in output
    json.loads((place / "out.json").read_text(), parse_constant=pytest.fail)
    assert "2 letters of the generated ones are none of the 20 residues" in output


def test_few_natural_proteins_are_said(place):
    (place / "natural.fasta").write_text(fasta(at_random(6, 4)))
    assert "so theirs are sets of 3" in done(*BOTH)
    (place / "natural.fasta").write_text(fasta(at_random(1, 4)))
    assert "one natural protein tells nothing of how natural proteins differ" in done(*BOTH)


def test_proteins_may_come_from_a_pipe_and_compressed(place):
    expected = done(*BOTH)
    assert done("-", *BOTH[1:], input=(place / "new.fasta").read_text()) == expected
    (place / "n.gz").write_bytes(gzip.compress((place / "natural.fasta").read_bytes()))
    assert done("new.fasta", "--against", "n.gz") == expected


def test_the_same_seed_says_the_same(place):
    first = done(*BOTH, "--seed", "1")
    assert done(*BOTH, "--seed", "1") == first != done(*BOTH, "--seed", "2")


def test_a_long_name_of_a_model_is_cut(place):
    (place / ("d" * 90)).mkdir()
    save_weights(f"{'d' * 90}/w.safetensors", esm1b())
    output = done(*BOTH, "--weights-file", f"{'d' * 90}/w.safetensors", "--sample", "2")
    assert "(by ...ddd" in output
    assert max(len(line) for line in output.splitlines() if "loading" not in line) <= 80


def test_a_model_without_a_language_head_is_refused_before_the_work(place, monkeypatch):
    save_weights("head.safetensors", esm1b(language_head=False))
    monkeypatch.setattr(judge_command, "load_proteins", pytest.fail)
    result = run(*BOTH, "--weights-file", "head.safetensors")
    assert result.exit_code == 1
    assert "no language head" in result.stderr
