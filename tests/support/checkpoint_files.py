"""Weights files of other programs, made from a model of ours, for tests to load and to spoil."""

import argparse
import json

import mlx.core as mx
import numpy as np
from random_models import parameters

from mlx_esm_kernels.models.esm1 import ESM1, ESM1Config
from mlx_esm_kernels.weights.first_mlx_esm import FIRST_MLX_ESM, name_in_first_mlx_esm
from mlx_esm_kernels.weights.hugging_face import name_in_transformers

SIZES = {"num_layers": 2, "embed_dim": 8, "ffn_dim": 16, "num_heads": 2}
ESM1B_CONFIG = ESM1Config(**SIZES, max_positions=24, contact_head=True)
ESM1_CONFIG = ESM1Config.esm1(**SIZES, contact_head=True)
ESM2_CONFIG = ESM1Config.esm2(2, 8, 2, contact_head=True)


def random_model(config, seed=0):
    mx.random.seed(seed)
    model = ESM1(config, FIRST_MLX_ESM if config.disagreement(FIRST_MLX_ESM) is None else None)
    if config.has_position_table:
        # As after fair-esm's loader, which clears the row.
        model.embed_tokens.weight[config.mask_idx] = 0
    return model


def fair_esm_parts(model):
    """(data, regression), what the two .pt files of fair-esm hold."""
    import torch

    config = model.config
    if config.rotary_positions:
        return _esm2_parts(model)
    args = argparse.Namespace(
        layers=config.num_layers,
        embed_dim=config.embed_dim,
        ffn_embed_dim=config.ffn_dim,
        attention_heads=config.num_heads,
    )
    state = {name: torch.from_numpy(np.array(p)) for name, p in parameters(model).items()}
    regression = {name: state.pop(name) for name in list(state) if name.startswith("contact_head")}
    if config.tied_output:
        args.arch, args.max_positions = "roberta_large", config.max_positions
        args.token_dropout = config.token_dropout
        state["lm_head.weight"] = state["embed_tokens.weight"]
        state = {
            ("encoder." if name.startswith("lm_head") else "encoder.sentence_encoder.") + name: p
            for name, p in state.items()
        }
    else:
        args.arch, args.final_bias = "protein_bert_base", True
        state["embed_positions._float_tensor"] = torch.zeros(1)
        state = {"decoder." + name: p for name, p in state.items()}
    return {"args": args, "model": state}, {"model": regression}


def _esm2_parts(model):
    import torch

    config = model.config
    args = argparse.Namespace(
        encoder_layers=config.num_layers,
        encoder_embed_dim=config.embed_dim,
        encoder_attention_heads=config.num_heads,
        token_dropout=config.token_dropout,
    )
    state = {name: torch.from_numpy(np.array(p)) for name, p in parameters(model).items()}
    regression = {name: state.pop(name) for name in list(state) if name.startswith("contact_head")}
    state["lm_head.weight"] = state["embed_tokens.weight"]
    for layer in range(config.num_layers):
        state[f"layers.{layer}.self_attn.rot_emb.inv_freq"] = torch.tensor(frequencies(config))
    state = {
        ("encoder." if name.startswith("lm_head") else "encoder.sentence_encoder.") + name: p
        for name, p in state.items()
    }
    return {"cfg": {"model": args}, "args": None, "model": state}, {"model": regression}


def frequencies(config):
    """What files of ESM-2 hold as inv_freq."""
    places = np.arange(0, config.head_dim, 2)
    return (10_000.0 ** (-places / config.head_dim)).astype(np.float32)


def write_fair_esm(path, model, change=lambda data, regression: None):
    """NAME.pt, and NAME-contact-regression.pt beside it, after change(data, regression)."""
    import torch

    data, regression = fair_esm_parts(model)
    change(data, regression)
    torch.save(data, path)
    if regression["model"]:
        torch.save(regression, path.with_name(f"{path.stem}-contact-regression.pt"))
    return path


def write_hugging_face(folder, model, change=lambda config, tensors: None):
    """A folder of transformers with model.safetensors, after change(config, tensors)."""
    config = {
        "model_type": "esm",
        "vocab_size": 33,
        "pad_token_id": 1,
        "mask_token_id": 32,
        "hidden_size": model.config.embed_dim,
        "num_hidden_layers": model.config.num_layers,
        "num_attention_heads": model.config.num_heads,
        "intermediate_size": model.config.ffn_dim,
        "max_position_embeddings": model.config.num_position_rows,
        "position_embedding_type": "rotary" if model.config.rotary_positions else "absolute",
        "layer_norm_eps": 1e-5,
        "token_dropout": True,
        "emb_layer_norm_before": model.config.emb_layer_norm_before,
    }
    tensors = {name_in_transformers(name): p for name, p in parameters(model).items()}
    change(config, tensors)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if tensors:
        mx.save_safetensors(str(folder / "model.safetensors"), tensors)
    return folder


def write_first_mlx_esm(path, model, change=lambda arrays: None):
    """An .npz of the first mlx-esm, after change(arrays)."""
    arrays = {name_in_first_mlx_esm(name): np.array(p) for name, p in parameters(model).items()}
    change(arrays)
    np.savez(path, **arrays)
    return path
