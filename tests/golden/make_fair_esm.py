"""Writes fair_esm_{1,1b,1v}.npz: small random models, and what fair-esm itself makes of them.

Needs torch and fair-esm 2.0.0, which the tests do not: pip install torch fair-esm==2.0.0 numpy
"""

import argparse
from pathlib import Path

import esm
import numpy as np
import torch

LAYERS, MAX_POSITIONS = 2, 24
SIZES = {"layers": LAYERS, "width": 8, "ffn": 16, "heads": 2, "max_positions": MAX_POSITIONS}


def random_model(architecture: str, sizes: dict[str, int], **switches: bool) -> torch.nn.Module:
    alphabet = esm.Alphabet.from_architecture(architecture)
    args = argparse.Namespace(
        arch=architecture,
        layers=sizes["layers"],
        embed_dim=sizes["width"],
        ffn_embed_dim=sizes["ffn"],
        attention_heads=sizes["heads"],
        max_positions=sizes["max_positions"],
        **switches,
    )
    model = esm.ProteinBertModel(args, alphabet)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        model.embed_tokens.weight[alphabet.padding_idx] = 0
    return model.eval()


def some_tokens(alphabet: esm.Alphabet) -> np.ndarray:
    """(4, 24): full length, padded, with masks and <unk>, and all masked but cls and eos."""
    rng = np.random.default_rng(0)
    tokens = np.ones((4, MAX_POSITIONS), dtype=np.int64)
    for row, residues in enumerate((22, 13, 17, 5)):
        eos = [alphabet.eos_idx] * alphabet.append_eos
        protein = [alphabet.cls_idx, *rng.integers(4, 31, residues), *eos]
        tokens[row, : len(protein)] = protein
    mask = alphabet.mask_idx
    tokens[1, 3:6] = mask
    tokens[2, [1, 9, 17]], tokens[2, 10] = mask, alphabet.unk_idx
    tokens[3, 1:6] = mask
    return tokens if alphabet.append_eos else tokens[:, :-1]


def main() -> None:
    roberta = {"token_dropout": True, "emb_layer_norm_before": True}
    for name, architecture, switches in (
        ("1", "protein_bert_base", {"final_bias": True}),
        ("1b", "roberta_large", roberta),
        ("1v", "roberta_large", {**roberta, "emb_layer_norm_before": False}),
    ):
        torch.manual_seed(0)
        model = random_model(architecture, SIZES, **switches)
        tokens = some_tokens(esm.Alphabet.from_architecture(architecture))
        with torch.no_grad():
            out = model(
                torch.tensor(tokens), repr_layers=list(range(LAYERS + 1)), return_contacts=True
            )
        state = {
            key: value.numpy()
            for key, value in model.state_dict().items()
            # The one is tied to the token table, the other has no meaning.
            if key not in ("lm_head.weight", "embed_positions._float_tensor")
        }
        np.savez_compressed(
            Path(__file__).with_name(f"fair_esm_{name}.npz"),
            tokens=tokens,
            logits=out["logits"].numpy(),
            representations=np.stack([out["representations"][i].numpy() for i in range(3)]),
            contacts=out["contacts"].numpy(),
            **{f"model.{key}": value for key, value in state.items()},
        )


if __name__ == "__main__":
    main()
