/** A softmax auction: whole texts as candidates, their chances with and without ads, and what each advertiser moved. */

import { bar, el, fill } from "./dom.js";
import { badge, who } from "./sides.js";
import { money, percent } from "./amounts.js";

const MOST_SHOWN = 12;

export class Candidates {
  #bidders = [];
  #currency = "USD";
  #texts = new Map();
  #progress = null;
  #says = el("p", { class: "muted small", role: "status" });
  #list = el("div", { class: "candidates" });
  #moved = el("div", { class: "moved" });

  constructor() {
    this.node = el("section", { class: "card texts", "aria-labelledby": "candidates-title", hidden: true });
    this.node.append(el("h2", { id: "candidates-title", text: "Candidates" }), this.#says, this.#moved, this.#list);
  }

  begin(sides, currency) {
    this.#bidders = sides.filter((side) => !side.isHouse);
    this.#currency = currency;
    this.node.hidden = false;
  }

  /** Take in one of this mechanism's events. */
  apply(event) {
    if (event.type === "candidates.progress") this.#progress = event;
    if (event.type === "candidate.completed") this.#texts.set(event.index, event.text ?? `candidate ${event.index + 1}`);
    if (event.type === "auction.finalized") this.#finalize(event);
    else this.#show();
  }

  #show() {
    const { num_done: done = 0, num_candidates: all = 0 } = this.#progress ?? {};
    this.#says.textContent = `${done} of ${all} whole texts are written; then one is drawn, by what each is worth to the sponsors.`;
    fill(this.#list, [...this.#texts.values()].slice(0, MOST_SHOWN).map((text) => el("article", { class: "candidate" }, el("p", { text }))));
  }

  #finalize(event) {
    const { candidates, chosen, effective_sample_size: sample } = event;
    const hasChances = candidates.every((candidate) => candidate.probability !== undefined); // shown to the owner
    const plain = hasChances ? plainChances(candidates) : [];
    const order = [...candidates.keys()].sort((a, b) => (candidates[b].probability ?? 0) - (candidates[a].probability ?? 0));
    const shown = order.slice(0, MOST_SHOWN);
    if (!shown.includes(chosen)) shown.push(chosen);
    const worth = sample === undefined ? "" : `, worth ${sample.toFixed(1)} independent ones`;
    const cut = order.length > shown.length ? ` The ${shown.length} likeliest are shown.` : "";
    this.#says.textContent = `${candidates.length} whole texts were written${worth}, and one was drawn.${cut}`;
    if (hasChances) fill(this.#moved, this.#movedTable(event));
    fill(this.#list, shown.map((index) => this.#candidate(event, index, plain[index])));
  }

  #candidate(event, index, before) {
    const candidate = event.candidates[index];
    const isChosen = index === event.chosen;
    const text = candidate.text ?? this.#texts.get(index) ?? (isChosen ? event.text : `candidate ${index + 1}`);
    const { probability: after } = candidate;
    const chances = before === undefined ? null : el(
      "dl",
      {},
      [el("dt", { text: "without ads" }), el("dd", {}, bar(before, "house")), el("dd", { text: percent(before) })],
      [el("dt", { text: "with ads" }), el("dd", {}, bar(after, "with")), el("dd", { text: percent(after) })],
    );
    const moves = before === undefined ? null : el("ul", { class: "moves", "aria-label": "Moved by" }, this.#bidders.map((side) => this.#move(side, event, index)));
    return el(
      "article",
      { class: `candidate${isChosen ? " chosen" : ""}`, data: { index, probability: after } },
      isChosen ? el("span", { class: "overline", text: "Drawn" }) : null,
      el("p", { text }),
      chances,
      moves,
    );
  }

  /** By how many percentage points an advertiser moved the chance of a text. */
  #move(side, event, index) {
    const agent = event.agents.find((one) => one.id === side.id);
    if (!agent?.probabilities_without) return null;
    const change = event.candidates[index].probability - agent.probabilities_without[index];
    const points = (100 * Math.abs(change)).toFixed(1);
    const sign = points === "0.0" ? "±" : change < 0 ? "−" : "+";
    const unseen = el("span", { class: "unseen", text: `${side.name.slice(0, 60)}: ` });
    return el("li", {}, badge(side), unseen, `${sign}${points} points`);
  }

  /** What each advertiser's value did to the whole choice, and what that costs it. */
  #movedTable(event) {
    const heads = ["Advertiser", "Moved", "Pays", "Without it"];
    const rows = this.#bidders.map((side) => {
      const agent = event.agents.find((one) => one.id === side.id);
      const without = agent?.probabilities_without ?? [];
      const moved = without.reduce((sum, chance, index) => sum + Math.abs(chance - event.candidates[index].probability), 0) / 2;
      const other = agent?.chosen_without === event.chosen ? "the same text" : this.#textOf(event, agent?.chosen_without);
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, who(side)),
        el("td", { text: percent(moved) }),
        el("td", { text: agent ? money(agent.payment_micros, this.#currency) : "" }),
        el("td", { class: "words", text: other }),
      );
    });
    const table = el("table", {}, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, rows));
    return el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "What each advertiser moved" }, table);
  }

  #textOf(event, index) {
    return event.candidates[index]?.text ?? this.#texts.get(index) ?? `candidate ${(index ?? 0) + 1}`;
  }
}

/** The chances of the candidates with no advertiser: proportional to reference over proposal. */
function plainChances(candidates) {
  const logs = candidates.map((candidate) => (candidate.log_reference ?? 0) - (candidate.log_proposal ?? 0));
  const top = Math.max(...logs);
  const weights = logs.map((log) => Math.exp(log - top));
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}
