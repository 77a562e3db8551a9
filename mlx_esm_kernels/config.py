"""The shape of an ESM-1 model: one frozen dataclass, and the presets by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ESM1Config:
    """Sizes and switches of an ESM-1 model with learned positions (ESM-1b, ESM-1v).

    Attributes:
        num_layers: transformer layers.
        embed_dim: width C of the residual stream.
        ffn_dim: width of the feed-forward layer; 4 x embed_dim in the released models.
        num_heads: attention heads H; C must be a multiple of it.
        max_positions: longest protein in tokens, cls and eos counted. The position table has
            ``max_positions + padding_idx + 1`` rows, since positions count from padding_idx + 1.
        vocab_size: tokens V.
        padding_idx, mask_idx, cls_idx, eos_idx: ids of the special tokens.
        token_dropout: rows of masked tokens are zeroed and the others rescaled, see ops.
        emb_layer_norm_before: LayerNorm after the embedding (ESM-1b has it, ESM-1v has not).
        layer_norm_eps: epsilon of every LayerNorm.
    """

    num_layers: int
    embed_dim: int
    ffn_dim: int
    num_heads: int
    max_positions: int = 1024
    vocab_size: int = 33
    padding_idx: int = 1
    mask_idx: int = 32
    cls_idx: int = 0
    eos_idx: int = 2
    token_dropout: bool = True
    emb_layer_norm_before: bool = True
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = ("num_layers", "embed_dim", "ffn_dim", "num_heads", "max_positions", "vocab_size")
        for name in sizes:
            _require_int(name, getattr(self, name), 1, None)
        for name in ("padding_idx", "mask_idx", "cls_idx", "eos_idx"):
            _require_int(name, getattr(self, name), 0, self.vocab_size)
        for name in ("token_dropout", "emb_layer_norm_before"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(
                    f"[ESM1Config] {name} must be True or False; got {getattr(self, name)!r}."
                )
        if self.embed_dim % self.num_heads != 0:
            raise ValueError(
                f"[ESM1Config] embed_dim must be a multiple of num_heads; "
                f"got embed_dim {self.embed_dim} and num_heads {self.num_heads}."
            )
        if not isinstance(self.layer_norm_eps, float) or not 0 < self.layer_norm_eps < 1:
            raise ValueError(
                f"[ESM1Config] layer_norm_eps must be a float between 0 and 1; "
                f"got {self.layer_norm_eps!r}."
            )

    @property
    def head_dim(self) -> int:
        """Width D of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def num_position_rows(self) -> int:
        """Rows of the position table: unused rows 0..padding_idx, then one per position."""
        return self.max_positions + self.padding_idx + 1

    @property
    def max_residues(self) -> int:
        """Longest protein in residues: the position table less cls and eos."""
        return self.max_positions - 2

    def to_dict(self) -> dict[str, Any]:
        """The fields as a plain dict, ready for json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ESM1Config:
        """The config of `to_dict`; raises ValueError that names unknown or missing fields."""
        known = {field.name for field in dataclasses.fields(cls)}
        required = {
            field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING
        }
        unknown, missing = sorted(set(fields) - known), sorted(required - set(fields))
        if unknown:
            raise ValueError(f"[ESM1Config] unknown fields: {', '.join(unknown)}.")
        if missing:
            raise ValueError(f"[ESM1Config] missing fields: {', '.join(missing)}.")
        return cls(**fields)


def _require_int(name: str, value: object, low: int, end: int | None) -> None:
    wanted = f"at least {low}" if end is None else f"from {low} to {end - 1}"
    # bool is an int in Python, but "num_layers=True" is a mistake.
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"[ESM1Config] {name} must be an integer {wanted}; got {value!r}.")
    if value < low or (end is not None and value >= end):
        raise ValueError(f"[ESM1Config] {name} must be {wanted}; got {value}.")


# The three first train on a desk, the two last are the released sizes (652 M parameters).
PRESETS: dict[str, ESM1Config] = {
    "small": ESM1Config(num_layers=4, embed_dim=64, ffn_dim=256, num_heads=4),
    "medium": ESM1Config(num_layers=6, embed_dim=320, ffn_dim=1280, num_heads=20),
    "large": ESM1Config(num_layers=6, embed_dim=768, ffn_dim=3072, num_heads=12),
    "esm1b_t33_650M_UR50S": ESM1Config(num_layers=33, embed_dim=1280, ffn_dim=5120, num_heads=20),
    "esm1v_t33_650M_UR90S": ESM1Config(
        num_layers=33, embed_dim=1280, ffn_dim=5120, num_heads=20, emb_layer_norm_before=False
    ),
}
