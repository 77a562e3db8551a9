"""Writes fair_esm_{1b,1v}.npz: small random models, and what fair-esm itself makes of them.

Needs torch and fair-esm 2.0.0, which the tests do not: pip install torch fair-esm==2.0.0 numpy
"""

import argparse
from pathlib import Path

import esm
import numpy as np
import torch

LAYERS, WIDTH, FFN, HEADS, MAX_POSITIONS = 2, 8, 16, 2, 24


def random_model(layer_norm_before: bool) -> torch.nn.Module:
    alphabet = esm.Alphabet.from_architecture("roberta_large")
    sizes = argparse.Namespace(
        arch="roberta_large",
        layers=LAYERS,
        embed_dim=WIDTH,
        ffn_embed_dim=FFN,
        attention_heads=HEADS,
        max_positions=MAX_POSITIONS,
        token_dropout=True,
        emb_layer_norm_before=layer_norm_before,
    )
    model = esm.ProteinBertModel(sizes, alphabet)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        model.embed_tokens.weight[alphabet.padding_idx] = 0
    return model.eval()


def some_tokens() -> np.ndarray:
    """(4, 24): full length, padded, with masks and <unk>, and all masked but cls and eos."""
    rng = np.random.default_rng(0)
    tokens = np.ones((4, MAX_POSITIONS), dtype=np.int64)
    for row, residues in enumerate((22, 13, 17, 5)):
        tokens[row, : residues + 2] = [0, *rng.integers(4, 31, residues), 2]
    tokens[1, 3:6] = 32
    tokens[2, [1, 9, 17]], tokens[2, 10] = 32, 3
    tokens[3, 1:6] = 32
    return tokens


def main() -> None:
    for name, layer_norm_before in (("1b", True), ("1v", False)):
        torch.manual_seed(0)
        model, tokens = random_model(layer_norm_before), some_tokens()
        with torch.no_grad():
            out = model(torch.tensor(tokens), repr_layers=list(range(LAYERS + 1)))
        state = {
            key: value.numpy()
            for key, value in model.state_dict().items()
            if not key.startswith("contact_head") and key != "lm_head.weight"  # tied
        }
        np.savez_compressed(
            Path(__file__).with_name(f"fair_esm_{name}.npz"),
            tokens=tokens,
            logits=out["logits"].numpy(),
            representations=np.stack([out["representations"][i].numpy() for i in range(3)]),
            **{f"model.{key}": value for key, value in state.items()},
        )


if __name__ == "__main__":
    main()
