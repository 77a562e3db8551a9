"""Writes small genuine checkpoints, and what the library that wrote them makes of some tokens.

    fair_esm_{1,1b,2}.pt and their contact regressions    torch.save, as fair-esm's files are
    hugging_face/, hugging_face_esm2/                     transformers' save_pretrained
    *_outputs.npz                                         tokens, logits and contacts of each

Names on the command line have only those files written anew: fair_esm_2, hugging_face_esm2 ...

Needs the extra "oracle", which the tests do not.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import esm
import numpy as np
import torch
from make_fair_esm import random_model
from transformers import EsmConfig, EsmForMaskedLM

HERE = Path(__file__).parent
SIZES = {"layers": 1, "width": 4, "ffn": 8, "heads": 2, "max_positions": 12}
ESM2_SIZES = (1, 8, 2)  # layers, width, heads


def tokens(cls: int, mask: int, eos: int | None) -> torch.Tensor:
    """(2, 10): one protein with a mask, and a shorter one, padded."""
    rows = torch.ones(2, 10, dtype=torch.long)
    rows[0] = torch.tensor([cls, 20, 15, mask, 4, 5, 23, 9, 11, 6 if eos is None else eos])
    rows[1, :6] = torch.tensor([cls, 7, 7, 22, 30, 13 if eos is None else eos])
    return rows


def fair_esm(name: str, architecture: str, prefix: dict[str, str], **switches: bool) -> None:
    torch.manual_seed(0)
    model = random_model(architecture, SIZES, **switches)
    state = model.state_dict()
    regression = {k: state.pop(k) for k in list(state) if k.startswith("contact_head")}
    state = {prefix.get(k.split(".")[0], prefix[""]) + k: value for k, value in state.items()}
    torch.save({"args": model.args, "model": state}, HERE / f"fair_esm_{name}.pt")
    torch.save({"model": regression}, HERE / f"fair_esm_{name}-contact-regression.pt")
    with torch.serialization.safe_globals([argparse.Namespace]):
        model, _ = esm.pretrained.load_model_and_alphabet_local(str(HERE / f"fair_esm_{name}.pt"))
    model.eval()
    rows = tokens(model.cls_idx, model.mask_idx, model.eos_idx if model.append_eos else None)
    save_outputs(f"fair_esm_{name}", rows, model(rows, return_contacts=True))


def fair_esm_2() -> None:
    torch.manual_seed(0)
    layers, width, heads = ESM2_SIZES
    model = randomised(esm.ESM2(layers, width, heads))
    state = model.state_dict()
    regression = {k: state.pop(k) for k in list(state) if k.startswith("contact_head")}
    state = {
        ("encoder." if k.startswith("lm_head") else "encoder.sentence_encoder.") + k: value
        for k, value in state.items()
    }
    cfg = argparse.Namespace(
        encoder_layers=layers,
        encoder_embed_dim=width,
        encoder_attention_heads=heads,
        token_dropout=True,
    )
    torch.save({"cfg": {"model": cfg}, "model": state}, HERE / "fair_esm_2.pt")
    torch.save({"model": regression}, HERE / "fair_esm_2-contact-regression.pt")
    rows = tokens(0, 32, 2)
    with torch.no_grad():
        save_outputs("fair_esm_2", rows, model.eval()(rows, return_contacts=True))


def hugging_face(name: str, layers: int, width: int, heads: int, **switches: Any) -> None:
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=SIZES["max_positions"] + 2,
        layer_norm_eps=1e-5,
        token_dropout=True,
        attn_implementation="eager",
        **switches,
    )
    model = randomised(EsmForMaskedLM(config).eval())
    with torch.no_grad():
        model.esm.embeddings.word_embeddings.weight[1] = 0
    model.save_pretrained(HERE / name)
    (HERE / name / "model.safetensors").chmod(0o644)
    rows = tokens(0, 32, 2)
    attention_mask = (rows != 1).long()
    with torch.no_grad():
        logits = model(rows, attention_mask=attention_mask).logits
        contacts = model.esm.predict_contacts(rows, attention_mask)
    save_outputs(name, rows, {"logits": logits, "contacts": contacts})


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1.0)
    return model


def save_outputs(name: str, rows: torch.Tensor, out: dict[str, torch.Tensor]) -> None:
    arrays = {key: out[key].detach().numpy() for key in ("logits", "contacts")}
    np.savez_compressed(HERE / f"{name}_outputs.npz", tokens=rows.numpy(), **arrays)


def main() -> None:
    prefix = {"": "encoder.sentence_encoder.", "lm_head": "encoder."}
    switches = {"token_dropout": True, "emb_layer_norm_before": True}
    sizes = (SIZES["layers"], SIZES["width"], SIZES["heads"])
    learned: dict[str, Any] = {
        "intermediate_size": SIZES["ffn"],
        "position_embedding_type": "absolute",
        "emb_layer_norm_before": True,
    }
    rotary: dict[str, Any] = {
        "intermediate_size": 4 * ESM2_SIZES[1],
        "position_embedding_type": "rotary",
        "emb_layer_norm_before": False,
    }
    made: dict[str, Callable[[], None]] = {
        "fair_esm_1b": lambda: fair_esm("1b", "roberta_large", prefix, **switches),
        "fair_esm_1": lambda: fair_esm("1", "protein_bert_base", {"": "decoder."}, final_bias=True),
        "fair_esm_2": fair_esm_2,
        "hugging_face": lambda: hugging_face("hugging_face", *sizes, **learned),
        "hugging_face_esm2": lambda: hugging_face("hugging_face_esm2", *ESM2_SIZES, **rotary),
    }
    for name in sys.argv[1:] or made:
        made[name]()


if __name__ == "__main__":
    main()
