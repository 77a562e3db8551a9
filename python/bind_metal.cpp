// What Python asks of the Metal side: the chip, the sources, the tiles.
#include "bind_metal.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <tuple>

#include "masked_attention/metal/launch.h"
#include "masked_attention/metal/params.h"
#include "masked_attention/metal/tiles.h"
#include "metal/device.h"
#include "metal/launch_budget.h"
#include "positional_embedding/metal/launch.h"
#include "rotary/metal/launch.h"

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

// AttentionTiles as Python sees them, in the order of their fields.
using Tiles = std::tuple<int, int, int, bool, bool>;

Tiles as_tuple(const ek::AttentionTiles& tiles) {
  return {tiles.rows, tiles.tile, tiles.row_fragments, tiles.held, tiles.fenced};
}

ek::AttentionTiles from_tuple(const Tiles& tiles) {
  const auto [rows, tile, row_fragments, held, fenced] = tiles;
  return {rows, tile, row_fragments, held, fenced};
}

void bind_tiles(nb::module_& m) {
  m.attr("attention_block") = kBlock;
  m.def("attention_served", &ek::attention_served, "D"_a, "dtype"_a,
        "Whether there are Metal kernels for this head dim and dtype.");
  m.def(
      "attention_tiles",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype) {
        return as_tuple(ek::attention_tiles(ek::attention_kernel(kernel), D, dtype, generation()));
      },
      "kernel"_a, "D"_a, "dtype"_a,
      "The tiles in force: rows a threadgroup owns, rows it stages at a time, eights of rows of a "
      "simdgroup, whether bwd_dkv holds its keys, whether loads are fenced.");
  m.def(
      "attention_tile_candidates",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype) {
        std::vector<Tiles> candidates;
        for (const auto& tiles :
             ek::attention_tile_candidates(ek::attention_kernel(kernel), D, dtype)) {
          candidates.push_back(as_tuple(tiles));
        }
        return candidates;
      },
      "kernel"_a, "D"_a, "dtype"_a, "All tiles that fit threadgroup memory and registers.");
  m.def(
      "attention_registers",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype, const Tiles& tiles) {
        return ek::attention_registers(ek::attention_kernel(kernel), D, dtype, from_tuple(tiles));
      },
      "kernel"_a, "D"_a, "dtype"_a, "tiles"_a,
      "Registers a lane holds, counted from the kernel's arrays.");
  m.def(
      "set_attention_tiles",
      [](const std::string& kernel, int D, ek::mx::Dtype dtype, const std::optional<Tiles>& tiles) {
        const auto which = ek::attention_kernel(kernel);
        if (tiles) {
          ek::set_attention_tiles(which, D, dtype, from_tuple(*tiles));
        } else {
          ek::reset_attention_tiles(which, D, dtype);
        }
      },
      "kernel"_a, "D"_a, "dtype"_a, "tiles"_a.none(),
      "Use these tiles instead of the built-in table's; None goes back to the table.");
  m.def("set_launch_products", &ek::metal::set_launch_products, "products"_a.none(),
        "How many products of 8 x 8 x 8 a launch may have before it is split; None: the default.");
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
  m.def("rotary_sources", &ek::rotary_sources, "dtype"_a,
        "The texts of the Metal kernels of rotary.");
}
