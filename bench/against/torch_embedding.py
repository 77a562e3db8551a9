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

from mlx_esm_kernels.models.config import ESM1Config
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

from .torch_training import protein_bert

State = dict[str, torch.Tensor]


class FairEsm(nn.Module):
    """tokens (B, L) -> the last layer's vectors (B, L, C), of fair-esm's ProteinBertModel."""

    def __init__(self, config: ESM1Config, state: State) -> None:
        super().__init__()
        self.model, self.last = protein_bert(config), config.num_layers
        del self.model.contact_head  # no weights for it, and no use here
        self.model.load_state_dict({**state, "lm_head.weight": state["embed_tokens.weight"]})

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        found = self.model(tokens, repr_layers=[self.last])
        return found["representations"][self.last]


class Transformers(nn.Module):
    """tokens (B, L) -> the last layer's vectors (B, L, C), of transformers' EsmModel."""

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
            position_embedding_type="absolute",
            layer_norm_eps=config.layer_norm_eps,
            token_dropout=config.token_dropout,
            emb_layer_norm_before=config.emb_layer_norm_before,
        )
        self.model = transformers.EsmModel(sizes, add_pooling_layer=False)
        del self.model.contact_head
        self.padding_idx = config.padding_idx
        renamed = {name_in_transformers(name): tensor for name, tensor in state.items()}
        self.model.load_state_dict(
            {
                name.removeprefix("esm."): tensor
                for name, tensor in renamed.items()
                if not name.startswith("lm_head")
            }
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
    way: str, config: ESM1Config, weights: dict[str, np.ndarray], dtype: str
) -> Callable[[np.ndarray, np.ndarray], Callable[[], Any]]:
    """A model of this way.

    Args:
        weights: float32, under our names, which are fair-esm's.

    Returns:
        From tokens (B, L) and (B, 1, L) weights of their sum to a function that gives the (B, C)
        float32 sums, as a numpy array.
    """
    kind = getattr(torch, dtype)
    model = MODELS[way](config, {name: torch.from_numpy(array) for name, array in weights.items()})
    model = model.to(kind).eval()

    def prepare(tokens: np.ndarray, shares: np.ndarray) -> Callable[[], Any]:
        ids = torch.from_numpy(tokens.astype(np.int64))
        factors = torch.from_numpy(shares).to(kind)

        def run() -> np.ndarray:
            with torch.inference_mode():
                return torch.bmm(factors, model(ids))[:, 0].float().numpy()

        return run

    return prepare
