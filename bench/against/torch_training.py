"""Training steps in torch: fair-esm's model as its users run it, and torch's own encoder.

Both: AdamW (fused), gradients clipped to a norm of 1, cross-entropy over the masked positions of
logits that the LM head gives for all positions. Where no row is padded, neither gets a mask.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from mlx_esm_kernels.data.alphabet import ESM1B
from mlx_esm_kernels.data.masking import Masked
from mlx_esm_kernels.models.config import ESM1Config

IGNORED = -100  # the target that cross_entropy leaves out


def protein_bert(config: ESM1Config) -> Any:
    """fair-esm's ProteinBertModel, as ESM-1b."""
    import esm

    sizes = argparse.Namespace(
        arch="roberta_large",
        layers=config.num_layers,
        embed_dim=config.embed_dim,
        ffn_embed_dim=config.ffn_dim,
        attention_heads=config.num_heads,
        max_positions=config.max_positions,
        token_dropout=config.token_dropout,
        emb_layer_norm_before=config.emb_layer_norm_before,
    )
    return esm.ProteinBertModel(sizes, esm.Alphabet.from_architecture("roberta_large"))


def fair_esm(config: ESM1Config) -> nn.Module:
    """fair-esm's model as it is trained: tokens (B, L) -> logits (B, L, V)."""
    model = protein_bert(config)
    # No part of masked language modelling; AdamW would have no gradient for it.
    model.contact_head.requires_grad_(False)
    return _Logits(model)


class _Logits(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(tokens)["logits"]


class FusedEncoder(nn.Module):
    """The same sizes from torch.nn.TransformerEncoder, whose attention is the fused one.

    tokens (B, L) -> logits (B, L, V).
    """

    def __init__(self, config: ESM1Config) -> None:
        super().__init__()
        width = config.embed_dim
        self.embed_tokens = nn.Embedding(config.vocab_size, width, config.padding_idx)
        self.embed_positions = nn.Embedding(config.max_positions, width)
        self.norm = nn.LayerNorm(width)
        layer = nn.TransformerEncoderLayer(
            width,
            config.num_heads,
            config.ffn_dim,
            dropout=0.0,
            activation=F.gelu,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, config.num_layers, norm=nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.dense = nn.Linear(width, width)
        self.head_norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        for embedding in (self.embed_tokens, self.embed_positions):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padding = tokens == ESM1B.padding_idx
        mask = padding if bool(padding.any()) else None
        x = self.embed_tokens(tokens) + self.embed_positions.weight[: tokens.shape[1]]
        x = self.encoder(self.norm(x), src_key_padding_mask=mask)
        x = self.head_norm(F.gelu(self.dense(x)))
        return F.linear(x, self.embed_tokens.weight, self.bias)


MODELS: dict[str, Callable[[ESM1Config], nn.Module]] = {
    "fair-esm": fair_esm,
    "transformer-encoder": FusedEncoder,
}


def torch_steps(
    way: str, config: ESM1Config, batches: list[Masked], dtype: str, rate: float
) -> list[Callable[[], Any]]:
    """A function for each batch that takes one step of training on it and gives the loss."""
    torch.manual_seed(0)
    model = MODELS[way](config).to(getattr(torch, dtype)).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, fused=True)

    def step(inputs: torch.Tensor, targets: torch.Tensor) -> float:
        optimizer.zero_grad()
        logits = model(inputs)
        loss = F.cross_entropy(
            logits.view(-1, logits.shape[-1]).float(), targets, ignore_index=IGNORED
        )
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return [
        lambda inputs=inputs, targets=targets: step(inputs, targets)
        for inputs, targets in map(tensors_of, batches)
    ]


def tensors_of(masked: Masked) -> tuple[torch.Tensor, torch.Tensor]:
    """inputs (B, L), and targets (B * L,), IGNORED where there is no target."""
    targets = np.full(masked.inputs.size, IGNORED, np.int64)
    is_target = masked.weights > 0
    targets[masked.positions[is_target]] = masked.targets[is_target]
    return torch.from_numpy(masked.inputs.astype(np.int64)), torch.from_numpy(targets)
