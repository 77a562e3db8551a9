// The Python names of the ops. All that they do is in csrc/.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include "adamw/adamw.h"
#include "bind_emulation.h"
#include "bind_metal.h"
#include "cpu/memory.h"
#include "cpu/target.h"
#include "cpu/threads.h"
#include "int8_linear/int8_linear.h"
#include "layer_norm/layer_norm.h"
#include "linear/linear.h"
#include "masked_attention/masked_attention.h"
#include "positional_embedding/positional_embedding.h"
#include "rotary/rotary.h"

namespace nb = nanobind;
namespace ek = mlx_esm_kernels;
using namespace nb::literals;

namespace {

void bind_masked_attention(nb::module_& m) {
  m.def("masked_attention", &ek::masked_attention, "q"_a, "k"_a, "v"_a, nb::kw_only(),
        "scale"_a = nb::none(), "segment_ids"_a = nb::none(), "bias_k"_a = nb::none(),
        "bias_v"_a = nb::none(), "fused"_a = true, "stream"_a = nb::none(),
        R"(
        Attention in which a query sees the keys of its own segment, and no L x L array is made.

        ``softmax(scale * q @ k.T) @ v`` within each segment, accumulated in float32. Differentiable
        in ``q``, ``k``, ``v``, ``bias_k`` and ``bias_v``; deterministic.

        Args:
            q, k, v (array): ``(B, H, L, D)``, one dtype of float32, float16, bfloat16; any strides.
            scale (float, optional): factor of the scores. Default: ``D ** -0.5``.
            segment_ids (array, optional): ``(B, L)`` integer or bool. Equal ids attend to each
              other; 0 is padding, whose rows and gradients are exactly 0 whatever they hold.
              Default: every row of the batch is one segment.
            bias_k, bias_v (array, optional): ``(H, D)``, one more key and value that every query
              sees, as in ESM-1.
            fused (bool): False composes it from MLX's own ops, on any device.
            stream (Stream or Device, optional): where to run.

        Returns:
            array: ``(B, H, L, D)`` in the dtype of ``q``.

        Raises:
            ValueError: where shapes or dtypes do not fit together.
      )");
}

void bind_positional_embedding(nb::module_& m) {
  m.def("positional_embedding", &ek::positional_embedding, "tokens"_a, "token_table"_a,
        "position_table"_a, nb::kw_only(), "padding_idx"_a, "mask_idx"_a = nb::none(),
        "segment_ids"_a = nb::none(), "fused"_a = true, "stream"_a = nb::none(),
        nb::call_guard<nb::gil_scoped_release>(),  // tokens are evaluated to be checked
        R"(
        Token embedding plus learned positions that skip padding and restart in every segment.

        Row ``token_table[t] + position_table[padding_idx + n]`` for the n-th token (from 1) of its
        segment that is not padding; exactly 0 on padding. With ``mask_idx``, ESM's token dropout:
        rows of masked tokens are 0 and the others are scaled by ``0.88 / (1 - n_mask / n)`` per
        segment (facebookresearch/esm, esm/model/esm1.py). Differentiable in both tables;
        deterministic.

        Args:
            tokens (array): ``(B, L)`` integer.
            token_table (array): ``(V, C)`` float32, float16 or bfloat16.
            position_table (array): ``(P, C)``, the same dtype.
            padding_idx (int): the token that is padding.
            mask_idx (int, optional): the token that is dropped. Default: no token dropout.
            segment_ids (array, optional): ``(B, L)`` integer or bool, 0 = padding. Default: every
              row of the batch is one segment.
            fused (bool): False composes it from MLX's own ops, on any device.
            stream (Stream or Device, optional): where to run.

        Returns:
            array: ``(B, L, C)`` in the dtype of the tables.

        Raises:
            ValueError: where shapes or dtypes do not fit together, a token is not in its table, or
              a sequence is longer than the position table. Where ``mx.compile`` or ``mx.vmap``
              hide the tokens, the last two are raised as RuntimeError at evaluation.
      )");
}

void bind_rotary(nb::module_& m) {
  m.def("rotary", &ek::rotary, "x"_a, "angles"_a, nb::kw_only(), "fused"_a = true,
        "stream"_a = nb::none(), "Use ops.rotary, which knows when to be fused.");
}

void bind_linear(nb::module_& m) {
  m.def("linear", &ek::linear, "x"_a, "weight"_a, "bias"_a = nb::none(), nb::kw_only(),
        "activation"_a = nb::none(), "residual"_a = nb::none(), "stream"_a = nb::none(),
        R"(
        ``activation(x @ weight.T + bias) + residual``, on the CPU on a real BLAS.

        Args:
            x (array): ``(..., I)`` float32, float16 or bfloat16.
            weight (array): ``(O, I)``, the same dtype or float32.
            bias (array, optional): ``(O,)``.
            activation (str, optional): None or ``"gelu"``, the exact one with erf.
            residual (array, optional): ``(..., O)``, the same dtype.
            stream (Stream or Device, optional): where to run.

        Returns:
            array: ``(..., O)`` in the dtype of ``x``.

        Raises:
            ValueError: where shapes or dtypes do not fit together, or the activation is unknown.
      )");
  m.def("linears", &ek::linears, "x"_a, "weights"_a, "biases"_a = ek::Arrays{}, nb::kw_only(),
        "stream"_a = nb::none(),
        R"(
        Several linear layers of one x, as one: ``x @ weight.T + bias`` for each.

        The gradient of ``x`` is added up over the layers as it is made.

        Args:
            x (array): ``(..., I)`` float32, float16 or bfloat16.
            weights (list of arrays): ``(O, I)`` each, the same dtype or float32; O may differ.
            biases (list of arrays): ``(O,)`` each; or none at all.
            stream (Stream or Device, optional): where to run.

        Returns:
            list of arrays: ``(..., O)`` each, in the dtype of ``x``.

        Raises:
            ValueError: where numbers, shapes or dtypes do not fit together.
      )");
}

void bind_int8_linear(nb::module_& m) {
  m.def("int8_linear", &ek::int8_linear, "x"_a, "weight"_a, "scale"_a, "bias"_a = nb::none(),
        nb::kw_only(), "activation"_a = nb::none(), "residual"_a = nb::none(),
        "stream"_a = nb::none(),
        R"(
        ``activation(x @ (scale[:, None] * weight).T + bias) + residual`` in int8, for inference.

        Each row of ``x`` is rounded to whole multiples of its largest magnitude / 127; the products
        are summed exactly in int32. A row with NaN or infinity gives NaN throughout, one whose
        largest magnitude is below ``2**-100`` counts as zeros. It has no gradient.

        Args:
            x (array): ``(..., I)`` float32, float16 or bfloat16; I at most 65536.
            weight (array): ``(O, I)`` int8.
            scale (array): ``(O,)``, what a unit of each row of the weight is worth.
            bias (array, optional): ``(O,)``.
            activation (str, optional): None or ``"gelu"``, the exact one with erf.
            residual (array, optional): ``(..., O)``, the dtype of ``x``.
            stream (Stream or Device, optional): where to run.

        Returns:
            array: ``(..., O)`` in the dtype of ``x``.

        Raises:
            ValueError: where shapes or dtypes do not fit together, the activation is unknown, or a
              gradient is asked for.
      )");
  m.def("int8_linears", &ek::int8_linears, "x"_a, "weights"_a, "scales"_a,
        "biases"_a = ek::Arrays{}, nb::kw_only(), "stream"_a = nb::none(),
        R"(
        Several ``int8_linear`` of one x, whose rows are rounded once for all of them.

        Args:
            x (array): ``(..., I)`` float32, float16 or bfloat16; I at most 65536.
            weights (list of arrays): ``(O, I)`` int8 each; O may differ.
            scales (list of arrays): ``(O,)`` each.
            biases (list of arrays): ``(O,)`` each; or none at all.
            stream (Stream or Device, optional): where to run.

        Returns:
            list of arrays: ``(..., O)`` each, in the dtype of ``x``.

        Raises:
            ValueError: as ``int8_linear``, or where the numbers of arrays differ.
      )");
}

void bind_layer_norm(nb::module_& m) {
  m.def("layer_norm", &ek::layer_norm, "x"_a, "weight"_a, "bias"_a, nb::kw_only(), "eps"_a = 1e-5f,
        "stream"_a = nb::none(),
        R"(
        ``(x - mean) / sqrt(variance + eps) * weight + bias`` over the last axis, in float32.

        Differentiable; deterministic; on the CPU on all threads in both directions.

        Args:
            x (array): ``(..., C)`` float32, float16 or bfloat16; any strides.
            weight, bias (array): ``(C,)``.
            eps (float): above 0.
            stream (Stream or Device, optional): where to run.

        Returns:
            array: ``(..., C)`` in the dtype of ``x``.

        Raises:
            ValueError: where shapes or dtypes do not fit together, or eps is not above 0.
      )");
  m.def("add_layer_norm", &ek::add_layer_norm, "x"_a, "delta"_a.none(), "weight"_a, "bias"_a,
        nb::kw_only(), "eps"_a = 1e-5f, "stream"_a = nb::none(),
        R"(
        A residual connection and the layer norm after it: ``x + delta`` and its ``layer_norm``.

        The gradients that reach the sum from both are added up in one pass.

        Args:
            x (array): ``(..., C)`` float32, float16 or bfloat16; any strides.
            delta (array, optional): as x. None: nothing is added, and x itself comes back.
            weight, bias, eps, stream: as in ``layer_norm``.

        Returns:
            tuple: two arrays ``(..., C)``.

        Raises:
            ValueError: where shapes or dtypes do not fit together, or eps is not above 0.
      )");
}

using State = std::tuple<ek::Arrays, ek::Arrays, ek::Arrays, ek::mx::array>;

State as_tuple(const ek::AdamWResult& result) {
  return {result.state.weights, result.state.m, result.state.v, result.norm};
}

void bind_adamw(nb::module_& m) {
  m.def(
      "adamw",
      [](const ek::Arrays& weights, const ek::Arrays& gradients, const ek::Arrays& moments_1,
         const ek::Arrays& moments_2, const ek::mx::array& rates, float beta_1, float beta_2,
         float weight_decay, float clip_norm, bool composed, ek::mx::StreamOrDevice stream) {
        const ek::AdamWState old{weights, moments_1, moments_2};
        const ek::AdamWOptions options{beta_1, beta_2, weight_decay, clip_norm};
        return as_tuple(
            composed ? ek::adamw_composed(old, gradients, rates, options, ek::mx::to_stream(stream))
                     : ek::adamw(old, gradients, rates, options, stream));
      },
      "weights"_a, "gradients"_a, "m"_a, "v"_a, "rates"_a, nb::kw_only(), "beta_1"_a, "beta_2"_a,
      "weight_decay"_a, "clip_norm"_a, "composed"_a = false, "stream"_a = nb::none(),
      R"(
        A step of AdamW (Loshchilov and Hutter 2019, algorithm 2) on all parameters at once.

        Gradients whose global norm (L2 over all of them) is above ``clip_norm`` are scaled down to
        it first. Parameters of two or more axes decay, the others do not. Deterministic.

        Args:
            weights, gradients, m, v (list of arrays): one each per parameter, of its shape; the
              moments begin at 0. Float32 is served in two passes on the CPU.
            rates (array): ``(3,)``: the learning rate, the learning rate times
              ``sqrt(1 - beta_2**t) / (1 - beta_1**t)``, and epsilon times ``sqrt(1 - beta_2**t)``,
              where t counts the steps from 1.
            beta_1, beta_2 (float): shares of the moments that are kept, in [0, 1).
            weight_decay (float): share of a weight that decays, times the learning rate.
            clip_norm (float): the highest norm, above 0.
            composed (bool): True makes it from MLX's own ops, on any device.
            stream (Stream or Device, optional): where to run.

        Returns:
            tuple: the new weights, m and v, and the norm before clipping, a float32 scalar.

        Raises:
            ValueError: where the arrays do not fit together or an option is out of range.
      )");
}

// The ops as a GPU without kernels of ours runs them, for tests.
void bind_composed(nb::module_& m) {
  m.def(
      "masked_attention_composed",
      [](const ek::mx::array& q, const ek::mx::array& k, const ek::mx::array& v, float scale,
         const std::optional<ek::mx::array>& segment_ids,
         const std::optional<ek::mx::array>& bias_k, const std::optional<ek::mx::array>& bias_v) {
        return ek::masked_attention_composed({q, k, v, segment_ids, bias_k, bias_v}, scale,
                                             ek::mx::to_stream({}));
      },
      "q"_a, "k"_a, "v"_a, "scale"_a, "segment_ids"_a = nb::none(), "bias_k"_a = nb::none(),
      "bias_v"_a = nb::none());
  m.def(
      "positional_embedding_composed",
      [](const ek::mx::array& tokens, const ek::mx::array& token_table,
         const ek::mx::array& position_table, int padding_idx, std::optional<int> mask_idx,
         const std::optional<ek::mx::array>& segment_ids) {
        const ek::EmbeddingOptions options{padding_idx, mask_idx, segment_ids.has_value(),
                                           token_table.shape(0), position_table.shape(0)};
        return ek::positional_embedding_composed({tokens, token_table, position_table, segment_ids},
                                                 options, ek::mx::to_stream({}));
      },
      "tokens"_a, "token_table"_a, "position_table"_a, "padding_idx"_a, "mask_idx"_a = nb::none(),
      "segment_ids"_a = nb::none());
  m.def(
      "rotary_composed",
      [](const ek::mx::array& x, const ek::mx::array& angles) {
        return ek::rotary_composed(x, angles, ek::mx::to_stream({}));
      },
      "x"_a, "angles"_a);
  m.def(
      "linear_composed",
      [](const ek::mx::array& x, const ek::mx::array& weight,
         const std::optional<ek::mx::array>& bias,
         bool gelu) { return ek::linear_composed(x, weight, bias, gelu, ek::mx::to_stream({})); },
      "x"_a, "weight"_a, "bias"_a = nb::none(), "gelu"_a = false);
  m.def(
      "int8_linear_composed",
      [](const ek::mx::array& x, const ek::mx::array& weight, const ek::mx::array& scale,
         const std::optional<ek::mx::array>& bias, bool gelu,
         const std::optional<ek::mx::array>& residual) {
        return ek::int8_linear_composed(x, weight, scale, bias, gelu, residual,
                                        ek::mx::to_stream({}));
      },
      "x"_a, "weight"_a, "scale"_a, "bias"_a = nb::none(), "gelu"_a = false,
      "residual"_a = nb::none());
  m.def(
      "layer_norm_composed",
      [](const ek::mx::array& x, const ek::mx::array& weight, const ek::mx::array& bias,
         float eps) {
        return ek::layer_norm_composed(x, weight, bias, eps, ek::mx::to_stream({}));
      },
      "x"_a, "weight"_a, "bias"_a, "eps"_a);
}

}  // namespace

NB_MODULE(_ext, m) {
  m.doc() = "The compiled ops of mlx_esm_kernels.";
  bind_masked_attention(m);
  bind_positional_embedding(m);
  bind_rotary(m);
  bind_linear(m);
  bind_int8_linear(m);
  bind_layer_norm(m);
  bind_adamw(m);
  bind_composed(m);
  bind_metal(m);
  bind_emulation(m);
  m.def(
      "cpu_target", [] { return ek::cpu::target_name(ek::cpu::target()); },
      "The instruction set that the CPU kernels use.");
  m.def("keep_freed_memory", &ek::cpu::keep_freed_memory,
        "Has malloc keep freed memory for the next call; for the whole process, for good, so it is "
        "for a program to call, once, and not for a library. One that runs pass after pass does "
        "well to, as the commands do: on Linux, each would else fault its outputs' pages anew. "
        "Without glibc, as on a Mac, it does nothing.");
  m.def("num_threads", &ek::cpu::num_threads, "How many threads the CPU kernels use.");
}
