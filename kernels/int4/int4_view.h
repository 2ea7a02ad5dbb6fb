// An int4 weight (kernels/int4/base/int4_weight.h) that lies in memory of somebody else, such as a region that several
// processes map. What the products on the CPU take; an Int4Weight is taken as its own view.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/int4/base/int4_weight.h"

namespace lorikeet::kernels {

struct Int4View {
  int32_t n = 0;
  int32_t k = 0;
  int32_t x_size = 0;

  // As in Int4Weight; scales and run boundaries are aligned as their types are.
  std::span<const uint8_t> q;
  std::span<const int32_t> run_begin;
  std::span<const float> scale;
  std::span<const uint8_t> zero;
  std::span<const int32_t> permutation;

  Int4View() = default;
  Int4View(const Int4Weight& weight)  // NOLINT(google-explicit-constructor): a weight serves wherever a view does
      : n(weight.n),
        k(weight.k),
        x_size(weight.x_size),
        q(weight.q),
        run_begin(weight.run_begin),
        scale(weight.scale),
        zero(weight.zero),
        permutation(weight.permutation) {}

  int32_t runs() const { return static_cast<int32_t>(run_begin.size()) - 1; }
};

}  // namespace lorikeet::kernels
