"""Writes small genuine checkpoints, and what the library that wrote them makes of some tokens.

    fair_esm_{1,1b}.pt and their contact regressions    torch.save, as fair-esm's files are
    hugging_face/                                       transformers' save_pretrained
    *_outputs.npz                                       tokens, logits and contacts of each

Needs the extra "oracle", which the tests do not.
"""

import argparse
from pathlib import Path

import esm
import numpy as np
import torch
from make_fair_esm import random_model
from transformers import EsmConfig, EsmForMaskedLM

HERE = Path(__file__).parent
SIZES = {"layers": 1, "width": 4, "ffn": 8, "heads": 2, "max_positions": 12}


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


def hugging_face() -> None:
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=33,
        pad_token_id=1,
        mask_token_id=32,
        hidden_size=SIZES["width"],
        num_hidden_layers=SIZES["layers"],
        num_attention_heads=SIZES["heads"],
        intermediate_size=SIZES["ffn"],
        max_position_embeddings=SIZES["max_positions"] + 2,
        position_embedding_type="absolute",
        layer_norm_eps=1e-5,
        token_dropout=True,
        emb_layer_norm_before=True,
        attn_implementation="eager",
    )
    model = EsmForMaskedLM(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1.0)
        model.esm.embeddings.word_embeddings.weight[1] = 0
    model.save_pretrained(HERE / "hugging_face")
    (HERE / "hugging_face" / "model.safetensors").chmod(0o644)
    rows = tokens(0, 32, 2)
    attention_mask = (rows != 1).long()
    with torch.no_grad():
        logits = model(rows, attention_mask=attention_mask).logits
        contacts = model.esm.predict_contacts(rows, attention_mask)
    save_outputs("hugging_face", rows, {"logits": logits, "contacts": contacts})


def save_outputs(name: str, rows: torch.Tensor, out: dict[str, torch.Tensor]) -> None:
    arrays = {key: out[key].detach().numpy() for key in ("logits", "contacts")}
    np.savez_compressed(HERE / f"{name}_outputs.npz", tokens=rows.numpy(), **arrays)


def main() -> None:
    prefix = {"": "encoder.sentence_encoder.", "lm_head": "encoder."}
    switches = {"token_dropout": True, "emb_layer_norm_before": True}
    fair_esm("1b", "roberta_large", prefix, **switches)
    fair_esm("1", "protein_bert_base", {"": "decoder."}, final_bias=True)
    hugging_face()


if __name__ == "__main__":
    main()
