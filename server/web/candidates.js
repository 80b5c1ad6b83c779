/** A softmax auction: whole texts as candidates, their chances with and without ads, and what each advertiser moved. */

import { bar, el, fill, named } from "./dom.js";
import { badge } from "./sides.js";
import { money, percent } from "./amounts.js";

const MOST_SHOWN = 12;

export class Candidates {
  #sides = [];
  #currency = "USD";
  #texts = new Map();
  #progress = null;

  constructor() {
    this.#clear();
  }

  #clear() {
    this.node = el("section", { class: "card", "aria-labelledby": "candidates-title", hidden: true });
    this.says = el("p", { class: "muted small", role: "status" });
    this.list = el("div", { class: "candidates" });
    this.node.append(el("h2", { id: "candidates-title", text: "Candidates" }), this.says, this.list);
  }

  begin(sides, currency) {
    this.#sides = sides;
    this.#currency = currency;
    this.node.hidden = false;
  }

  /** Take in one of this mechanism's events. */
  apply(event) {
    if (event.type === "candidates.progress") this.#progress = event;
    if (event.type === "candidate.completed") this.#texts.set(event.index, event.text);
    if (event.type === "auction.finalized") this.#finalize(event);
    else this.#show();
  }

  #show() {
    const { num_done: done = 0, num_candidates: all = 0 } = this.#progress ?? {};
    this.says.textContent = `${done} of ${all} whole texts are written; then one is drawn, by what each is worth to the sponsors.`;
    fill(this.list, [...this.#texts].slice(0, MOST_SHOWN).map(([, text]) => el("article", { class: "candidate" }, el("p", { text }))));
  }

  #finalize(event) {
    const plain = plainWeights(event.candidates);
    const order = [...event.candidates.keys()].sort((a, b) => event.candidates[b].probability - event.candidates[a].probability);
    const shown = order.slice(0, MOST_SHOWN);
    if (!shown.includes(event.chosen)) shown.push(event.chosen);
    const sample = event.effective_sample_size;
    this.says.textContent =
      `${event.candidates.length} candidates, of which one was drawn; effectively ${sample.toFixed(1)} different ones.` +
      (order.length > shown.length ? ` The ${shown.length} likeliest are shown.` : "");
    fill(this.list, shown.map((index) => this.#candidate(event, index, plain[index])));
  }

  #candidate(event, index, before) {
    const candidate = event.candidates[index];
    const isChosen = index === event.chosen;
    const text = candidate.text ?? this.#texts.get(index) ?? (isChosen ? event.text : `candidate ${index + 1}`);
    const moved = this.#sides
      .filter((side) => !side.isHouse)
      .map((side) => [side, event.agents.find((agent) => agent.id === side.id)])
      .filter(([, agent]) => agent?.probabilities_without)
      .flatMap(([side, agent]) => {
        const change = candidate.probability - agent.probabilities_without[index];
        const points = `${change < 0 ? "−" : "+"}${(100 * Math.abs(change)).toFixed(1)}`;
        return [el("dt", { class: "who" }, badge(side), named(side.name)), el("dd", { class: "wide muted", text: "moved its chance by" }), el("dd", { text: `${points} pp` })];
      });
    return el(
      "article",
      { class: `candidate${isChosen ? " chosen" : ""}` },
      isChosen ? el("span", { class: "overline", text: "Drawn" }) : null,
      el("p", { text }),
      el(
        "dl",
        {},
        [el("dt", { text: "without ads" }), el("dd", {}, bar(before, "house")), el("dd", { text: percent(before) })],
        [el("dt", { text: "with ads" }), el("dd", {}, bar(candidate.probability, "ink")), el("dd", { text: percent(candidate.probability) })],
        moved,
      ),
    );
  }

  /** What an advertiser owes by this mechanism, for the bidders' cards. */
  static owed(event, agentId, currency) {
    const agent = event.agents.find((one) => one.id === agentId);
    return agent ? money(agent.payment_micros ?? 0, currency) : "";
  }
}

/** The chances of the candidates with no advertiser: proportional to reference over proposal. */
function plainWeights(candidates) {
  const logs = candidates.map((candidate) => (candidate.log_reference ?? 0) - (candidate.log_proposal ?? 0));
  const top = Math.max(...logs);
  const weights = logs.map((log) => Math.exp(log - top));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}
