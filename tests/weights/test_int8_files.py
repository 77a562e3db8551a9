"""Files of int8 models: read rightly by all that may read them, refused by the rest."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from click.testing import CliRunner, Result
from random_models import esm1b, esm2, parameters, same

from mlx_esm_kernels import embed, load_model, save_weights
from mlx_esm_kernels.commands import cli
from mlx_esm_kernels.models.int8 import quantize_int8
from mlx_esm_kernels.weights import WeightsError, load_fused, save_hugging_face

PROTEINS = ["MKTAYIAKQRQISFVKSHFSRQ", "MSDNEQWRTLVA", "GHIKLPFY" * 4]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.safetensors"
    save_weights(path, esm1b(embed_dim=64, ffn_dim=256, num_heads=4))
    return path


@pytest.fixture
def small(plain: Path) -> Path:
    path = plain.with_name("small.safetensors")
    result = run("convert", "--quantize", "int8", plain, path)
    assert result.exit_code == 0, result.output
    assert "int8)" in result.output
    return path


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "proteins.fasta"
    path.write_text("".join(f">{i}\n{text}\n" for i, text in enumerate(PROTEINS)))
    return path


def test_what_is_loaded_is_what_was_quantised(plain: Path, small: Path) -> None:
    model = load_model(plain)
    quantize_int8(model)
    assert same(load_model(small), model)
    layers = sum(p.size for name, p in parameters(model).items() if p.dtype == mx.int8)
    saved = plain.stat().st_size - small.stat().st_size
    assert 2.8 * layers < saved < 3.2 * layers  # a byte for four


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtype_is_that_of_all_but_the_rounded_weights(small: Path, dtype: str) -> None:
    model = load_model(small, dtype)
    found = {name: p.dtype for name, p in parameters(model).items()}
    assert found.pop("layers.0.fc1.weight") == mx.int8
    assert found.pop("layers.0.fc1.weight_scale") == mx.float32
    assert found["layers.0.fc1.bias"] == found["embed_tokens.weight"] == getattr(mx, dtype)
    vectors = [np.array(one.mean[2].astype(mx.float32)) for one in embed(model, PROTEINS)]
    wide = [np.array(one.mean[2]) for one in embed(load_model(small), PROTEINS)]
    np.testing.assert_allclose(vectors, wide, atol=0.1)


def test_it_is_converted_to_another_precision_and_kept_as_it_is(small: Path) -> None:
    other = small.with_name("other.safetensors")
    assert run("convert", "--dtype", "bfloat16", small, other).exit_code == 0
    assert same(load_model(other), load_model(small, "bfloat16"))
    assert load_model(other).embed_tokens.weight.dtype == mx.bfloat16


def test_embed_and_score_read_it(small: Path, fasta: Path) -> None:
    done = run("embed", fasta, "--weights-file", small, "-o", fasta.with_suffix(".safetensors"))
    assert done.exit_code == 0, done.output
    done = run("evaluate", fasta, "--weights-file", small)
    assert done.exit_code == 0, done.output


def test_training_it_is_refused(small: Path, fasta: Path) -> None:
    lora = ("--lora-rank", 2)
    for more in ((), lora):
        target = small.with_name("run")
        done = run(
            "train", "--data", fasta, "--weights-file", small, "--weights-dir", target, *more
        )
        assert done.exit_code == 1, done.output
        assert "is quantised to int8" in done.output
        assert "give the unquantised weights" in done.output


def test_an_adapter_beside_it_is_refused(small: Path) -> None:
    for load in (load_fused, lambda path, adapter: load_model(path, adapter=adapter)):
        with pytest.raises(WeightsError, match="beside which no adapter can stand: give the unq"):
            load(small, small.with_name("adapter"))


def test_fitting_an_adapter_is_refused(small: Path) -> None:
    table = small.with_suffix(".csv")
    table.write_text("sequence,target\n" + "\n".join(f"{p},{i}" for i, p in enumerate(PROTEINS)))
    done = run(
        *("fit", "--data", table, "--weights-file", small, "--target-col", "target"),
        *("--task", "regression", "--lora-rank", 2, "-o", small.with_name("head")),
    )
    assert done.exit_code == 1, done.output
    assert "is quantised to int8" in done.output


def test_transformers_is_not_given_it(small: Path, tmp_path: Path) -> None:
    done = run("convert", "--to", "hugging-face", small, tmp_path / "folder")
    assert done.exit_code == 1, done.output
    assert "is quantised to int8" in done.output
    assert not (tmp_path / "folder").exists()
    with pytest.raises(ValueError, match="is quantised to int8"):
        save_hugging_face(tmp_path / "folder", load_model(small))


def test_what_is_quantised_is_not_quantised_again(small: Path) -> None:
    done = run("convert", "--quantize", "int8", small, small.with_name("again.safetensors"))
    assert done.exit_code == 1
    assert "quantised to int8 already" in done.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--check", "some.fasta"), "--check is of what --quantize costs"),
        (("--quantize", "int8", "--to", "hugging-face"), "leave out --to"),
        (("--quantize", "int4"), "int4"),
    ],
)
def test_options_that_do_not_go_together(
    plain: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    done = run("convert", *arguments, plain, plain.with_name("out.safetensors"))
    assert done.exit_code == 2
    assert sentence in done.output


def with_header(path: Path, change: object) -> Path:
    """A copy whose json header was changed."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)  # type: ignore[operator]
    text = json.dumps(header).encode()
    other = path.with_name("changed.safetensors")
    other.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return other


