// One step of many auctions, from logits to prices, in three passes over each row: linear rule, coupled sampler.
//
// The formulas and their order are those of aggregation.py, sampling.py and pricing.py, which are the reference. An
// auction is computed by itself, on one thread, in blocks of a fixed size, so that its bits depend on nothing else. The
// r_i are never stored: a draw needs them at one token, TV and a counterfactual by their blocks' sums and in one block.
// fused_clearing.py lays out what comes in and reads what goes out.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "exponentials.hpp"

// From here on a product is rounded before it is added: what i puts into a sum must be what is taken out of it again,
// or r_i would not be 0 where nobody else has mass.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

namespace {

constexpr double TINY = std::numeric_limits<double>::min();

struct Auction {  // as fused_clearing.py packs it
  int64_t num_rows, num_payers, pricing;
  const uint8_t* allowed;
  double temperature, floor, token_uniform, price_uniform;
};

enum Pricing : int64_t { CRITICAL_BID, EXPECTED, FIRST_PRICE, FREE };
enum Fault : int64_t { NONE, BAD_WEIGHT, NO_WEIGHT, BAD_DISTRIBUTION };  // in the order of aggregation._FAULTS, from 1

// The weighted means of the active agents (those with weight), in units of the weight of all but the leader, who has
// the largest: see aggregation._weighted_means.
struct Mixture {
  struct Agent {
    int64_t row;
    const double* p;
    double weight, own, others, back;  // b_i; b_i / unit, 0 for the leader; B_-i; unit / B_-i, 1 for the leader
  };
  std::vector<Agent> agents;
  int64_t leader;
  bool is_alone;
  double lead, back;  // the leader's b / unit; unit / B
  double total[BLOCK], without_leader[BLOCK];

  Mixture(const double* weights, int64_t num_rows, const double* p, int64_t vocab) : leader(0) {
    double sum_all = 0, sum_rest = 0;
    for (int64_t row = 0; row < num_rows; ++row) {
      if (weights[row] == 0) continue;
      agents.push_back({row, p + row * vocab, weights[row], 0, 0, 1});
      sum_all += weights[row];
      if (weights[row] > agents[leader].weight) leader = static_cast<int64_t>(agents.size()) - 1;
    }
    for (const Agent& agent : agents) sum_rest += &agent == &agents[leader] ? 0 : agent.weight;
    is_alone = agents.size() == 1;
    const double unit = is_alone ? agents[leader].weight : sum_rest;
    lead = agents[leader].weight / unit;
    back = unit / sum_all;
    for (Agent& agent : agents) {
      const bool leads = &agent == &agents[leader];
      agent.others = leads ? sum_rest : sum_all - agent.weight;
      if (leads) continue;
      agent.own = agent.weight / unit;
      agent.back = unit / agent.others;
    }
  }

  // Fill `total` and `without_leader` with Σ b_j p_j / unit over one block.
  void mix(int64_t start, int64_t size) {
    sweep(size, [&](int64_t t, int64_t lanes) {
      Vector rest{};
      for (const Agent& agent : agents) rest += load(agent.p + start + t, lanes) * agent.own;
      store(without_leader + t, rest, WIDTH);
      store(total + t, load(agents[leader].p + start + t, lanes) * lead + rest, WIDTH);
    });
  }

  // Write q of the mixed block and return its sum.
  double aggregate(int64_t size, double* q) const {
    Vector mass{};
    sweep(size, [&](int64_t t, int64_t lanes) {
      const Vector x = load(total + t, lanes) * back;
      store(q + t, x, lanes);
      mass += x;
    });
    return sum(mass);
  }

  // r_i of the mixed block at t, counted from its start; without anybody else it is p_i.
  Vector without(const Agent& agent, Vector p, int64_t t, int64_t lanes) const {
    if (is_alone) return p;
    return (load((&agent == &agents[leader] ? without_leader : total) + t, lanes) - p * agent.own) * agent.back;
  }

