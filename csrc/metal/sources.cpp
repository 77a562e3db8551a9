#include "metal/sources.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>

namespace mlx_esm_kernels::metal {

namespace {

const char* text_of(const std::string& name) {
  const SourceFile* end = kSourceFiles + kSourceFileCount;
  const SourceFile* found =
      std::find_if(kSourceFiles, end, [&](const SourceFile& file) { return file.name == name; });
  if (found == end) {
    throw std::logic_error("[metal] there is no shader source " + name + ".");
  }
  return found->text;
}

void expand(const std::string& name, std::vector<std::string>& seen, std::string& out) {
  if (std::find(seen.begin(), seen.end(), name) != seen.end()) {
    return;
  }
  seen.push_back(name);
  const std::string include = "#include \"";
  std::istringstream lines(text_of(name));
  for (std::string line; std::getline(lines, line);) {
    if (line == "#pragma once") {
      continue;
    }
    if (line.compare(0, include.size(), include) == 0) {
      expand(line.substr(include.size(), line.rfind('"') - include.size()), seen, out);
    } else {
      out += line + "\n";
    }
  }
}

// FNV-1a: the same on every machine, unlike std::hash.
std::string hash_of(const std::string& text) {
  uint64_t hash = 14695981039346656037ull;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  }
  std::ostringstream hex;
  hex << std::hex << hash;
  return hex.str();
}

Source make_source(const std::string& file, const Defines& defines) {
  // Metal's own headers come first: none of them may meet a macro of ours.
  std::string text =
      "#include <metal_simdgroup>\n#include <metal_simdgroup_matrix>\n#include <metal_stdlib>\n";
  for (const auto& [name, value] : defines) {
    text += "#define " + name + " " + value + "\n";
  }
  text += expanded_source(file);
  const size_t from = file.rfind('/') + 1;
  const std::string op = file.substr(0, file.find('/'));
  const std::string stem = file.substr(from, file.rfind('.') - from);
  return {"mlx_esm_kernels_" + op + "_" + stem + "_" + hash_of(text), text};
}

}  // namespace

std::string expanded_source(const std::string& name) {
  std::vector<std::string> seen;
  std::string out;
  expand(name, seen, out);
  return out;
}

const Source& source_of(const std::string& file, const Defines& defines) {
  static std::mutex mutex;
  // Never destroyed: plans of other threads may still point into it when the process ends.
  static auto& made = *new std::map<std::pair<std::string, Defines>, Source>;
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = made.try_emplace({file, defines});
  if (is_new) {
    at->second = make_source(file, defines);
  }
  return at->second;
}

}  // namespace mlx_esm_kernels::metal
