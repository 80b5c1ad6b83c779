// The forward pass of the Llama family for a few rows at a time on a CPU: one call, weights read once, in order.
//
// Weights lie in panels of 4 vectors of outputs, input after input, so that a step streams them; as floats, bfloat16 or
// 8-bit integers with a scale an output. Activations, keys and values are floats. Every number is summed in an order
// that depends on its own row alone: not on the other rows, nor on how many tokens are read at once, nor on the number
// of threads. So a row's logits are the same bits alone and in company, read as a prompt or token by token.
//
// Plain C interface for ctypes (models/llama_compiled.py); the vector types are those of GCC and Clang.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
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
constexpr int PAGE = 16;     // tokens
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

// The threads of one call, in step: each passes a barrier only when all have come to it.
struct Team {
  int size = 1;
  std::atomic<int> num_waiting{0}, round{0};

  void barrier() {
    if (size == 1) return;
    const int now = round.load(std::memory_order_relaxed);
    if (num_waiting.fetch_add(1, std::memory_order_acq_rel) + 1 == size) {
      num_waiting.store(0, std::memory_order_relaxed);
      round.store(now + 1, std::memory_order_release);
      return;
    }
    for (int spins = 0; round.load(std::memory_order_acquire) == now; ++spins)
      if (spins > 4000) std::this_thread::yield();  // the core is shared: let whoever is late run
  }
};

struct Share {  // the part [from, to) of `count` units that one thread works on
  int64_t from, to;
  Share(int64_t count, int thread, int num_threads) : from(count * thread / num_threads), to(count * (thread + 1) / num_threads) {}
};

}  // namespace

extern "C" {

enum Kind : int64_t { FLOAT32 = 0, BF16 = 1, INT8 = 2 };

struct Matrix {
  const void* weights;  // as `pack` lays them out
  const float* scale;   // one an output, for INT8
  const float* bias;    // or null
  int64_t num_outputs, num_inputs;
};

struct Layer {
  const float *attention_norm, *query_norm, *key_norm, *mlp_norm;  // those of heads may be null
  Matrix qkv, out, gate_up, down;
};

struct Network {
  int64_t kind, width, num_layers, num_heads, num_kv_heads, head_width, mlp_width;
  int64_t is_bf16_embedding;
  double norm_eps;
  const void* embedding;  // [vocab, width]
  const float* norm;
  Matrix head;
  const Layer* layers;
};

struct Batch {
  int64_t num_tokens, num_rows, num_columns, num_wanted;
  const int64_t *ids, *counts, *lengths, *pages, *wanted;  // as in models/token_batch.py; `wanted` are places in ids
  const float *cos, *sin;                                  // [position, head_width]
  float* const* cache;  // every layer's keys [page, kv head, size, PAGE], then its values [page, kv head, PAGE, size]
};

int64_t num_lanes() { return LANES; }
int64_t page_size() { return PAGE; }

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

float dot(const float* a, const float* b, int64_t size) {
  Floats acc = {};
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) acc += read<Floats>(a + i) * read<Floats>(b + i);
  float total = sum(acc);
  for (; i < size; ++i) total += a[i] * b[i];
  return total;
}

void normalise(const float* x, const float* scale, int64_t size, double eps, float* y) {
  const float factor = 1.0f / std::sqrt(dot(x, x, size) / (float)size + (float)eps);
  for (int64_t i = 0; i < size; ++i) y[i] = scale[i] * (x[i] * factor);
}

void turn(float* head, const float* cos, const float* sin, int64_t size) {
  for (int64_t i = 0; i < size / 2; ++i) {
    const float a = head[i], b = head[i + size / 2];
    head[i] = a * cos[i] - b * sin[i];
    head[i + size / 2] = b * cos[i + size / 2] + a * sin[i + size / 2];
  }
}

void swish_times(const float* gate_up, int64_t size, float* y) {
  int64_t i = 0;
  for (; i + LANES <= size; i += LANES) {
    const Floats gate = read<Floats>(gate_up + i);
    write(y + i, gate / (1.0f + exponential(-gate)) * read<Floats>(gate_up + size + i));
  }
  for (; i < size; ++i) y[i] = gate_up[i] / (1.0f + exponential(fill(-gate_up[i]))[0]) * gate_up[size + i];
}

// Turn `count` whole vectors of scores into e^(score - max), and return their sum.
float exponentiate(float* scores, int64_t count) {
  Floats highest = read<Floats>(scores), total = {};
  for (int64_t j = LANES; j < count; j += LANES) {
    const Floats v = read<Floats>(scores + j);
    highest = v > highest ? v : highest;
  }
  float largest = highest[0];
  for (int i = 1; i < LANES; ++i) largest = std::max(largest, highest[i]);
  for (int64_t j = 0; j < count; j += LANES) {
    const Floats e = exponential(read<Floats>(scores + j) - largest);
    write(scores + j, e);
    total += e;
  }
  return sum(total);
}

