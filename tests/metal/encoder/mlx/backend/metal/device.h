// Stands before MLX's header of this name: what csrc/metal/encode.cpp asks of Metal is written
// down.
#pragma once

#include <cstring>
#include <functional>
#include <sstream>
#include <string>
#include <tuple>
#include <vector>

#include "mlx/array.h"
#include "mlx/stream.h"

namespace NS {
using UInteger = unsigned long;
}

namespace MTL {

enum DataType { DataTypeBool, DataTypeInt, DataTypeFloat };

struct Library {
  std::string name;
};

struct ComputePipelineState {
  std::string name;
  NS::UInteger maxTotalThreadsPerThreadgroup() const {
    return 1024;
  }
};

struct Size {
  NS::UInteger x, y, z;
  Size(NS::UInteger x, NS::UInteger y, NS::UInteger z) : x(x), y(y), z(z) {}
};

}  // namespace MTL

namespace mlx::core::metal {

inline std::ostringstream calls;

using MTLFCList = std::vector<std::tuple<const void*, MTL::DataType, NS::UInteger>>;

struct Device {
  MTL::Library library;
  MTL::ComputePipelineState kernel;

  MTL::Library* get_library(const std::string& name, const std::function<std::string()>& source) {
    calls << "library " << name << ": " << source() << "\n";
    library = {name};
    return &library;
  }

  MTL::ComputePipelineState* get_kernel(const std::string& name, MTL::Library* from,
                                        const std::string& hash_name, const MTLFCList& constants) {
    calls << "kernel " << name << " of " << from->name << ", " << hash_name << ":";
    for (const auto& [value, type, index] : constants) {
      calls << " " << index << "=";
      if (type == MTL::DataTypeBool) {
        calls << (*static_cast<const bool*>(value) ? "true" : "false");
      } else if (type == MTL::DataTypeInt) {
        calls << *static_cast<const int32_t*>(value);
      } else {
        calls << *static_cast<const float*>(value) << "f";
      }
    }
    calls << "\n";
    kernel = {name};
    return &kernel;
  }

  int get_architecture_gen() const {
    return 13;
  }
};

// Arrays are named by their first element.
struct CommandEncoder {
  void add_temporaries(const std::vector<array>& arrays) {
    for (const array& x : arrays) {
      calls << "keep " << x.data<int>()[0] << "\n";
    }
  }
  void set_compute_pipeline_state(MTL::ComputePipelineState* kernel) {
    calls << "use " << kernel->name << "\n";
  }
  void set_input_array(const array& x, int slot) {
    calls << "read " << x.data<int>()[0] << " at " << slot << "\n";
  }
  void set_output_array(array& x, int slot) {
    calls << "write " << x.data<int>()[0] << " at " << slot << "\n";
  }
  template <class T>
  void set_bytes(const T* data, int count, int slot) {
    std::string bytes(count * sizeof(T), 0);
    std::memcpy(bytes.data(), data, bytes.size());
    calls << "bytes " << bytes << " at " << slot << "\n";
  }
  void dispatch_threadgroups(MTL::Size grid, MTL::Size group) {
    calls << "run " << grid.x << " " << grid.y << " " << grid.z << " x " << group.x << " "
          << group.y << " " << group.z << "\n";
  }
};

inline Device& device(mlx::core::Device) {
  static Device only;
  return only;
}

inline CommandEncoder& get_command_encoder(Stream) {
  static CommandEncoder only;
  return only;
}

}  // namespace mlx::core::metal
