// Vectors of floats as GCC and Clang have them, as wide as the processor's registers, and what is computed on them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

// The sums of a tile, ROWS rows of a panel's 4 vectors, stay in registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 6;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 3;
#else
constexpr int LANES = 4, ROWS = 6;
#endif
constexpr int PANEL = 4 * LANES;
constexpr int AHEAD = 8192;  // bytes of weights that are asked for before they are needed

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef int8_t Bytes __attribute__((vector_size(LANES)));

template <class To, class From> To as(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "a cast of bits");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
template <class V> V read(const void* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
void write(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }
Floats fill(float x) { return x - Floats{}; }

Floats weights_at(const float* w) { return read<Floats>(w); }
#ifdef __AVX512F__  // GCC 12 takes these conversions apart
Floats weights_at(const uint16_t* w) { return as<Floats>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(read<__m256i>(w)), 16)); }
Floats weights_at(const int8_t* w) { return as<Floats>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(read<__m128i>(w)))); }
#else
Floats weights_at(const uint16_t* w) { return as<Floats>(__builtin_convertvector(read<Halves>(w), Words) << 16); }
Floats weights_at(const int8_t* w) { return __builtin_convertvector(__builtin_convertvector(read<Bytes>(w), Ints), Floats); }
#endif

float sum(Floats v) {
  float halves[LANES];
  write(halves, v);
  for (int n = LANES / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) halves[i] += halves[i + n];
  return halves[0];
}

// e^x to about 1 ulp; 0 below -87.3, and never infinite.
Floats exponential(Floats x) {
  x = x > 88.0f ? fill(88.0f) : x;
  const Ints is_zero = x < -87.3f;
  const Floats shift = fill(12582912.0f);  // 1.5·2^23: adding it rounds to an integer
  const Floats n = (x * 1.44269504f + shift) - shift;
  const Floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  Floats p = fill(1.38888889e-3f);
  p = p * r + 8.33333333e-3f;
  p = p * r + 4.16666667e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = (p * r) * r + r + 1.0f;
  const Ints scale = (__builtin_convertvector(n, Ints) + 127) << 23;
  return is_zero ? Floats{} : p * as<Floats>(scale);
}

float dot(const float* a, const float* b, int64_t size) {
  Floats acc = {};
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) acc += read<Floats>(a + i) * read<Floats>(b + i);
  float total = sum(acc);
  for (; i < size; ++i) total += a[i] * b[i];
  return total;
}

}  // namespace