// scores[i] = query · key i, for the tokens of one page.
void score_page(const float* query, const float* keys, int64_t size, float* scores) {
  for (int part = 0; part < PAGE; part += LANES) {
    Floats even = {}, odd = {};
    int64_t d = 0;
    for (; d + 2 <= size; d += 2) {
      even += query[d] * read<Floats>(keys + d * PAGE + part);
      odd += query[d + 1] * read<Floats>(keys + (d + 1) * PAGE + part);
    }
    if (d < size) even += query[d] * read<Floats>(keys + d * PAGE + part);
    write(scores + part, even + odd);
  }
}

// The pages of one row, as far as one of its tokens looks.
struct View {
  const int64_t* pages;
  int64_t count;   // of tokens
  int64_t stride;  // from page to page, in floats
};

// y = Σ_j share_j · value_j, for N vectors of the head at once so that the sums stay in registers.
template <int N> void mix(const float* values, const View& view, const float* shares, int64_t size, float factor, float* y) {
  Floats acc[N] = {};
  for (int64_t start = 0; start < view.count; start += PAGE) {
    const float* value = values + view.pages[start / PAGE] * view.stride;
    const int64_t stop = std::min<int64_t>(start + PAGE, view.count);
    for (int64_t j = start; j < stop; ++j, value += size)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) acc[n] += shares[j] * read<Floats>(value + n * LANES);
  }
  for (int n = 0; n < N; ++n) write(y + n * LANES, acc[n] * factor);
}

// What one head of one token gathers from the tokens in view; `scores` has room for them in whole pages.
void attend(const float* query, const float* keys, const float* values, const View& view, int64_t size, float* scores, float* y) {
  const int64_t padded = (view.count + PAGE - 1) / PAGE * PAGE;
  for (int64_t start = 0; start < padded; start += PAGE)
    score_page(query, keys + view.pages[start / PAGE] * view.stride, size, scores + start);
  const float scale = 1.0f / std::sqrt((float)size);
  for (int64_t j = 0; j < view.count; ++j) scores[j] *= scale;
  for (int64_t j = view.count; j < padded; ++j) scores[j] = -INFINITY;
  const float factor = 1.0f / exponentiate(scores, padded);
  int64_t i = 0;
  for (; i + 4 * LANES <= size; i += 4 * LANES) mix<4>(values + i, view, scores, size, factor, y + i);
  if (i + 3 * LANES <= size) { mix<3>(values + i, view, scores, size, factor, y + i); i += 3 * LANES; }
  for (; i + LANES <= size; i += LANES) mix<1>(values + i, view, scores, size, factor, y + i);
  for (; i < size; ++i) {
    float total = 0;
    for (int64_t j = 0; j < view.count; ++j) total += scores[j] * values[view.pages[j / PAGE] * view.stride + j % PAGE * size + i];
    y[i] = total * factor;
  }
}

// One call: where every token stands, and the activations on their way.
struct Pass {
  const Network& net;
  const Batch& batch;
  float* logits;
  Team team;
  std::vector<int64_t> row, position;
  std::vector<float> x, h, qkv, mixed, gate_up;

  Pass(const Network& network, const Batch& tokens, float* out) : net(network), batch(tokens), logits(out) {
    for (int64_t r = 0; r < batch.num_rows; ++r)
      for (int64_t i = 0; i < batch.counts[r]; ++i) {
        row.push_back(r);
        position.push_back(batch.lengths[r] - batch.counts[r] + i);
      }
    const int64_t n = batch.num_tokens;
    x.resize(n * net.width);
    h.resize(n * std::max(net.width, net.mlp_width));
    qkv.resize(n * (net.num_heads + 2 * net.num_kv_heads) * net.head_width);
    mixed.resize(n * net.num_heads * net.head_width);
    gate_up.resize(n * 2 * net.mlp_width);
  }

  void embed(int64_t token) {
    const int64_t start = batch.ids[token] * net.width;
    float* to = &x[token * net.width];
    if (!net.is_bf16_embedding) {
      std::memcpy(to, (const float*)net.embedding + start, net.width * sizeof(float));
      return;
    }
    const uint16_t* from = (const uint16_t*)net.embedding + start;
    for (int64_t i = 0; i < net.width; ++i) to[i] = as<float>((uint32_t)from[i] << 16);
  }

