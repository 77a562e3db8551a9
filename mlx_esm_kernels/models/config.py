"""The shape of a model of the ESM family: one frozen dataclass, and the presets by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ..data.alphabet import ESM1_ALPHABET, ESM1B, Alphabet

_SIZES = ("num_layers", "embed_dim", "ffn_dim", "num_heads", "max_positions", "vocab_size")
_IDS = ("padding_idx", "mask_idx", "cls_idx", "eos_idx")
_OF_ALPHABET = (*_IDS, "prepend_cls", "append_eos")
# Which share of a protein is masked in training: 15 % (Rives et al. 2021); any, drawn uniformly
# (Alamdari et al. 2023); mostly some 25 %, at times any (Hayes et al. 2025). See `mask_for`.
OBJECTIVES = ("mlm", "diffusion", "mixed")


@dataclass(frozen=True)
class ESM1Config:
    """Sizes and switches of a model of the ESM family.

    The defaults are those of ESM-1b, which fair-esm calls `roberta_large`; `esm1` gives those of
    ESM-1 (`protein_bert_base`), `esm2` those of ESM-2.

    Attributes:
        num_layers: transformer layers.
        embed_dim: width C of the residual stream.
        ffn_dim: width of the feed-forward layer; 4 x embed_dim in the released models.
        num_heads: attention heads H; C must be a multiple of it.
        max_positions: longest protein in training, in tokens, cls and eos counted. A learned
            position table ends there, with ``max_positions + padding_idx + 1`` rows, since
            positions count from padding_idx + 1. Sinusoidal and rotary ones have no end.
        vocab_size: tokens V.
        padding_idx, mask_idx, cls_idx, eos_idx: ids of the special tokens.
        prepend_cls, append_eos: whether a protein stands between cls and eos; ESM-1 has no eos.
        token_dropout: rows of masked tokens are zeroed and the others rescaled, see ops.
        emb_layer_norm_before: LayerNorm after the embedding (ESM-1b has it, ESM-1v has not).
        emb_layer_norm_after: LayerNorm after the last layer.
        layer_norm_eps: epsilon of every LayerNorm.
        sinusoidal_positions: positions are sines and cosines, not a learned table.
        rotary_positions: queries and keys are turned by their positions, and there is no table.
        frequency_dtype: what the frequencies of rotary positions are rounded to before they are
            used, in float32. It is float16 in the released ESM-2, which was trained so: computed
            anew, they would turn tokens that are far apart too far or not far enough.
        scale_embedding: the token embedding is multiplied by sqrt(C).
        bias_kv: every attention has one more learned key and value, which every query sees.
        tied_output: logits come from dense, GELU, LayerNorm and the token table (`lm_head`);
            False: from one projection of its own (`embed_out`).
        language_head: there are logits at all; False: embeddings alone, as of EsmModel.
        contact_head: there is a regression from attentions to contacts.
        objective: what the weights were trained for, one of OBJECTIVES; it changes no result. With
            an adapter it is that of the base: the files of adapters do not say theirs.
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
    prepend_cls: bool = True
    append_eos: bool = True
    emb_layer_norm_after: bool = True
    sinusoidal_positions: bool = False
    rotary_positions: bool = False
    frequency_dtype: str = "float32"
    scale_embedding: bool = False
    bias_kv: bool = False
    tied_output: bool = True
    language_head: bool = True
    contact_head: bool = False
    objective: str = "mlm"

    def __post_init__(self) -> None:
        for name in _SIZES:
            _require_int(name, getattr(self, name), 1, None)
        for name in _IDS:
            _require_int(name, getattr(self, name), 0, self.vocab_size)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, bool) and not isinstance(value, bool):
                raise ValueError(f"[ESM1Config] {field.name} must be True or False; got {value!r}.")
        if self.embed_dim % self.num_heads != 0:
            raise ValueError(
                f"[ESM1Config] embed_dim must be a multiple of num_heads; "
                f"got embed_dim {self.embed_dim} and num_heads {self.num_heads}."
            )
        if self.rotary_positions and (self.sinusoidal_positions or self.head_dim % 2):
            raise ValueError(
                f"[ESM1Config] rotary_positions needs heads of an even width and no other "
                f"positions; got heads of {self.head_dim} and sinusoidal_positions "
                f"{self.sinusoidal_positions}."
            )
        if self.frequency_dtype not in (
            "float32",
            *["float16", "bfloat16"] * self.rotary_positions,
        ):
            raise ValueError(
                f"[ESM1Config] frequency_dtype must be float32, or with rotary_positions float16 "
                f"or bfloat16; got {self.frequency_dtype!r}."
            )
        if self.objective not in OBJECTIVES:
            raise ValueError(
                f"[ESM1Config] objective must be one of {OBJECTIVES}; got {self.objective!r}."
            )
        if self.sinusoidal_positions and (self.embed_dim % 2 or self.embed_dim < 4):
            raise ValueError(
                f"[ESM1Config] embed_dim must be even and at least 4 for sinusoidal positions; "
                f"got {self.embed_dim}."
            )
        if not isinstance(self.layer_norm_eps, float) or not 0 < self.layer_norm_eps < 1:
            raise ValueError(
                f"[ESM1Config] layer_norm_eps must be a float between 0 and 1; "
                f"got {self.layer_norm_eps!r}."
            )

    @classmethod
    def of(cls, alphabet: Alphabet, **fields: Any) -> ESM1Config:
        """A config whose vocabulary is that of an alphabet; `fields` are the other attributes."""
        ids = {name: getattr(alphabet, name) for name in _OF_ALPHABET}
        return cls(vocab_size=len(alphabet), **{**ids, **fields})

    @classmethod
    def esm1(cls, **fields: Any) -> ESM1Config:
        """A config of the ESM-1 architecture, fair-esm's `protein_bert_base`."""
        switches = {
            "token_dropout": False,
            "emb_layer_norm_before": False,
            "emb_layer_norm_after": False,
            "layer_norm_eps": 1e-12,
            "sinusoidal_positions": True,
            "scale_embedding": True,
            "bias_kv": True,
            "tied_output": False,
        }
        return cls.of(ESM1_ALPHABET, **{**switches, **fields})

    @classmethod
    def esm2(cls, num_layers: int, embed_dim: int, num_heads: int, **fields: Any) -> ESM1Config:
        """A config of ESM-2, with a feed-forward layer of 4 x embed_dim (Lin et al. 2022)."""
        switches = {"emb_layer_norm_before": False, "rotary_positions": True}
        sizes = {"num_layers": num_layers, "embed_dim": embed_dim, "num_heads": num_heads}
        return cls(**{**switches, "ffn_dim": 4 * embed_dim, **sizes, **fields})

    @property
    def has_position_table(self) -> bool:
        """Whether positions are learned."""
        return not self.sinusoidal_positions and not self.rotary_positions

    @property
    def head_dim(self) -> int:
        """Width D of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def num_position_rows(self) -> int:
        """Rows of the position table: unused rows 0..padding_idx, then one per position."""
        return self.max_positions + self.padding_idx + 1

    @property
    def trained_residues(self) -> int:
        """Longest protein in training, in residues: max_positions less cls and eos."""
        return self.max_positions - int(self.prepend_cls) - int(self.append_eos)

    @property
    def max_residues(self) -> int | None:
        """Longest protein that the model takes, in residues; None: there is no longest."""
        return self.trained_residues if self.has_position_table else None

    def known_alphabet(self) -> Alphabet:
        """The alphabet of a released model that fits this config; ValueError where none does."""
        for alphabet in (ESM1B, ESM1_ALPHABET):
            if self.disagreement(alphabet) is None:
                return alphabet
        raise ValueError(
            "[ESM1Config] no known alphabet has these token ids; give the model its alphabet."
        )

    def disagreement(self, alphabet: Alphabet) -> str | None:
        """The first thing in which the config and an alphabet differ, in words; None: nothing."""
        if self.vocab_size != len(alphabet):
            return f"vocab_size is {self.vocab_size}, the alphabet has {len(alphabet)} tokens"
        for name in _OF_ALPHABET:
            wanted, got = getattr(self, name), getattr(alphabet, name)
            if wanted != got:
                return f"{name} is {wanted} in the config and {got} in the alphabet"
        return None

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


# The three first train on a desk, the others are the released sizes (8 M to 15 B parameters).
# The former learn to generate as well, the latter what they were released as: see docs/training.md.
_OURS: dict[str, Any] = {"objective": "mixed", "token_dropout": False}
PRESETS: dict[str, ESM1Config] = {
    "small": ESM1Config(num_layers=4, embed_dim=64, ffn_dim=256, num_heads=4, **_OURS),
    "medium": ESM1Config(num_layers=6, embed_dim=320, ffn_dim=1280, num_heads=20, **_OURS),
    "large": ESM1Config(num_layers=6, embed_dim=768, ffn_dim=3072, num_heads=12, **_OURS),
    "esm1b_t33_650M_UR50S": ESM1Config(num_layers=33, embed_dim=1280, ffn_dim=5120, num_heads=20),
    "esm1v_t33_650M_UR90S": ESM1Config(
        num_layers=33, embed_dim=1280, ffn_dim=5120, num_heads=20, emb_layer_norm_before=False
    ),
    "esm2_t6_8M": ESM1Config.esm2(6, 320, 20),
    "esm2_t12_35M": ESM1Config.esm2(12, 480, 20),
    "esm2_t30_150M": ESM1Config.esm2(30, 640, 20),
    "esm2_t33_650M": ESM1Config.esm2(33, 1280, 20),
    "esm2_t36_3B": ESM1Config.esm2(36, 2560, 40),
    "esm2_t48_15B": ESM1Config.esm2(48, 5120, 40),
    "esm1_t6_43M": ESM1Config.esm1(num_layers=6, embed_dim=768, ffn_dim=3072, num_heads=12),
    "esm1_t12_85M": ESM1Config.esm1(num_layers=12, embed_dim=768, ffn_dim=3072, num_heads=12),
    "esm1_t34_670M": ESM1Config.esm1(num_layers=34, embed_dim=1280, ffn_dim=5120, num_heads=20),
}
