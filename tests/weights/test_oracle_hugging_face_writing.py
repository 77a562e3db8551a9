"""transformers itself loads the folders that are written for it, without a word, as they are meant.

These need the extra "oracle".
"""

import logging
import warnings
from contextlib import contextmanager

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from random_models import esm1b, esm2, parameters
from test_hugging_face_writing import written
from writable_models import bits, writable_models

from mlx_esm_kernels import ESM1B, PRESETS, load_model, save_hugging_face
from mlx_esm_kernels.models.dtypes import DTYPES, STORED
from mlx_esm_kernels.models.esm1 import ESM1
from mlx_esm_kernels.weights import hugging_face_writing
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
PROTEINS = ["MKTAYIAKQRXBUZO.-<mask>LL", "MK<mask>", "ACDEFGHIKLMNPQRSTVWY"]
FREQUENCIES = "esm.rotary_embeddings.inv_freq"
few = settings(max_examples=15)


@contextmanager
def nothing_is_said():
    """Within it, a warning of transformers or of Python is an error."""
    said = []

    class Handler(logging.Handler):
        def emit(self, record):
            said.append(record.getMessage())

    handler, logger = Handler(logging.WARNING), logging.getLogger("transformers")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        logger.removeHandler(handler)
    assert said == []


def loaded(folder, kind=None, **named):
    """transformers' model of a folder, of which nothing is missing and nothing left over."""
    kind = kind or transformers.EsmForMaskedLM
    with nothing_is_said():
        model, found = kind.from_pretrained(folder, output_loading_info=True, **named)
    assert not any(found.values()), found
    return model


def state_bits(model):
    """The bits of all parameters by transformers' names."""
    return {name: bits(as_mlx(tensor)) for name, tensor in model.named_parameters()}


def as_mlx(tensor):
    if tensor.dtype == torch.bfloat16:
        return mx.array(tensor.detach().view(torch.int16).numpy()).view(mx.bfloat16)
    return mx.array(tensor.detach().numpy())


def logits_of(ours, theirs, tokenizer):
    batch = tokenizer(PROTEINS, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = theirs(**batch).logits.numpy()
    real = batch.attention_mask.numpy() == 1
    return np.array(ours(mx.array(batch.input_ids.numpy()))["logits"])[real], expected[real]


@few
@given(writable_models(contact_head=True))
def test_transformers_has_the_very_numbers(tmp_path_factory, model):
    theirs = loaded(written(tmp_path_factory.mktemp("law") / "folder", model))
    dtype = model.embed_tokens.weight.dtype
    assert str(theirs.dtype) == f"torch.{STORED[dtype].name}"
    expected = {name_in_transformers(name): bits(p) for name, p in parameters(model).items()}
    assert state_bits(theirs) == expected
    if model.config.rotary_positions:
        dim = model.config.head_dim
        found = dict(theirs.named_buffers())[FREQUENCIES]
        assert found.dtype == torch.float32
        rounded_to = DTYPES[model.config.frequency_dtype]
        exact = mx.array(10000.0 ** (-np.arange(0, dim, 2) / dim)).astype(rounded_to)
        np.testing.assert_allclose(found, np.array(exact.astype(mx.float32)), rtol=1e-6)


@few
@given(writable_models(dtypes=("float32",), contact_head=True))
def test_transformers_has_our_logits_and_contacts(tmp_path_factory, model):
    folder = written(tmp_path_factory.mktemp("law") / "folder", model)
    with nothing_is_said():
        tokenizer = transformers.EsmTokenizer.from_pretrained(folder)
    theirs = loaded(folder, attn_implementation="eager").eval()
    ours, expected = logits_of(model, theirs, tokenizer)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE * scale, rtol=0)
    batch = tokenizer(PROTEINS[:1], return_tensors="pt")
    with torch.no_grad():
        contacts = theirs.predict_contacts(batch.input_ids, batch.attention_mask).numpy()
    out = model(mx.array(batch.input_ids.numpy()), return_contacts=True)
    np.testing.assert_allclose(np.array(out["contacts"]), contacts, atol=TOLERANCE)


