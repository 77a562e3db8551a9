// The normal distribution, which GELU is made of. Compiled once per instruction set.
#pragma once

#include "cpu/vector.h"

namespace mlx_esm_kernels::cpu::CPU_TARGET {

// The standard normal distribution function and its density.
struct Normal {
  vfloat cdf;
  vfloat pdf;
};

// For t = |x|: cdf(-t) = exp(-t^2 / 2) * r(t), where r(t) = erfcx(t / sqrt(2)) / 2 is smooth and is
// fitted in q = (t - 3) / (t + 3) on [0, 14], relative error 8e-9. So the tail at negative x keeps
// its relative accuracy, where 1 + erf(x / sqrt(2)) would cancel.
inline Normal normal(vfloat x) {
  constexpr float kInvSqrt2Pi = 0.39894228040143267794f;
  const vfloat t = min(abs(x), broadcast(14.0f));
  const vfloat e = exp2(t * t * (-0.5f * kLog2E));
  const vfloat q = 1.0f - 6.0f * reciprocal(t + 3.0f);  // (t - 3) / (t + 3)
  vfloat r = broadcast(5.367189442040399e-05f);
  r = r * q + 0.0001155437930719927f;
  r = r * q - 0.0003394849190954119f;
  r = r * q - 0.0009837584802880883f;
  r = r * q + 0.0029045562259852886f;
  r = r * q + 0.006132070440798998f;
  r = r * q - 0.046213291585445404f;
  r = r * q + 0.12322503328323364f;
  r = r * q - 0.20640261471271515f;
  r = r * q + 0.12151394784450531f;
  const vfloat lower = r * e;
  return {x > 0.0f ? 1.0f - lower : lower, e * kInvSqrt2Pi};
}

}  // namespace mlx_esm_kernels::cpu::CPU_TARGET
