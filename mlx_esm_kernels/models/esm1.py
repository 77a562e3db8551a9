"""The models of the ESM family (ESM-1, ESM-1b, ESM-1v, ESM-2), on this package's ops.

Parameters bear fair-esm's names. `reference.ESM1Reference` is the same model in plain MLX.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..data.alphabet import Alphabet
from ..ops import linear, note_use, positional_embedding, rotary_angles
from ..system.errors import UserError
from .config import PRESETS, ESM1Config
from .contact_head import ContactHead, ContactMap, ContactSum, require_contact_head
from .contact_rows import ContactRows
from .dtypes import DTYPES
from .int8 import int8_layers
from .layers import Embedding, LayerNorm, whole_table
from .low_rank import base_parameters
from .positions import sinusoidal_positions
from .transformer import LMHead, TransformerLayer

__all__ = [
    "ESM1",
    "PRESETS",
    "ESM1Config",
    "describe",
    "predict_contact_rows",
    "predict_contacts",
]

# Numbers in an L x L array from which on contacts are made by rows: half a dozen of them are needed
# where they are made at once, 64 MiB each.
_WHOLE_MAP = 1 << 24


class ESM1(nn.Module):
    """A pre-LN transformer; `ESM1Config` says which of the family.

    A new model is initialised as in BERT and fairseq: embeddings N(0, 0.02), or N(0, 1 / C) where
    they are scaled by sqrt(C), Xavier-uniform projections (those of q, k and v with gain
    1 / sqrt 2), zero biases.

    Args:
        config: sizes and switches.
        alphabet: what its token ids mean. Default: that of a released model, if one fits.
        lazy: leave initial values to be computed when they are used, for one who puts others in the
            place of all.

    Attributes:
        config, alphabet: as given.
        checkpointing: bool, keep of each layer only what goes into it, and compute the layer again
            for the gradient: less memory, a third more work. False in a new model.

    Raises:
        ValueError: the alphabet does not fit the config, or none is known that does.
    """

    def __init__(self, config: ESM1Config, alphabet: Alphabet | None = None, *, lazy: bool = False):
        super().__init__()
        note_use()
        self.config = config
        self.checkpointing = False
        self.alphabet = config.known_alphabet() if alphabet is None else alphabet
        if disagreement := config.disagreement(self.alphabet):
            raise ValueError(f"[ESM1] the alphabet does not fit the model: {disagreement}.")
        width, eps = config.embed_dim, config.layer_norm_eps
        deviation = width**-0.5 if config.scale_embedding else 0.02
        self.embed_tokens = Embedding(config.vocab_size, width, config.padding_idx, deviation)
        if config.has_position_table:
            self.embed_positions = Embedding(config.num_position_rows, width, config.padding_idx)
        if config.emb_layer_norm_before:
            self.emb_layer_norm_before = LayerNorm(width, eps)
        self.layers = [TransformerLayer(config) for _ in range(config.num_layers)]
        if config.emb_layer_norm_after:
            self.emb_layer_norm_after = LayerNorm(width, eps)
        if config.language_head and config.tied_output:
            self.lm_head = LMHead(config)
        elif config.language_head:
            self.embed_out = mx.random.normal((config.vocab_size, width), scale=width**-0.5)
            self.embed_out_bias = mx.zeros((config.vocab_size,))
        if config.contact_head:
            self.contact_head = ContactHead(config)
        if not lazy:  # lest another thread be asked for numbers of this one's stream
            mx.eval(self.parameters())

    def __call__(
        self,
        tokens: mx.array,
        segment_ids: mx.array | None = None,
        *,
        repr_layers: Collection[int] = (),
        return_contacts: bool = False,
    ) -> dict[str, Any]:
        """Logits, and the representations and contacts that are asked for.

        Args:
            tokens: (B, L) integer; the residues of each protein, with the cls and eos that the
                alphabet puts around them.
            segment_ids: (B, L) integer, 0 = padding, for several proteins packed into one row;
                None: each row is one protein, padded with config.padding_idx.
            repr_layers: which representations to return. 0 is the embedding, i the output of
                layer i, num_layers the last one, after emb_layer_norm_after if there is one.
            return_contacts: whether to return contacts; each row must then be one protein.

        Returns:
            {"logits": (B, L, V), "representations": {layer: (B, L, C)}}, in the dtype of the
            parameters; no logits where the model has no language head. With return_contacts also
            "contacts": (B, L', L') float32, the probability that two residues touch, L' = L less
            cls and eos. What rows of padding hold means nothing.

        Raises:
            ValueError: bad shapes, dtypes, ids or layers, a protein longer than a learned position
                table, or contacts of a model that has no regression for them, or of packed rows.
        """
        for layer in repr_layers:
            if not 0 <= layer <= self.config.num_layers:
                raise ValueError(
                    f"[ESM1] repr_layers must be from 0 to {self.config.num_layers}; got {layer}."
                )
        if return_contacts:
            require_contact_head(self.config)
            if segment_ids is not None:
                raise ValueError(
                    "[ESM1] contacts are predicted for one protein in each row: leave out "
                    "segment_ids."
                )
        segment_ids = self._segments(tokens, segment_ids)
        contacts = None
        if return_contacts:
            contacts = ContactMap(self.contact_head, self.config, tokens, segment_ids != 0)
        x, representations = self._run(tokens, segment_ids, frozenset(repr_layers), contacts)
        out: dict[str, Any] = {"representations": representations}
        if self.config.language_head:
            out["logits"] = self.head(x)
        return out if contacts is None else {**out, "contacts": contacts.contacts()}

    def encode(self, tokens: mx.array, segment_ids: mx.array | None = None) -> mx.array:
        """tokens (B, L) -> the last representation (B, L, C); arguments as in the call."""
        return self._run(tokens, self._segments(tokens, segment_ids), frozenset(), None)[0]

    def head(self, x: mx.array) -> mx.array:
        """x (..., C) of `encode`, or some of its rows -> logits (..., V)."""
        require_language_head(self.config)
        if self.config.tied_output:
            return self.lm_head(x, self.embed_tokens)
        return linear(x, self.embed_out, self.embed_out_bias)

    def _run(
        self,
        tokens: mx.array,
        segment_ids: mx.array,
        repr_layers: frozenset[int],
        contacts: ContactSum | None,
    ) -> tuple[mx.array, dict[int, mx.array]]:
        config = self.config
        x = self._embed(tokens, segment_ids)
        shape = x.shape
        representations = {0: x} if 0 in repr_layers else {}
        # As rows, once: all but attention works on rows, and each reshape is a node of the graph.
        x = x.reshape(tokens.size, config.embed_dim)
        angles = None
        if config.rotary_positions:
            rounded_to = DTYPES[config.frequency_dtype]
            angles = rotary_angles(segment_ids, config.head_dim, rounded_to=rounded_to)
        for number, layer in enumerate(self.layers, start=1):
            if self.checkpointing and contacts is None:
                x = nn.utils.checkpoint(layer)(x, segment_ids, None, angles)
            else:
                x = layer(x, segment_ids, contacts, angles)
            if number == config.num_layers and config.emb_layer_norm_after:
                x = self.emb_layer_norm_after(x)
            if number in repr_layers:
                representations[number] = x.reshape(shape)
        return x.reshape(shape), representations

    def _embed(self, tokens: mx.array, segment_ids: mx.array) -> mx.array:
        """tokens (B, L) -> representation 0, (B, L, C)."""
        config = self.config
        token_table = whole_table(self.embed_tokens, config.vocab_size)
        if config.scale_embedding:
            token_table = token_table * config.embed_dim**0.5
        if config.sinusoidal_positions:
            rows = tokens.shape[-1] + config.padding_idx + 1
            table = sinusoidal_positions(rows, config.embed_dim, config.padding_idx)
            position_table = mx.array(table).astype(token_table.dtype)
        elif config.rotary_positions:
            # The op clears padding and drops tokens; what it adds is nothing, one row of it.
            rows = tokens.shape[-1] + config.padding_idx + 1
            nothing = mx.zeros((1, config.embed_dim), token_table.dtype)
            position_table = mx.broadcast_to(nothing, (rows, config.embed_dim))
        else:
            position_table = whole_table(self.embed_positions, config.num_position_rows)
        x = positional_embedding(
            tokens,
            token_table,
            position_table,
            padding_idx=config.padding_idx,
            mask_idx=config.mask_idx if config.token_dropout else None,
            segment_ids=segment_ids,
        )
        # fair-esm clears padding once more after the LayerNorm. Nothing sees padding, so that
        # changes nothing.
        return self.emb_layer_norm_before(x) if config.emb_layer_norm_before else x

    def _segments(self, tokens: mx.array, segment_ids: mx.array | None) -> mx.array:
        """The segment ids (B, L) with 0 at every padding token, as the ops want them: int64."""
        real = tokens != self.config.padding_idx
        if segment_ids is None:
            return real.astype(mx.int64)
        if segment_ids.shape != tokens.shape:
            raise ValueError(
                f"[ESM1] segment_ids must have the shape of tokens (B, L) = {tokens.shape}; "
                f"got {segment_ids.shape}."
            )
        if segment_ids.dtype != mx.bool_ and not mx.issubdtype(segment_ids.dtype, mx.integer):
            raise ValueError(
                f"[ESM1] segment_ids must be of an integer dtype or bool; got {segment_ids.dtype}."
            )
        return mx.where(real, segment_ids.astype(mx.int64), 0)


def require_language_head(config: ESM1Config) -> None:
    """Raise UserError where a model of this config gives embeddings alone."""
    if not config.language_head:
        raise UserError(
            "this model has no language head, so it gives embeddings alone; what is to be "
            "scored, generated or trained needs one, as in EsmForMaskedLM."
        )


def predict_contacts(model: ESM1, tokens: mx.array) -> mx.array:
    """The contacts of one protein, in O(L^2) memory whatever the number of layers and heads.

    Args:
        model: with a contact regression (`model.config.contact_head`).
        tokens: (L,) integer, the residues with the cls and eos of the model's alphabet.

    Returns:
        (L', L') float32 in [0, 1], symmetric; L' = L less cls and eos.

    Raises:
        ValueError: tokens are not (L,), or what the model's call raises.
    """
    rows = list(predict_contact_rows(model, tokens))
    return mx.concatenate(rows) if len(rows) > 1 else rows[0]


def predict_contact_rows(
    model: ESM1, tokens: mx.array, on_step: Callable[[float], object] = lambda share: None
) -> Iterator[mx.array]:
    """The contacts of one protein, some rows at a time.

    The memory beside a few of them is O(L), however long the protein. Where that is short all rows
    come at once; where it is long they take three times the work, and their values differ from
    those of `model(..., return_contacts=True)` by rounding.

    Args:
        model, tokens: as of `predict_contacts`.
        on_step: called with the share of the work that was done since the last call.

    Yields:
        (n, L') float32, the next n rows of what `predict_contacts` gives.

    Raises:
        ValueError: as there, when the first rows are asked for.
    """
    if tokens.ndim != 1:
        raise ValueError(f"[predict_contacts] tokens must be (L,); got shape {tokens.shape}.")
    require_contact_head(model.config)
    if tokens.size**2 <= _WHOLE_MAP:
        contacts = model(tokens[None], return_contacts=True)["contacts"][0]
        mx.eval(contacts)
        on_step(1.0)
        yield contacts
        return
    segment_ids = model._segments(tokens[None], None)
    by_rows = ContactRows(model.contact_head, model.config, tokens, segment_ids[0] != 0)
    model._run(tokens[None], segment_ids, frozenset(), by_rows)
    yield from by_rows.rows(on_step)


def describe(model: ESM1) -> str:
    """Its size in words, less that of an adapter: `652.4 M parameters (33 layers, width 1280, 20
    heads)`."""
    config = model.config
    size = sum(parameter.size for parameter in base_parameters(model).values())
    shown = f"{size / 1e6:.1f} M" if size >= 1e6 else f"{size:,}"
    return (
        f"{shown} parameters ({config.num_layers} layers, width {config.embed_dim}, "
        f"{config.num_heads} heads{', int8' if int8_layers(model) else ''})"
    )