  // Write (r_i - p_i)^+ of the mixed block, where it is asked for, and return its sum.
  double excess(const Agent& agent, int64_t start, int64_t size, double* out) const {
    Vector mass{};
    sweep(size, [&](int64_t t, int64_t lanes) {
      const Vector p = load(agent.p + start + t, lanes);
      const Vector change = without(agent, p, t, lanes) - p;
      const Vector x = change > Vector{} ? change : Vector{};
      if (out) store(out + t, x, lanes);
      mass += x;
    });
    return sum(mass);
  }
};

struct Place {
  int64_t token;
  double below;  // the mass of the ids before it
};

// The first token where the running sum of masses exceeds u times their total, else the last that has mass, as
// sampling.inverse_cdf; `fill(start, size)` returns the masses of a block, `sums` holds those of all blocks.
template <class F>
Place inverse_cdf(const double* sums, int64_t vocab, double uniform, F fill) {
  const int64_t num_blocks = (vocab + BLOCK - 1) / BLOCK;
  double total = 0, base = 0, end = 0, inside = 0;
  for (int64_t b = 0; b < num_blocks; ++b) total += sums[b];
  const double target = uniform * total;
  int64_t block = 0;
  for (int64_t b = 0; b < num_blocks && end <= target; ++b) {
    if (sums[b] == 0) continue;
    block = b;
    base = end;
    end += sums[b];
  }
  const int64_t start = block * BLOCK, size = std::min(BLOCK, vocab - start);
  const double* mass = fill(start, size);
  Place found{start, base};
  for (int64_t t = 0; t < size && base + inside <= target; ++t) {
    if (mass[t] == 0) continue;
    found = {start + t, base + inside};
    inside += mass[t];
  }
  return found;
}

// Fault of an auction's weights, as aggregation._fault_signs.
Fault weight_fault(const double* weights, int64_t num_rows) {
  bool is_any = false;
  for (int64_t row = 0; row < num_rows; ++row) {
    if (weights[row] != 0 && !(weights[row] >= 1e-100 && weights[row] <= 1e100)) return BAD_WEIGHT;
    is_any = is_any || weights[row] != 0;
  }
  return is_any ? NONE : NO_WEIGHT;
}

// Leave a row's own distribution in `p` but for the factor that is returned; NaN: it is no distribution.
template <class T>
double shape(const T* logits, const Auction& auction, bool has_weight, int64_t vocab, double* p) {
  const double mass = exponentials(logits, auction.allowed, auction.temperature, vocab, p);
  const double kept = mass > 0 ? 1 - auction.floor : 0, total = kept + auction.floor;
  if (std::isnan(mass) || (has_weight && !(std::fabs(total - 1) <= 1e-4))) return std::nan("");
  const double unit = has_weight ? total : 1;
  const double factor = mass > 0 ? kept / (mass * unit) : 0;
  if (auction.floor == 0) return factor;
  int64_t num_allowed = 0;
  for (int64_t t = 0; t < vocab; ++t) num_allowed += !auction.allowed || auction.allowed[t];
  const double share = auction.floor / unit / static_cast<double>(num_allowed);
  for (int64_t t = 0; t < vocab; ++t) p[t] = p[t] * factor + (!auction.allowed || auction.allowed[t] ? share : 0);
  return 1;
}

// f(b, B) = B (ln(1 + b/B) - b/(b + B)), as pricing.expected_linear.
double interval_weight(double weight, double others) {
  if (others == 0) return 0;
  const double x = weight / others;
  return others * (x < 1e-4 ? x * x * (0.5 - x * (2 / 3.0 - 0.75 * x)) : std::log1p(x) - x / (1 + x));
}

double critical_bid(const Mixture::Agent& agent, double p, double r, double threshold) {
  if (!(threshold > r && p > r)) return 0;
  const double z = agent.others * (threshold - r) / (p - threshold > TINY ? p - threshold : TINY);
  return z < agent.weight ? z : agent.weight;
}

double payment(Pricing pricing, const Mixture::Agent& agent, double tv, double critical) {
  if (pricing == CRITICAL_BID) return critical;
  if (pricing == EXPECTED) return tv * interval_weight(agent.weight, agent.others);
  return pricing == FIRST_PRICE ? agent.weight : 0;
}

constexpr int64_t HEAD = 4, NUM_COLUMNS = 7;  // of an auction's results
enum Column : int64_t { P_TOKEN, R_TOKEN, TV, INFLUENCE, CRITICAL, PAYMENT, COUNTERFACTUAL };

// Draw and price from the sums of q's blocks, and behind them those of every active agent's excess.
void draw(const Auction& auction, Mixture& mixture, const std::vector<double>& sums, const double* uniforms,
          int64_t vocab, const double* q, double* results) {
  const int64_t num_blocks = (vocab + BLOCK - 1) / BLOCK, num_rows = auction.num_rows;
  const Place place =
      inverse_cdf(sums.data(), vocab, auction.token_uniform, [&](int64_t start, int64_t) { return q + start; });
  const double q_token = q[place.token], threshold = auction.price_uniform * q_token;
  results[1] = static_cast<double>(place.token), results[2] = q_token, results[3] = place.below;
  const auto cell = [&](Column column, int64_t row) -> double& { return results[HEAD + column * num_rows + row]; };
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t column = 0; column < NUM_COLUMNS; ++column) cell(Column(column), row) = 0;
    cell(R_TOKEN, row) = q_token, cell(COUNTERFACTUAL, row) = -1;  // what a dropped agent gets
  }
  const int64_t start = place.token / BLOCK * BLOCK, lane = place.token % WIDTH;
  mixture.mix(start, std::min(BLOCK, vocab - start));
  double shares = 0;
  const double* own_sums = sums.data();
  for (const Mixture::Agent& agent : mixture.agents) {
    const double p = agent.p[place.token];
    const double r = mixture.without(agent, splat(p), place.token - start - lane, WIDTH)[lane];
    own_sums += num_blocks;
    double tv = 0;
    for (int64_t b = 0; b < num_blocks; ++b) tv += own_sums[b];
    const bool pays = agent.row < auction.num_payers;
    const double critical = pays ? critical_bid(agent, p, r, threshold) : 0;
    cell(P_TOKEN, agent.row) = p, cell(R_TOKEN, agent.row) = r, cell(TV, agent.row) = tv;
    cell(INFLUENCE, agent.row) = agent.weight / mixture.agents[mixture.leader].weight * p;
    cell(CRITICAL, agent.row) = critical;
    cell(PAYMENT, agent.row) = pays ? payment(Pricing(auction.pricing), agent, tv, critical) : 0;
    shares += cell(INFLUENCE, agent.row);
  }
  double excess[BLOCK];
  own_sums = sums.data();
  for (const Mixture::Agent& agent : mixture.agents) {
    own_sums += num_blocks;
    cell(INFLUENCE, agent.row) /= shares;
    if (!(cell(CRITICAL, agent.row) > 0 && cell(TV, agent.row) > 0)) continue;
    const auto fill = [&](int64_t first, int64_t size) {
      mixture.mix(first, size);
      mixture.excess(agent, first, size, excess);
      return static_cast<const double*>(excess);
    };
    cell(COUNTERFACTUAL, agent.row) =
        static_cast<double>(inverse_cdf(own_sums, vocab, uniforms[agent.row], fill).token);
  }
}

