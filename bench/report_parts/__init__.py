"""The parts of report.py: each measures its lines of the table, beside their targets."""

from __future__ import annotations

from collections.abc import Callable

from .attention import dense, half, memory, narrow, one_head, packed, padded
from .lines import Part, Setting
from .low import embedding_low, linear_bfloat16, training_bfloat16
from .models import embedding, training

PARTS: dict[str, Callable[[Setting], Part]] = {
    "dense": dense,
    "padded": padded,
    "narrow": narrow,
    "one-head": one_head,
    "packed": packed,
    "half": half,
    "linear-bfloat16": linear_bfloat16,
    "train-small": training((4, 64, 256, 4), 4),
    "train-medium": training((6, 320, 1280, 20), 3),
    # Seconds a step: the budget is for three of them after the warm-up.
    "train-large": training((6, 768, 3072, 12), 2, budget_s=12.0),
    "train-bfloat16": training_bfloat16,
    "embed": embedding,
    "embed-low": embedding_low,
    "memory": memory,
}
