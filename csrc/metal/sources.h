// The shader sources, embedded at build time, and the texts that kernels are compiled from.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace mlx_esm_kernels::metal {

// `name` is relative to csrc/, as in #include "metal/shading/fragment.h".
struct SourceFile {
  const char* name;
  const char* text;
};
extern const SourceFile kSourceFiles[];
extern const int kSourceFileCount;

// The text of a file with our own #include "..." resolved, each once; <...> stay. Throws
// std::logic_error for a name that is not embedded.
std::string expanded_source(const std::string& name);

// What a kernel is compiled from: Metal's headers, a #define per constant, the expanded file of an
// op, as in "masked_attention/metal/fwd.metal". `library` names op and file and ends in a hash of
// the text: MLX keeps libraries by their names alone.
struct Source {
  std::string library, text;
};

using Defines = std::vector<std::pair<std::string, std::string>>;

// Made once a process: the reference stays good.
const Source& source_of(const std::string& file, const Defines& defines);

}  // namespace mlx_esm_kernels::metal
