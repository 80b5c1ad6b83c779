/** The form that an auction is begun with; it knows the spec's fields and nothing of how one is run. */

import { el, fill } from "./dom.js";
import { decimal, micros } from "./amounts.js";
import { optionFields } from "./options.js";

const MOST_ADVERTISERS = 6;
const TOP_TOKENS = 6; // of every distribution, for looking at a token

export class Form {
  #onSubmit;
  #rows = el("div", { class: "advertisers" });
  #query = el("input", { id: "query", name: "query", autocomplete: "off", required: true });
  #notice = el("p", { class: "notice bad", role: "alert", hidden: true });
  #submit = el("button", { class: "button primary", type: "submit", text: "Start the auction" });
  #add = el("button", { class: "link", type: "button", text: "Add an advertiser" });
  #options = optionFields(() => this.#showMechanism());
  #isTouched = false;
  #rest = {}; // what a preset says beyond this form, such as budgets and the currency

  /** `onSubmit(spec)` begins an auction; what it throws is shown. */
  constructor(node, onSubmit) {
    this.#onSubmit = onSubmit;
    this.#add.addEventListener("click", () => {
      this.#append({});
      this.#rows.lastChild.querySelector("input").focus();
    });
    const query = el("div", { class: "query-field" }, el("label", { for: "query", text: "The question that the text answers" }), this.#query);
    const advertisers = el("fieldset", {}, el("legend", { class: "label", text: "Advertisers, and what each bids per token" }), this.#rows, this.#add);
    fill(node, query, advertisers, this.#options.node, el("div", { class: "submit" }, this.#submit, this.#notice));
    node.addEventListener("input", () => (this.#isTouched = true));
    node.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
  }

  /** Whether somebody has typed into it. */
  get isTouched() {
    return this.#isTouched;
  }

  /** Fill the form from a spec. */
  show(spec) {
    this.#rest = spec;
    this.#notice.hidden = true;
    this.#query.value = spec.query;
    this.#options.show(spec);
    fill(this.#rows);
    for (const agent of spec.agents) this.#append(agent);
    this.#showMechanism();
  }

  /** The spec as it stands in the form; throws with a line for people where something is missing. */
  get spec() {
    const query = this.#query.value.trim();
    if (!query) throw this.#wrong(this.#query, "Write the question that the text answers.");
    const { agents: _, show_candidates: __, ...rest } = this.#rest;
    const spec = { ...rest, query, agents: this.#agents(), ...this.#options.values() };
    for (const [name, value] of Object.entries(spec)) if (value === null || value === undefined) delete spec[name];
    Object.assign(spec, spec.mechanism === "softmax" ? { show_candidates: true } : { top_tokens: TOP_TOKENS });
    return spec;
  }

  #agents() {
    const taken = new Set();
    const isSoftmax = this.#options.values().mechanism === "softmax";
    return [...this.#rows.children].map((row, index) => {
      const [name, offer, bid] = ["name", "offer", "bid"].map((field) => row.querySelector(`[name="${field}"]`));
      if (!name.value.trim()) throw this.#wrong(name, "Every advertiser has a name.");
      if (!offer.value.trim()) throw this.#wrong(offer, `Say what ${name.value.trim().slice(0, 40)} offers.`);
      const amount = micros(bid.value);
      if (amount === null && !isSoftmax) throw this.#wrong(bid, "A bid is an amount such as 0.002, with at most six decimals.");
      const known = (this.#rest.agents ?? []).find((agent) => agent.name === name.value.trim());
      const id = unique(known?.id ?? slug(name.value) ?? `advertiser-${index + 1}`, taken);
      const { bid: oldBid, value_per_nat: oldValue, budget, ...kept } = known ?? {};
      const isSame = isSoftmax ? oldValue !== undefined : oldBid !== undefined; // a budget is for the mechanism it was set for
      const brief = { ...kept, ...(isSame && budget ? { budget } : {}), id, name: name.value.trim(), offer: offer.value.trim() };
      if (!isSoftmax) return { ...brief, bid: decimal(amount) };
      const value = row.querySelector('[name="value"]');
      if (micros(value.value) === null) throw this.#wrong(value, "A value is an amount such as 1 or 0.5, with at most six decimals.");
      return { ...brief, value_per_nat: decimal(micros(value.value)) };
    });
  }

  #append({ name = "", offer = "", bid = "0.002", value_per_nat: value = "0.002" }) {
    const index = this.#rows.children.length;
    const field = (key, label, initial, more = {}) => {
      const id = `${key}-${index}`;
      const input = el("input", { id, name: key, autocomplete: "off", "aria-label": `${label} of advertiser ${index + 1}`, ...more });
      input.value = initial;
      return el("div", { class: `field-${key}` }, el("label", { for: id, text: label }), input);
    };
    const remove = el("button", { class: "remove", type: "button", "aria-label": `Remove advertiser ${index + 1}`, text: "×" });
    remove.addEventListener("click", () => this.#remove(row));
    const row = el(
      "div",
      { class: `advertiser by-${index}` },
      el("span", { class: "badge", "aria-hidden": "true", text: String.fromCharCode(65 + index) }),
      field("name", "Name", name),
      field("offer", "Offer", offer),
      field("bid", "Bid per token", bid, { inputmode: "decimal" }),
      field("value", "Value per nat", String(value), { inputmode: "decimal" }),
      remove,
    );
    this.#rows.append(row);
    this.#count();
    this.#showMechanism();
  }

  #remove(gone) {
    const left = [...this.#rows.children].filter((row) => row !== gone).map((row) => read(row));
    fill(this.#rows);
    for (const agent of left) this.#append(agent);
    this.#add.focus();
  }

  #count() {
    const num = this.#rows.children.length;
    this.#add.hidden = num >= MOST_ADVERTISERS;
    for (const button of this.#rows.querySelectorAll(".remove")) button.disabled = num <= 1;
  }

  #showMechanism() {
    const isSoftmax = this.#options.values().mechanism === "softmax";
    for (const node of this.#rows.querySelectorAll(".field-value")) node.hidden = !isSoftmax;
    for (const node of this.#rows.querySelectorAll(".field-bid")) node.hidden = isSoftmax;
  }

  #wrong(input, message) {
    input.setAttribute("aria-invalid", "true");
    input.addEventListener("input", () => input.removeAttribute("aria-invalid"), { once: true });
    input.focus();
    return new Error(message);
  }

  /** Begin what the form says; what goes wrong is shown in it. Whether it went well. */
  async send() {
    this.#notice.hidden = true;
    this.#submit.disabled = true;
    try {
      await this.#onSubmit(this.spec);
    } catch (error) {
      this.#notice.textContent = error.message;
      this.#notice.hidden = false;
    }
    this.#submit.disabled = false;
    return this.#notice.hidden;
  }
}

function read(row) {
  const value = (name) => row.querySelector(`[name="${name}"]`).value;
  return { name: value("name"), offer: value("offer"), bid: value("bid"), value_per_nat: value("value") };
}

/** An id for the ledger's account: letters, digits and dashes of a name, or null where it has none. */
function slug(name) {
  const text = name.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 40);
  return text && text !== "reference" ? text : null;
}

function unique(id, taken) {
  let free = id;
  for (let number = 2; taken.has(free); number += 1) free = `${id}-${number}`;
  taken.add(free);
  return free;
}
