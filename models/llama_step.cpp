// The forward pass of the Llama family for a few rows at a time on a CPU: one call, weights read once, in order.
//
// Activations, keys and values are floats, whatever the weights are. Every number is summed in an order that depends on
// its own row alone: not on the other rows, nor on how many tokens are read at once, nor on the number of threads. So a
// row's logits are the same bits alone and in company, read as a prompt or token by token.
//
// Plain C interface for ctypes (models/llama_compiled.py).

#include <atomic>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "vectors.hpp"
#include "panels.hpp"
#include "attention.hpp"

extern "C" {

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

int64_t page_size() { return PAGE; }

}  // extern "C"

namespace {

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