def test_another_quantisation_is_named(small: Path) -> None:
    other = with_header(small, lambda header: header["__metadata__"].update(quantization="int3"))
    with pytest.raises(WeightsError, match=r"is quantised as 'int3'.*install a newer"):
        load_model(other)


def test_bytes_are_never_taken_for_weights(small: Path) -> None:
    """A file that no longer says that it is quantised must not be read as one that is not."""
    other = with_header(small, lambda header: header["__metadata__"].pop("quantization"))
    with pytest.raises(WeightsError, match=r"weight_scale|must be one of F32, F16, BF16; got I8"):
        load_model(other)


def test_floats_are_never_taken_for_bytes(plain: Path) -> None:
    model = esm1b()
    quantize_int8(model)
    model.layers[0].fc1.weight = model.layers[0].fc1.weight.astype(mx.float32)
    save_weights(plain, model)
    with pytest.raises(WeightsError, match=r"layers\.0\.fc1\.weight must be int8; got .*float32"):
        load_model(plain)


def test_releases_that_know_nothing_of_it_say_so(plain: Path, small: Path) -> None:
    versions = [
        mx.load(str(path), return_metadata=True)[1]["format_version"] for path in (plain, small)
    ]
    assert versions == ["2", "3"]  # the first of them is what those read


def test_a_check_says_what_it_costs(plain: Path, fasta: Path) -> None:
    target = plain.with_name("checked.safetensors")
    arguments = ("convert", "--quantize", "int8", "--check", fasta, plain, target)
    done = run(*arguments)
    assert "int8 changes the masked perplexity on proteins.fasta by" in done.output
    assert (done.exit_code == 0) == target.exists()


@pytest.mark.parametrize("change", [0.5, float("nan")])
def test_a_check_that_fails_keeps_no_file(
    plain: Path, fasta: Path, change: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(model: object) -> None:
        quantize_int8(model)  # type: ignore[arg-type]
        model.lm_head.bias[5] = 50 * change  # type: ignore[attr-defined]

    monkeypatch.setattr("mlx_esm_kernels.commands.quantizing.quantize_int8", spoiled)
    target = plain.with_name("checked.safetensors")
    done = run("convert", "--quantize", "int8", "--check", fasta, plain, target)
    assert done.exit_code == 1
    assert not target.exists()


def test_released_architectures_are_all_served(tmp_path: Path) -> None:
    model = esm2()
    quantize_int8(model)
    save_weights(tmp_path / "esm2.safetensors", model)
    assert same(load_model(tmp_path / "esm2.safetensors"), model)
