// What Python asks of the Metal side: the chip, the sources, the tiles.
#include "bind_metal.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "masked_attention/metal/launch.h"
#include "masked_attention/metal/params.h"
#include "masked_attention/metal/tiles.h"
#include "metal/device.h"
#include "positional_embedding/metal/launch.h"

namespace nb = nanobind;
namespace ek = mlx_esm_kernels;
using namespace nb::literals;

namespace {

int generation() {
  const auto chip = ek::metal::current_chip();
  if (!chip) {
    throw std::runtime_error("[metal] there is no Metal GPU here.");
  }
  return chip->generation;
}

void bind_tiles(nb::module_& m) {
  m.attr("attention_block") = kBlock;
  m.def("attention_served", &ek::attention_served, "D"_a, "dtype"_a,
        "Whether there are Metal kernels for this head dim and dtype.");
  m.def(
      "attention_tiles",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype) {
        const auto tiles =
            ek::attention_tiles(ek::attention_kernel(kernel), D, dtype, generation());
        return std::make_pair(tiles.rows, tiles.tile);
      },
      "kernel"_a, "D"_a, "dtype"_a,
      "The tiles in force: rows a threadgroup owns, and rows it stages at a time.");
  m.def(
      "attention_tile_candidates",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype) {
        std::vector<std::pair<int, int>> candidates;
        for (const auto& tiles :
             ek::attention_tile_candidates(ek::attention_kernel(kernel), D, dtype)) {
          candidates.emplace_back(tiles.rows, tiles.tile);
        }
        return candidates;
      },
      "kernel"_a, "D"_a, "dtype"_a, "All tiles that fit the threadgroup memory.");
  m.def(
      "attention_registers",
      [](const std::string& kernel, int D, std::pair<int, int> tiles) {
        return ek::attention_registers(ek::attention_kernel(kernel), D,
                                       {tiles.first, tiles.second});
      },
      "kernel"_a, "D"_a, "tiles"_a, "Registers a lane holds, counted from the kernel's arrays.");
  m.def(
      "set_attention_tiles",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype,
         std::optional<std::pair<int, int>> tiles) {
        const auto which = ek::attention_kernel(kernel);
        if (tiles) {
          ek::set_attention_tiles(which, D, dtype, {tiles->first, tiles->second});
        } else {
          ek::reset_attention_tiles(which, D, dtype);
        }
      },
      "kernel"_a, "D"_a, "dtype"_a, "tiles"_a.none(),
      "Use these tiles instead of the built-in table's; None goes back to the table.");
}

}  // namespace

void bind_metal(nb::module_& m) {
  bind_tiles(m);
  m.def(
      "metal_chip",
      []() -> nb::object {
        const auto chip = ek::metal::current_chip();
        if (!chip) {
          return nb::none();
        }
        nb::dict out;
        out["name"] = chip->name;
        out["architecture"] = chip->architecture;
        out["generation"] = chip->generation;
        return out;
      },
      nb::sig("def metal_chip() -> dict[str, typing.Any] | None"),
      "The Metal GPU that kernels are chosen for; None where there is none.");
  m.def(
      "runs_on_metal",
      [](ek::mx::StreamOrDevice s) { return ek::metal::runs_on(ek::mx::to_stream(s)); },
      "stream"_a = nb::none(), "Whether work on this stream runs Metal kernels.");
  m.def(
      "attention_sources",
      [](int D, ek::mx::Dtype dtype) { return ek::attention_sources(D, dtype, generation()); },
      "D"_a, "dtype"_a, "The texts of the Metal kernels of masked_attention.");
  m.def("embedding_sources", &ek::embedding_sources, "dtype"_a,
        "The texts of the Metal kernels of positional_embedding.");
}
