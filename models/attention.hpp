// Attention of one token to its row's pages of keys and values (needs vectors.hpp).
#pragma once

namespace {

constexpr int PAGE = 16;  // tokens

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

}  // namespace
