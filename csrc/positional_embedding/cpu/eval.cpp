#include "cpu/arrays.h"
#include "mlx/backend/cpu/encoder.h"
#include "positional_embedding/cpu/compute.h"
#include "positional_embedding/positional_embedding.h"

namespace mlx_esm_kernels {

namespace {

cpu::EmbeddingInputs common(const Arrays& inputs, const EmbeddingOptions& options) {
  cpu::EmbeddingInputs in{};
  in.B = inputs[0].shape(0);
  in.L = inputs[0].shape(1);
  in.C = inputs.back().shape(-1);
  in.vocab = options.vocab;
  in.positions = options.positions;
  in.padding_idx = options.padding_idx;
  in.token_dropout = options.mask_idx.has_value();
  in.mask_idx = options.mask_idx.value_or(0);
  in.dtype = cpu::to_dtype(inputs.back().dtype());
  in.tokens = inputs[0].data<int64_t>();
  in.segment_ids = options.has_segments ? inputs[1].data<int64_t>() : nullptr;
  return in;
}

// Tokens that were hidden at the call are checked here and not in the task that is queued: MLX
// keeps a task's error for its stream, where it can meet a later evaluation that has nothing to do
// with it.
void check_hidden(const Arrays& inputs, const EmbeddingOptions& options, mx::Stream stream) {
  if (!options.checked) {
    mx::synchronize(stream);
    check_embedding(inputs, options);
  }
}

}  // namespace

void check_embedding(const Arrays& inputs, const EmbeddingOptions& options) {
  cpu::check_embedding(common(inputs, options));
}

void PositionalEmbedding::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  if (options_.on_metal) {  // a CPU stream that stands for a GPU in tests
    eval_gpu(inputs, outputs);
    return;
  }
  check_hidden(inputs, options_, stream());
  cpu::allocate(outputs);
  const size_t tables = options_.has_segments ? 2 : 1;
  cpu::EmbeddingForward args{common(inputs, options_), cpu::strided_rows(inputs[tables]),
                             cpu::strided_rows(inputs[tables + 1]), cpu::bytes(outputs[0])};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::embedding_forward(args); });
}

void PositionalEmbeddingVJP::eval_cpu(const Arrays& inputs, Arrays& outputs) {
  if (options_.on_metal) {
    eval_gpu(inputs, outputs);
    return;
  }
  check_hidden(inputs, options_, stream());
  cpu::allocate(outputs);
  const mx::array& dout = inputs.back();
  const mx::Strides& strides = dout.strides();
  cpu::EmbeddingBackward args{
      common(inputs, options_), cpu::bytes(dout),      strides[0], strides[1], strides[2],
      cpu::bytes(outputs[0]),   cpu::bytes(outputs[1])};
  mx::cpu::get_command_encoder(stream()).dispatch([args] { cpu::embedding_backward(args); });
}

}  // namespace mlx_esm_kernels