template <class T>
Fault clear(const T* logits, const Auction& auction, const double* weights, const double* uniforms, int64_t vocab,
            double* p, double* q, double* results) {
  const int64_t num_blocks = (vocab + BLOCK - 1) / BLOCK, num_rows = auction.num_rows;
  if (const Fault fault = weight_fault(weights, num_rows)) return fault;
  std::vector<double> factors;
  for (int64_t row = 0; row < num_rows; ++row) {
    factors.push_back(shape(logits + row * vocab, auction, weights[row] != 0, vocab, p + row * vocab));
    if (std::isnan(factors[row])) return BAD_DISTRIBUTION;
  }
  Mixture mixture(weights, num_rows, p, vocab);
  std::vector<double> sums((mixture.agents.size() + 1) * num_blocks);
  for (int64_t b = 0; b < num_blocks; ++b) {
    const int64_t start = b * BLOCK, size = std::min(BLOCK, vocab - start);
    for (int64_t row = 0; row < num_rows; ++row) {
      double* own = p + row * vocab + start;
      sweep(size, [&](int64_t t, int64_t lanes) { store(own + t, load(own + t, lanes) * factors[row], lanes); });
    }
    mixture.mix(start, size);
    double* sum = sums.data() + b;
    *sum = mixture.aggregate(size, q + start);
    for (const Mixture::Agent& agent : mixture.agents) *(sum += num_blocks) = mixture.excess(agent, start, size, nullptr);
  }
  draw(auction, mixture, sums, uniforms, vocab, q, results);
  return NONE;
}

template <class T>
void clear_all(const T* logits, int64_t num_auctions, int64_t vocab, const Auction* auctions, const double* weights,
               const double* uniforms, double* p, double* q, double* results) {
  for (const Auction* auction = auctions; auction != auctions + num_auctions; ++auction) {
    const int64_t rows = auction->num_rows;
    results[0] = static_cast<double>(clear(logits, *auction, weights, uniforms, vocab, p, q, results));
    logits += rows * vocab, p += rows * vocab, q += vocab;
    weights += rows, uniforms += rows, results += HEAD + NUM_COLUMNS * rows;
  }
}

}  // namespace

// logits (float64, or else float32) and p are [rows of all auctions, vocab], q is [auctions, vocab], weights and
// uniforms are one a row; an auction's results are its fault, token, q of the token, the mass below it, and one column a
// row of each in the order of `Column`.
extern "C" void clear_auctions(const void* logits, int64_t is_float64, int64_t num_auctions, int64_t vocab,
                               const void* auctions, const double* weights, const double* uniforms, double* p,
                               double* q, double* results) {
  const Auction* each = static_cast<const Auction*>(auctions);
  if (is_float64) {
    clear_all(static_cast<const double*>(logits), num_auctions, vocab, each, weights, uniforms, p, q, results);
  } else {
    clear_all(static_cast<const float*>(logits), num_auctions, vocab, each, weights, uniforms, p, q, results);
  }
}
