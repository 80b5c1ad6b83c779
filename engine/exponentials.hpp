// A row of logits becomes the terms of its softmax, eight at a time, in the compilers' own vector types, which become
// whatever registers there are. It knows no auction.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

namespace {

constexpr double INFINITE = std::numeric_limits<double>::infinity();
constexpr int64_t BLOCK = 256;  // tokens a block; sums are made of blocks' sums
constexpr int64_t WIDTH = 8;    // numbers a vector: one register of AVX-512, two of AVX2, four of NEON

typedef double Vector __attribute__((vector_size(8 * WIDTH)));
typedef int64_t Words __attribute__((vector_size(8 * WIDTH)));
typedef float Floats __attribute__((vector_size(4 * WIDTH)));
typedef uint8_t Bytes __attribute__((vector_size(WIDTH)));

inline Vector widened(Vector x) { return x; }
inline Vector widened(Floats x) { return __builtin_convertvector(x, Vector); }
inline Vector splat(double x) { return x - Vector{}; }

// The first `lanes` numbers, and `fill` behind them. Everything below steps by whole vectors from the row's beginning,
// the last one padded, so that a token is computed alike wherever its row lies in memory.
template <class V, class T>
inline V load_as(const T* from, int64_t lanes, T fill) {
  V x;
  if (lanes == WIDTH) {
    std::memcpy(&x, from, sizeof x);
  } else {
    for (int64_t i = 0; i < WIDTH; ++i) x[i] = i < lanes ? from[i] : fill;
  }
  return x;
}

inline Vector load(const double* from, int64_t lanes, double fill = 0) { return load_as<Vector>(from, lanes, fill); }
inline Vector load(const float* from, int64_t lanes, float fill) { return widened(load_as<Floats>(from, lanes, fill)); }

inline void store(double* to, Vector x, int64_t lanes) {
  if (lanes == WIDTH) {
    std::memcpy(to, &x, sizeof x);
  } else {
    for (int64_t i = 0; i < lanes; ++i) to[i] = x[i];
  }
}

template <class F>
inline __attribute__((always_inline)) void sweep(int64_t size, F visit) {
  int64_t t = 0;
  for (; t + WIDTH <= size; t += WIDTH) visit(t, WIDTH);
  if (t < size) visit(t, size - t);
}

inline double sum(Vector x) { return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7])); }

// exp(x) for x <= 0 within 1 ulp; 0 below -708, where float64 begins to lose digits; NaN for NaN.
// x = k ln 2 + r with |r| <= ln 2 / 2, and the series of e^r to r^13 / 13!, whose rest is below 1e-17.
inline Vector exp_of_negative(Vector x) {
  constexpr double LOG2_E = 1.4426950408889634, SHIFTER = 6755399441055744.0;  // 1.5·2^52: its last bits count ones
  constexpr double LN2_HIGH = 6.93147180369123816490e-01, LN2_LOW = 1.90821492927058770002e-10;  // k·high is exact
  const Vector lost = splat(-708.0);
  const Vector y = x < lost ? lost : x;
  const Vector shifted = y * LOG2_E + SHIFTER;
  const Vector k = shifted - SHIFTER;
  const Vector r = (y - k * LN2_HIGH) - k * LN2_LOW;
  const Vector r2 = r * r, r4 = r2 * r2;
  const Vector a = (1 / 2.0 + r * (1 / 6.0)) + (1 / 24.0 + r * (1 / 120.0)) * r2;
  const Vector b = (1 / 720.0 + r * (1 / 5040.0)) + (1 / 40320.0 + r * (1 / 362880.0)) * r2;
  const Vector c = (1 / 3628800.0 + r * (1 / 39916800.0)) + (1 / 479001600.0 + r * (1 / 6227020800.0)) * r2;
  const Vector fraction = (r + r2 * (a + (b + c * r4) * r4)) + 1.0;
  Words bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 52) + (int64_t{1023} << 52);
  Vector power;
  std::memcpy(&power, &bits, sizeof power);
  return x < lost ? Vector{} : fraction * power;
}

// Logits, -inf behind the last one and where the policy (one byte a token, or none) forbids the token.
template <class T>
inline Vector scores(const T* logits, const uint8_t* allowed, int64_t t, int64_t lanes) {
  const Vector x = load(logits + t, lanes, -std::numeric_limits<T>::infinity());
  if (!allowed) return x;
  const Words may = __builtin_convertvector(load_as<Bytes>(allowed + t, lanes, uint8_t{0}), Words);
  return may != 0 ? x : splat(-INFINITE);
}

// Write exp((x - max x) / temperature) and return their sum: 0 where every x is -inf, NaN where one is NaN or +inf.
template <class T>
__attribute__((noinline)) double exponentials(
    const T* logits, const uint8_t* allowed, double temperature, int64_t vocab, double* out) {
  Vector most = splat(-INFINITE);
  sweep(vocab, [&](int64_t t, int64_t lanes) {
    const Vector x = scores(logits, allowed, t, lanes);
    most = x > most ? x : most;
  });
  double highest = most[0];
  for (int64_t i = 1; i < WIDTH; ++i) highest = most[i] > highest ? most[i] : highest;
  if (highest == -INFINITE) highest = 0;  // all are -inf, or NaN, and stay so
  const double scale = 1 / temperature;
  double total = 0;
  for (int64_t start = 0; start < vocab; start += BLOCK) {
    Vector mass{};
    sweep(std::min(BLOCK, vocab - start), [&](int64_t t, int64_t lanes) {
      const Vector e = exp_of_negative((scores(logits, allowed, start + t, lanes) - highest) * scale);
      store(out + start + t, e, lanes);
      mass += e;
    });
    total += sum(mass);
  }
  return total;
}

}  // namespace
