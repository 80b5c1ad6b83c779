// Matrix products for a few rows, with weights as floats, bfloat16 or 8-bit integers (needs vectors.hpp).
//
// A matrix lies in panels of 4 vectors of outputs, input after input, so that a product reads it once, in order. Each sum
// is one chain over the inputs, whatever the other rows are and however the panels are shared among threads.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

extern "C" {

enum Kind : int64_t { FLOAT32 = 0, BF16 = 1, INT8 = 2 };

struct Matrix {
  const void* weights;  // as `pack` lays them out
  const float* scale;   // one an output, for INT8
  const float* bias;    // or null
  int64_t num_outputs, num_inputs;
};

int64_t num_lanes() { return LANES; }

// Lay out [num_outputs, num_inputs] numbers of `kind` in panels; `to` has room for the outputs rounded up to LANES.
void pack(const void* from, int64_t num_outputs, int64_t num_inputs, int64_t bytes, void* to) {
  const int64_t padded = (num_outputs + LANES - 1) / LANES * LANES;
#ifdef __linux__
  const uintptr_t huge = 2 << 20, start = ((uintptr_t)to + huge - 1) / huge * huge;
  const uintptr_t stop = ((uintptr_t)to + padded * num_inputs * bytes) / huge * huge;
  if (stop > start) madvise((void*)start, stop - start, MADV_HUGEPAGE);  // only advice: without it all still works
#endif
  std::memset(to, 0, padded * num_inputs * bytes);
  for (int64_t first = 0; first < padded; first += PANEL) {
    const int64_t panel_width = std::min<int64_t>(PANEL, padded - first);
    char* panel = (char*)to + first * num_inputs * bytes;
    for (int64_t j = 0; j < std::min(panel_width, num_outputs - first); ++j)
      for (int64_t k = 0; k < num_inputs; ++k)
        std::memcpy(panel + (k * panel_width + j) * bytes, (const char*)from + ((first + j) * num_inputs + k) * bytes, bytes);
  }
}

}  // extern "C"

namespace {

struct Share {  // the part [from, to) of `count` units that one thread works on
  int64_t from, to;
  Share(int64_t count, int thread, int num_threads) : from(count * thread / num_threads), to(count * (thread + 1) / num_threads) {}
};

// sums[row][vector] = x·weightsᵀ for M rows and B vectors of outputs, from one panel; x is [num_inputs, M].
template <class T, int M, int B>
__attribute__((noinline)) void multiply_tile(const T* weights, int64_t num_inputs, const float* x, Floats* sums) {
  Floats acc[M][B] = {};
  for (int64_t k = 0; k < num_inputs; ++k, weights += B * LANES, x += M) {
    Floats w[B];
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) {
      if (b * LANES * sizeof(T) % 64 == 0) __builtin_prefetch((const char*)(weights + b * LANES) + AHEAD);
      w[b] = weights_at(weights + b * LANES);
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
      for (int b = 0; b < B; ++b) acc[m][b] += x[m] * w[b];
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int b = 0; b < B; ++b) sums[m * B + b] = acc[m][b];
}

template <class T, int M, int B> struct Tiles {  // the tile of at most M rows that `num_rows` rows need
  static void multiply(int num_rows, const T* weights, int64_t num_inputs, const float* x, Floats* sums) {
    if (num_rows == M) return multiply_tile<T, M, B>(weights, num_inputs, x, sums);
    Tiles<T, M - 1, B>::multiply(num_rows, weights, num_inputs, x, sums);
  }
};
template <class T, int B> struct Tiles<T, 0, B> {
  static void multiply(int, const T*, int64_t, const float*, Floats*) {}
};

// Rows in tiles of at most ROWS, each tile [num_inputs, its rows], so that a tile's next inputs lie side by side.
void transpose(const float* x, int64_t num_rows, int64_t num_inputs, std::vector<float>& to) {
  to.resize(num_rows * num_inputs);
  for (int64_t row = 0; row < num_rows; row += ROWS) {
    const int64_t rows = std::min<int64_t>(ROWS, num_rows - row);
    float* tile = &to[row * num_inputs];
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t k = 0; k < num_inputs; ++k) tile[k * rows + m] = x[(row + m) * num_inputs + k];
  }
}

struct Output {
  float* y;
  bool adds;  // to what is there
};

// One tile's sums to their places: scaled, with bias, the padding left out.
void store(const Matrix& matrix, const Floats* sums, int num_rows, int num_vectors, int64_t first, int64_t row, Output out) {
  for (int m = 0; m < num_rows; ++m) {
    float* y = out.y + (row + m) * matrix.num_outputs;
    for (int b = 0; b < num_vectors; ++b) {
      float lanes[LANES];
      write(lanes, sums[m * num_vectors + b]);
      const int64_t start = first + b * LANES, stop = std::min<int64_t>(start + LANES, matrix.num_outputs);
      for (int64_t j = start; j < stop; ++j) {
        float value = lanes[j - start];
        if (matrix.scale) value *= matrix.scale[j];
        if (matrix.bias) value += matrix.bias[j];
        y[j] = out.adds ? y[j] + value : value;
      }
    }
  }
}

template <class T, int B>
void multiply_panel(const Matrix& matrix, int64_t first, const float* tiles, int64_t num_rows, Output out) {
  const T* weights = (const T*)matrix.weights + first * matrix.num_inputs;
  Floats sums[ROWS * B];
  for (int64_t row = 0; row < num_rows; row += ROWS) {
    const int rows = (int)std::min<int64_t>(ROWS, num_rows - row);
    Tiles<T, ROWS, B>::multiply(rows, weights, matrix.num_inputs, tiles + row * matrix.num_inputs, sums);
    store(matrix, sums, rows, B, first, row, out);
  }
}

template <class T>
void multiply_as(const Matrix& matrix, const float* x, int64_t num_rows, Output out, int thread, int num_threads) {
  const int64_t num_vectors = (matrix.num_outputs + LANES - 1) / LANES;
  const Share panels((num_vectors + 3) / 4, thread, num_threads);
  static thread_local std::vector<float> tiles;
  transpose(x, num_rows, matrix.num_inputs, tiles);
  for (int64_t panel = panels.from; panel < panels.to; ++panel) {
    const auto multiply = [&](auto what) { what(matrix, panel * PANEL, tiles.data(), num_rows, out); };
    switch (std::min<int64_t>(4, num_vectors - 4 * panel)) {
      case 4: multiply(multiply_panel<T, 4>); break;
      case 3: multiply(multiply_panel<T, 3>); break;
      case 2: multiply(multiply_panel<T, 2>); break;
      default: multiply(multiply_panel<T, 1>);
    }
  }
}

void multiply(int64_t kind, const Matrix& matrix, const float* x, int64_t num_rows, Output out, int thread, int num_threads) {
  if (kind == FLOAT32) multiply_as<float>(matrix, x, num_rows, out, thread, num_threads);
  if (kind == BF16) multiply_as<uint16_t>(matrix, x, num_rows, out, thread, num_threads);
  if (kind == INT8) multiply_as<int8_t>(matrix, x, num_rows, out, thread, num_threads);
}

}  // namespace
