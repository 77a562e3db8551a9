"""The names of tensors in files: what others put in front, and what belongs to other heads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

_Value = TypeVar("_Value")

# The models that are read, as messages name them.
FAMILY = "ESM-1, ESM-1b, ESM-1v and ESM-2"
# Names by which models and files that are not ours are known, in multi-line mode.
_OTHERS = (
    ("an adapter (LoRA) without its base model", r"lora_[ABab]"),
    ("the state of an optimizer, without weights", r"^(param_groups|state)$"),
    ("an MSA Transformer", r"row_self_attention|msa_position_embedding"),
    ("an ESM-IF model", r"gvp"),
    ("ESMFold", r"^(module\.)?(trunk|distogram_head|lddt_head)\."),
    ("ESM C or ESM3", r"layernorm_qkv|sequence_head|q_ln\."),
    ("a model of the BERT family", r"token_type_embeddings|^(module\.)?bert\."),
    ("a T5 model (ProtT5, Ankh)", r"SelfAttention\.relative_attention_bias|^shared\.weight"),
    ("quantised weights", r"\.(scales|qweight|absmax|SCB|weight_scale)$"),
)
# Where several state dicts lie in one file, the first of these that is there.
STATES = ("model", "state_dict", "model_state_dict", "module", "net", "network", "ema")


def inner_state(data: Any) -> Any:
    """The state dict in what a file holds, beside other things or alone."""
    if isinstance(data, Mapping):
        for name in STATES:
            if isinstance(data.get(name), Mapping):
                return data[name]
    return data


def what_it_is(names: Iterable[str]) -> str:
    """What tensors of these names belong to, in words; "" where nobody knows."""
    text = "\n".join(names)
    return next((what for what, pattern in _OTHERS if re.search(pattern, text, re.MULTILINE)), "")


def without_prefix(
    state: Mapping[str, _Value], landmarks: Sequence[str], prefix: str = ""
) -> dict[str, _Value]:
    """A state dict under names in which a landmark has `prefix` before it, and nothing else.

    DataParallel puts `module.` before every name, Lightning `model.`, torch.compile `_orig_mod.`,
    others names of their own, and they do so one after the other. What stands before the landmark
    is taken off all names that have it, or a part of it.

    Args:
        state: tensors by name.
        landmarks: ends of names that every model has; the first that is there counts.
        prefix: put in place of what is taken off in full.
    """
    before = None
    for landmark in landmarks:
        found = [name for name in state if name == landmark or name.endswith(f".{landmark}")]
        if found:
            before = min(found, key=len)[: -len(landmark)]
            break
    if before is None:
        return dict(state)
    parts = before.split(".")[:-1]  # "a.b." -> a, b
    wrappers = [".".join(parts[:count]) + "." for count in range(len(parts), 0, -1)]

    def renamed(name: str) -> str:
        for wrapper in wrappers:
            if name.startswith(wrapper):
                rest = name[len(wrapper) :]
                return f"{prefix}{rest}" if wrapper == before else rest
        return name if wrappers else f"{prefix}{name}"

    return {renamed(name): value for name, value in state.items()}


def other_heads(names: Iterable[str], roots: Iterable[str]) -> set[str]:
    """The names that belong to modules which the model does not have, such as `classifier.weight`.

    Args:
        names: of the tensors in a file.
        roots: what the names of the model's own begin with, up to the first dot.
    """
    own = set(roots)
    return {name for name in names if "." in name and name.split(".", 1)[0] not in own}
