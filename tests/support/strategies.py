"""Hypothesis strategies of problems, with the sizes where kernels change their path in view."""

from __future__ import annotations

from arrays import DTYPES, ID_DTYPES, LAYOUTS, SEGMENT_PATTERNS
from hypothesis import strategies as st
from layer_norm_problem import LayerNormProblem
from problems import AttentionProblem, EmbeddingProblem, LinearProblem
from rotary_problem import RotaryProblem

# Around the vector widths, register tiles and key blocks of the kernels.
LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200)
HEAD_DIMS = (1, 3, 7, 8, 16, 31, 32, 33, 64, 80, 96, 127, 128, 129, 255, 256)
WIDTHS = (1, 3, 7, 8, 15, 16, 17, 33, 64, 100, 127, 129)

# Multiplications that a single example may cost, so that a property test takes seconds.
_BUDGET = 1_500_000

_seeds = st.integers(0, 2**32 - 1)
_dtypes = st.sampled_from(DTYPES)
_layouts = st.sampled_from(LAYOUTS)
_cotangent_layouts = st.sampled_from((*LAYOUTS, "constant"))
_segments = st.sampled_from(SEGMENT_PATTERNS)
_id_dtypes = st.sampled_from(ID_DTYPES)
_id_layouts = st.sampled_from(("contiguous", "stepped"))


def _sizes(edges: tuple[int, ...], largest: int) -> st.SearchStrategy[int]:
    return st.sampled_from(edges) | st.integers(1, largest)


@st.composite
def attention_problems(draw: st.DrawFn) -> AttentionProblem:
    length, dim = draw(_sizes(LENGTHS, 200)), draw(_sizes(HEAD_DIMS, 256))
    most = max(1, _BUDGET // (length * length * dim))
    batch = draw(st.integers(1, min(3, most)))
    heads = draw(st.integers(1, min(4, max(1, most // batch))))
    return AttentionProblem(
        (batch, heads, length, dim),
        dtype=draw(_dtypes),
        segments=draw(_segments),
        ids_dtype=draw(_id_dtypes),
        ids_layout=draw(_id_layouts),
        biases=draw(st.booleans()),
        scale=draw(st.none() | st.sampled_from((1.0, 0.37, -0.5))),
        score_size=draw(st.sampled_from((1.0, 0.01, 10.0, 300.0))),
        poisoned=draw(st.booleans()),
        layouts=(draw(_layouts), draw(_layouts), draw(_layouts), draw(_cotangent_layouts)),
        seed=draw(_seeds),
    )


@st.composite
def embedding_problems(draw: st.DrawFn) -> EmbeddingProblem:
    vocabulary = draw(st.sampled_from((33, 35, 2, 5, 200)))
    return EmbeddingProblem(
        (draw(st.integers(1, 5)), draw(_sizes(LENGTHS, 200)), draw(_sizes(WIDTHS, 130))),
        dtype=draw(_dtypes),
        vocabulary=vocabulary,
        padding_idx=draw(st.integers(0, min(vocabulary - 1, 5))),
        mask_idx=draw(st.none() | st.integers(0, vocabulary - 1)),
        mask_rate=draw(st.sampled_from((0.15, 0.0, 0.9, 1.0))),
        padding_rate=draw(st.sampled_from((0.0, 0.1, 1.0))),
        tokens_dtype=draw(st.sampled_from(("int32", "int64", "uint8", "uint32", "int16"))),
        segments=draw(_segments),
        ids_dtype=draw(_id_dtypes),
        ids_layout=draw(_id_layouts),
        positions=draw(st.sampled_from((None, 207))),
        poisoned=draw(st.booleans()),
        layouts=(draw(_layouts), draw(_layouts), draw(_cotangent_layouts)),
        seed=draw(_seeds),
    )


@st.composite
def linear_problems(draw: st.DrawFn) -> LinearProblem:
    return LinearProblem(
        rows=tuple(draw(st.lists(_sizes((1, 2, 3, 8, 17), 20), max_size=3))),
        features=(draw(_sizes(WIDTHS, 130)), draw(_sizes(WIDTHS, 130))),
        dtype=draw(_dtypes),
        bias=draw(st.booleans()),
        activation=draw(st.sampled_from((None, "gelu"))),
        residual=draw(st.booleans()),
        size=draw(st.sampled_from((1.0, 0.01, 30.0))),
        layouts=(draw(_layouts), draw(_layouts), draw(_cotangent_layouts)),
        wide_weight=draw(st.booleans()),
        seed=draw(_seeds),
    )


@st.composite
def layer_norm_problems(draw: st.DrawFn) -> LayerNormProblem:
    rows = tuple(draw(st.lists(_sizes((1, 2, 3, 8, 17), 20), max_size=3)))
    layouts = (draw(_layouts), draw(_layouts), draw(_cotangent_layouts))
    # A row of one number alone is nothing but its rounding, which a small eps would blow up.
    is_constant = not rows and layouts[0] == "broadcast"
    return LayerNormProblem(
        rows=rows,
        width=draw(_sizes(WIDTHS, 130)),
        dtype=draw(_dtypes),
        residual=draw(st.sampled_from(("none", "through", "added"))),
        offset=draw(st.sampled_from((0.0, 0.5, 30.0))),
        eps=0.1 if is_constant else draw(st.sampled_from((1e-5, 1e-12, 0.1))),
        layouts=layouts,
        seed=draw(_seeds),
    )


@st.composite
def rotary_problems(draw: st.DrawFn) -> RotaryProblem:
    half = draw(_sizes((1, 4, 6, 8, 12, 15, 16, 17, 32, 40, 64), 128))
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(_sizes(LENGTHS, 200)), 2 * half)
    return RotaryProblem(
        shape,
        dtype=draw(_dtypes),
        on_circle=draw(st.booleans()),
        layouts=(draw(_layouts), draw(_layouts), draw(_cotangent_layouts)),
        seed=draw(_seeds),
    )
