"""Embeddings in torch: fair-esm's and transformers' models with weights that are given.

Both as their users run them: eval and inference_mode, a mean over the residues of each protein.
fair-esm's model computes its logits too. Where no row is padded, transformers' gets no mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

from .torch_training import protein_bert

State = dict[str, torch.Tensor]


class FairEsm(nn.Module):
    """tokens (B, L) -> the last layer's vectors (B, L, C), of fair-esm's ProteinBertModel."""

    def __init__(self, config: ESM1Config, state: State) -> None:
        super().__init__()
        self.model, self.last = _fair_esm(config), config.num_layers
        del self.model.contact_head  # no weights for it, and no use here
        _load(self.model, {**state, "lm_head.weight": state["embed_tokens.weight"]})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self.model(tokens, repr_layers=[self.last])
        return found["representations"][self.last]


def _fair_esm(config: ESM1Config) -> Any:
    if not config.rotary_positions:
        return protein_bert(config)
    import esm

    return esm.ESM2(
        config.num_layers,
        config.embed_dim,
        config.num_heads,
        token_dropout=config.token_dropout,
    )


def _load(model: nn.Module, state: State) -> None:
    """All that has a number but the speeds of rotary positions, which a model makes itself."""
    missing, unknown = model.load_state_dict(state, strict=False)
    assert all(name.endswith("inv_freq") for name in missing), missing
    assert not unknown, unknown


class Transformers(nn.Module):
    """tokens (B, L) -> the last layer's vectors (B, L, C), of transformers' EsmModel (SDPA)."""

    def __init__(self, config: ESM1Config, state: State) -> None:
        super().__init__()
        import transformers

        sizes = transformers.EsmConfig(
            vocab_size=config.vocab_size,
            pad_token_id=config.padding_idx,
            mask_token_id=config.mask_idx,
            hidden_size=config.embed_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            intermediate_size=config.ffn_dim,
            max_position_embeddings=config.num_position_rows,
            position_embedding_type="rotary" if config.rotary_positions else "absolute",
            layer_norm_eps=config.layer_norm_eps,
            token_dropout=config.token_dropout,
            emb_layer_norm_before=config.emb_layer_norm_before,
        )
        self.model = transformers.EsmModel(sizes, add_pooling_layer=False)
        del self.model.contact_head
        self.padding_idx = config.padding_idx
        renamed = {name_in_transformers(name): tensor for name, tensor in state.items()}
        _load(
            self.model,
            {
                name.removeprefix("esm."): tensor
                for name, tensor in renamed.items()
                if not name.startswith("lm_head")
            },
        )

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        real = tokens != self.padding_idx
        mask = None if bool(real.all()) else real.long()
        return self.model(tokens, attention_mask=mask).last_hidden_state


MODELS: dict[str, Callable[[ESM1Config, State], nn.Module]] = {
    "fair-esm": FairEsm,
    "transformers": Transformers,
}


def torch_embedder(
    way: str, config: dict[str, Any], weights: dict[str, np.ndarray], dtype: str
) -> Callable[[list[list[int]]], Callable[[], np.ndarray]]:
    """A model of this way.

    Args:
        config: the fields of an ESM1Config.
        weights: float32, under our names, which are fair-esm's.

    Returns:
        From proteins, ids with cls and eos, to a function that gives the (n, C) float32 means over
        their residues.
    """
    kind = getattr(torch, dtype)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    model = MODELS[way](ESM1Config.from_dict(config), state).to(kind).eval()

    def prepare(proteins: list[list[int]]) -> Callable[[], np.ndarray]:
        shape = (len(proteins), max(map(len, proteins)))
        ids = torch.full(shape, ESM1B.padding_idx)
        shares = torch.zeros((shape[0], 1, shape[1]), dtype=kind)
        for row, protein in enumerate(proteins):
            ids[row, : len(protein)] = torch.tensor(protein)
            shares[row, 0, 1 : len(protein) - 1] = 1 / (len(protein) - 2)

        def run() -> np.ndarray:
            with torch.inference_mode():
                return torch.bmm(shares, model(ids))[:, 0].float().numpy()

        return run

    return prepare