@few
@given(writable_models(contact_head=True))
def test_its_tokenizer_gives_our_ids(tmp_path_factory, model):
    alphabet = model.alphabet
    folder = written(tmp_path_factory.mktemp("law") / "folder", model)
    for kind in (transformers.EsmTokenizer, transformers.AutoTokenizer):
        with nothing_is_said():
            tokenizer = kind.from_pretrained(folder)
            ids = tokenizer("MKTXBUZO.-<mask>AA*").input_ids
        assert type(tokenizer) is transformers.EsmTokenizer
        expected = [*alphabet.encode("MKTXBUZO.-"), alphabet.mask_idx, *alphabet.encode("AA*")]
        assert ids == alphabet.with_specials(np.array(expected)).tolist()
        assert tokenizer.convert_ids_to_tokens(range(len(alphabet))) == list(alphabet.tokens)
        for name in ("cls", "pad", "eos", "unk", "mask"):
            ours = alphabet.tokens.index(f"<{name}>")
            assert getattr(tokenizer, f"{name}_token_id") == ours


def transformers_folder(folder, dtype, rotary):
    """A folder of transformers' own save_pretrained, and the model in it."""
    config = transformers.EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=50,
        position_embedding_type="rotary" if rotary else "absolute",
        layer_norm_eps=1e-6,
        token_dropout=True,
        emb_layer_norm_before=not rotary,
    )
    model = transformers.EsmForMaskedLM(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rotary", [False, True], ids=["learned", "rotary"])
def test_a_model_of_transformers_comes_back_to_it_bit_for_bit(tmp_path, dtype, rotary):
    theirs = transformers_folder(tmp_path / "theirs", getattr(torch, dtype), rotary)
    again = loaded(written(tmp_path / "ours", load_model(tmp_path / "theirs")))
    assert state_bits(again) == state_bits(theirs)
    assert again.dtype == theirs.dtype
    same = ("hidden_size", "layer_norm_eps", "position_embedding_type", "intermediate_size")
    for name in (*same, "token_dropout", "emb_layer_norm_before", "num_attention_heads"):
        assert getattr(again.config, name) == getattr(theirs.config, name)
    if not rotary:
        assert again.config.max_position_embeddings == 50


def test_transformers_takes_a_model_that_learned_to_generate(tmp_path):
    """Its config keeps our key, and writes it again."""
    plain, mixed = esm2(token_dropout=False), esm2(token_dropout=False, objective="mixed")
    mixed.update(plain.parameters())
    found = loaded(written(tmp_path / "mixed", mixed))
    assert state_bits(found) == state_bits(loaded(written(tmp_path / "plain", plain)))
    assert found.config.token_dropout is False
    found.save_pretrained(tmp_path / "again")
    assert load_model(tmp_path / "again").config.objective == "mixed"


@pytest.mark.parametrize("make", [esm1b, esm2])
def test_several_files_load_as_one(tmp_path, monkeypatch, make):
    model = make()
    one = state_bits(loaded(written(tmp_path / "one", model)))
    monkeypatch.setattr(hugging_face_writing, "SHARD_BYTES", 2000)
    save_hugging_face(tmp_path / "many", model)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert state_bits(loaded(tmp_path / "many", transformers.AutoModelForMaskedLM)) == one


def test_an_encoder_alone_loads_without_a_pooling_layer(tmp_path):
    folder = written(tmp_path / "folder", esm2(language_head=False))
    loaded(folder, transformers.EsmModel, add_pooling_layer=False)


def test_of_what_is_missing_only_the_contact_head_is_made_up(tmp_path):
    folder = written(tmp_path / "folder", esm1b(contact_head=False))
    _, found = transformers.EsmForMaskedLM.from_pretrained(folder, output_loading_info=True)
    regression = "esm.contact_head.regression"
    missing = found.pop("missing_keys")
    assert missing == {f"{regression}.weight", f"{regression}.bias"}
    assert not any(found.values())


@pytest.mark.parametrize("name", ["esm2_t6_8M", "medium"])
def test_a_preset_has_our_logits(tmp_path, name):
    mx.random.seed(0)
    model = ESM1(PRESETS[name], ESM1B)
    folder = written(tmp_path / "folder", model)
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ours, expected = logits_of(model, theirs, tokenizer)
    np.testing.assert_allclose(ours, expected, atol=TOLERANCE, rtol=0)