  void place_keys(const Layer& layer, float* keys, float* values, int64_t token) {
    const int64_t size = net.head_width, num_rotated = net.num_heads + net.num_kv_heads;
    float* heads = &qkv[token * (num_rotated + net.num_kv_heads) * size];
    const float *cos = batch.cos + position[token] * size, *sin = batch.sin + position[token] * size;
    for (int64_t head = 0; head < num_rotated; ++head) {
      const float* norm = head < net.num_heads ? layer.query_norm : layer.key_norm;
      if (norm) normalise(heads + head * size, norm, size, net.norm_eps, heads + head * size);
      turn(heads + head * size, cos, sin, size);
    }
    const int64_t place = position[token] % PAGE, num_kv = net.num_kv_heads;
    const int64_t start = pages_of(token)[position[token] / PAGE] * num_kv * PAGE * size;
    for (int64_t head = 0; head < num_kv; ++head) {
      const float *key = heads + (net.num_heads + head) * size, *value = heads + (num_rotated + head) * size;
      for (int64_t d = 0; d < size; ++d) keys[start + (head * size + d) * PAGE + place] = key[d];
      std::memcpy(values + start + (head * PAGE + place) * size, value, size * sizeof(float));
    }
  }

  const int64_t* pages_of(int64_t token) const { return batch.pages + row[token] * batch.num_columns; }

  void attend_heads(const float* keys, const float* values, int64_t token, int64_t kv_head, float* scores) {
    const int64_t size = net.head_width, group = net.num_heads / net.num_kv_heads;
    const int64_t start = kv_head * PAGE * size, stride = (net.num_heads + 2 * net.num_kv_heads) * size;
    const View view{pages_of(token), position[token] + 1, net.num_kv_heads * PAGE * size};
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head)
      attend(&qkv[token * stride + head * size], keys + start, values + start, view, size, scores, &mixed[(token * net.num_heads + head) * size]);
  }

  void run(int thread) {
    const int size = team.size;
    const Share tokens(batch.num_tokens, thread, size), pairs(batch.num_tokens * net.num_kv_heads, thread, size);
    const int64_t longest = *std::max_element(batch.lengths, batch.lengths + batch.num_rows);
    std::vector<float> scores(longest + PAGE);
    const auto product = [&](const Matrix& matrix, const std::vector<float>& from, std::vector<float>& to, bool adds) {
      multiply(net.kind, matrix, from.data(), batch.num_tokens, {to.data(), adds}, thread, size);
      team.barrier();
    };
    const auto each_token = [&](auto&& what) {
      for (int64_t t = tokens.from; t < tokens.to; ++t) what(t);
      team.barrier();
    };
    each_token([&](int64_t t) { embed(t); });
    for (int64_t l = 0; l < net.num_layers; ++l) {
      const Layer& layer = net.layers[l];
      float *keys = batch.cache[2 * l], *values = batch.cache[2 * l + 1];
      each_token([&](int64_t t) { normalise(&x[t * net.width], layer.attention_norm, net.width, net.norm_eps, &h[t * net.width]); });
      product(layer.qkv, h, qkv, false);
      each_token([&](int64_t t) { place_keys(layer, keys, values, t); });
      for (int64_t pair = pairs.from; pair < pairs.to; ++pair)
        attend_heads(keys, values, pair / net.num_kv_heads, pair % net.num_kv_heads, scores.data());
      team.barrier();
      product(layer.out, mixed, x, true);
      each_token([&](int64_t t) { normalise(&x[t * net.width], layer.mlp_norm, net.width, net.norm_eps, &h[t * net.width]); });
      product(layer.gate_up, h, gate_up, false);
      each_token([&](int64_t t) { swish_times(&gate_up[t * 2 * net.mlp_width], net.mlp_width, &h[t * net.mlp_width]); });
      product(layer.down, h, x, true);
    }
    const Share wanted(batch.num_wanted, thread, size);
    for (int64_t i = wanted.from; i < wanted.to; ++i)
      normalise(&x[batch.wanted[i] * net.width], net.norm, net.width, net.norm_eps, &h[i * net.width]);
    team.barrier();
    multiply(net.kind, net.head, h.data(), batch.num_wanted, {logits, false}, thread, size);
  }
};

}  // namespace

// The logits [num_wanted, vocab] behind the wanted tokens; keys and values of all tokens go to their slots.
extern "C" void forward(const Network* network, const Batch* batch, float* logits, int64_t num_threads) {
  Pass pass(*network, *batch, logits);
#ifdef _OPENMP
#pragma omp parallel num_threads((int)num_threads)
  {
#pragma omp single
    pass.team.size = omp_get_num_threads();
    pass.run(omp_get_thread_num());
  }
#else
  (void)num_threads;
  pass.run(0);
#endif
}
