/** The text as it grows: one span a token, tinted and underlined by whose influence it carries, each open to be looked at. */

import { el } from "./dom.js";
import { leaning } from "./sides.js";
import { price } from "./amounts.js";

const KEYS = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity };

export class Written {
  #spans = []; // one a token
  #rest = el("span", { class: "rest" }); // what stands in the text and in no token that was seen
  #caret = el("span", { class: "caret", "aria-hidden": "true" });
  #waiting = el("span", { class: "waiting-words", text: "The models are reading the question…" });
  #sides = new Map();
  #currency = "USD";
  #onChoose;
  #chosen = null;

  /** `onChoose(step)` is called when somebody picks a token, by pointer or key. */
  constructor(onChoose) {
    this.#onChoose = onChoose;
    this.node = el("p", {
      class: "written",
      tabindex: 0,
      role: "group",
      dir: "auto",
      "aria-label": "The text so far. Press the arrow keys to look at its tokens one by one.",
      on: { click: (event) => this.#click(event), keydown: (event) => this.#key(event) },
    });
    this.node.append(this.#waiting, this.#caret);
  }

  begin(sides, currency) {
    this.#sides = new Map(sides.map((side) => [side.id, side]));
    this.#currency = currency;
  }

  /** Show what the transcript says: only what is new is touched. */
  update(transcript) {
    const { tokens } = transcript;
    if (this.#spans.length > tokens.length) this.#cut(tokens.length);
    const fresh = document.createDocumentFragment();
    for (let step = this.#spans.length; step < tokens.length; step += 1) {
      fresh.append(...this.#marks(tokens[step], tokens[step - 1]), this.#span(tokens[step], step));
    }
    if (tokens.length > 0) this.#waiting.remove();
    if (fresh.hasChildNodes()) this.node.insertBefore(fresh, this.#rest.isConnected ? this.#rest : this.#caret);
    this.#showRest(transcript);
    if (transcript.settled) this.#caret.remove();
    this.node.classList.toggle("whole", Boolean(transcript.settled));
  }

  /** Mark the token that is looked at, or none. */
  choose(step) {
    this.#chosen?.classList.remove("chosen");
    this.#chosen = this.#spans[step] ?? null;
    this.#chosen?.classList.add("chosen");
  }

  #span(token, step) {
    const lean = leaning(token);
    const look = lean ? `${this.#sides.get(lean.id)?.look ?? "house"} t${Math.max(0, lean.strength)}` : "t0";
    const node = el("span", { class: `token ${look}${token.text === "" ? " silent" : ""}`, text: token.text });
    node.dataset.step = step;
    this.#spans.push(node);
    return node;
  }

  /** In front of the first token that a new bid counted for: whose it is, and how much. */
  #marks(token, before) {
    if (!before) return [];
    const old = new Map(before.agents.map((agent) => [agent.id, agent.bid_micros]));
    const changed = token.agents.filter((agent) => old.has(agent.id) && old.get(agent.id) !== agent.bid_micros);
    return changed.map((agent) => {
      const side = this.#sides.get(agent.id);
      const arrow = agent.bid_micros > old.get(agent.id) ? "↑" : "↓";
      const says = `${side.letter} ${arrow} ${price(agent.bid_micros, this.#currency)}`;
      const label = `From here on ${side.name} bids ${price(agent.bid_micros, this.#currency)}`;
      const node = el("span", { class: `mark ${side.look}`, role: "img", "aria-label": label, data: { says } });
      node.dataset.before = token.step;
      return node;
    });
  }

  /** After a reset: the tokens from this step on never were. */
  #cut(length) {
    const first = this.#spans[length];
    for (let node = first.previousSibling; node?.classList.contains("mark"); node = first.previousSibling) node.remove();
    for (let node = first; node && node !== this.#rest && node !== this.#caret; ) {
      const next = node.nextSibling;
      node.remove();
      node = next;
    }
    this.#spans.length = length;
  }

  #showRest(transcript) {
    let length = 0;
    if (transcript.missing || transcript.settled) for (const { text } of transcript.tokens) length += text.length;
    const text = transcript.missing || transcript.settled ? transcript.text.slice(length) : "";
    if (text === this.#rest.textContent) return;
    this.#rest.textContent = text;
    if (text) this.node.insertBefore(this.#rest, this.#caret.isConnected ? this.#caret : null);
    else this.#rest.remove();
    if (text) this.#waiting.remove();
  }

  #click(event) {
    const step = event.target.closest?.("[data-step]")?.dataset.step;
    if (step !== undefined) this.#onChoose(Number(step));
  }

  #key(event) {
    if (event.key === "Escape") this.#onChoose(null);
    if (!(event.key in KEYS) || this.#spans.length === 0) return;
    event.preventDefault();
    const now = this.#chosen ? Number(this.#chosen.dataset.step) : event.key === "ArrowRight" ? -1 : this.#spans.length;
    this.#onChoose(Math.min(this.#spans.length - 1, Math.max(0, now + KEYS[event.key])));
  }
}
