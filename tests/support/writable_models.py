"""Random models that transformers' ESM can express: ESM-1b, ESM-1v, ESM-2 and what lies between."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st
from random_models import parameters, randomised

from mlx_esm_kernels.data.alphabet import ESM1B_TOKENS, Alphabet
from mlx_esm_kernels.models.dtypes import DTYPES
from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config

_EOS = ESM1B_TOKENS.index("<eos>")


@st.composite
def alphabets(draw: st.DrawFn) -> Alphabet:
    """ESM-1b's tokens in any order; <eos> alone stays, as transformers' contact head wants it."""
    tokens = [token for token in ESM1B_TOKENS if token != "<eos>"]
    if draw(st.booleans()):
        tokens = draw(st.permutations(tokens))
    return Alphabet([*tokens[:_EOS], "<eos>", *tokens[_EOS:]])


@st.composite
def writable_models(
    draw: st.DrawFn,
    *,
    dtypes: tuple[str, ...] = tuple(DTYPES),
    contact_head: bool | None = None,
    rotary: bool | None = None,
) -> ESM1:
    """A model of any sizes and switches, with opinions, in one of some dtypes.

    Its language head is there; whether it has a contact head or rotary positions is drawn where
    that is None.
    """
    alphabet = draw(alphabets())
    heads = draw(st.integers(1, 4))
    rotary = draw(st.booleans()) if rotary is None else rotary
    half = draw(st.integers(1, 9))
    # Of the one frequency 1 no file tells what it was rounded to.
    rounded_to = list(DTYPES) if rotary and half > 1 else ["float32"]
    config = ESM1Config.of(
        alphabet,
        num_layers=draw(st.integers(1, 3)),
        embed_dim=heads * 2 * half,
        ffn_dim=draw(st.integers(1, 40)),
        num_heads=heads,
        max_positions=draw(st.integers(24, 70)),
        token_dropout=draw(st.booleans()),
        emb_layer_norm_before=draw(st.booleans()),
        layer_norm_eps=draw(st.sampled_from([1e-5, 1e-12, 0.1])),
        rotary_positions=rotary,
        frequency_dtype=draw(st.sampled_from(rounded_to)),
        contact_head=draw(st.booleans()) if contact_head is None else contact_head,
    )
    model = randomised(ESM1(config, alphabet), draw(st.integers(0, 2**32 - 1)))
    model.set_dtype(DTYPES[draw(st.sampled_from(dtypes))])
    return model


def bits(array: mx.array) -> tuple[str, tuple[int, ...], bytes]:
    """The dtype, shape and bits of an array, by which it is the same as another or not."""
    unsigned = {2: mx.uint16, 4: mx.uint32}[array.dtype.size]
    return str(array.dtype), array.shape, np.array(array.view(unsigned)).tobytes()


def bits_of(model: ESM1) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Those of all parameters, by name."""
    return {name: bits(p) for name, p in parameters(model).items()}
