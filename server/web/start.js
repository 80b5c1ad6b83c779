/** The start: the one click, the examples, the form, and the auctions that this ledger holds. */

import { el, fill, named } from "./dom.js";
import { count } from "./amounts.js";
import { Form } from "./form.js";

const FALLBACK = {
  name: "hawaii",
  title: "Vacations in Hawaii",
  spec: {
    query: "Vacations in Hawaii",
    agents: [
      { id: "alpha", name: "Alpha Airlines", offer: "flights to Hawaii", bid: "0.002", budget: "0.10" },
      { id: "beta", name: "Beta Resort", offer: "a quiet beach resort", bid: "0.002", budget: "0.10" },
    ],
    temperature: 0.7,
    max_tokens: 48,
  },
};
const MOST_LISTED = 8;

export class Start {
  #form;
  #presets = null; // until the server has been asked

  /** `begin(spec)` creates an auction and goes to it. */
  constructor(begin) {
    this.node = document.getElementById("start");
    this.#form = new Form(document.getElementById("form"), begin);
    this.#form.show(FALLBACK.spec);
    document.getElementById("hawaii").addEventListener("click", (event) => this.#runFirst(event.currentTarget));
  }

  /** Ask the server for its examples and its auctions; the page works without either. */
  async fetch(client) {
    const isFirst = this.#presets === null;
    const examples = isFirst ? client.presets() : null;
    const [presets, listed] = await Promise.allSettled([examples, client.list({ limit: MOST_LISTED, newest: true })]);
    if (isFirst) this.#showPresets(presets.value?.presets ?? []);
    if (listed.status === "fulfilled") this.#showRecent(listed.value.auctions);
  }

  async #runFirst(button) {
    button.disabled = true;
    const { spec } = this.#presets?.find((preset) => preset.name === "hawaii") ?? FALLBACK;
    this.#form.show(spec);
    if (!(await this.#form.send())) document.getElementById("setup").scrollIntoView();
    button.disabled = false;
  }

  #showPresets(presets) {
    this.#presets = presets.length ? presets : [FALLBACK];
    const place = document.getElementById("presets");
    const buttons = this.#presets.map((preset, index) => {
      const button = el("button", { type: "button", "aria-pressed": String(index === 0) }, preset.title, el("small", { text: kindOf(preset.spec) }));
      button.addEventListener("click", () => {
        for (const other of place.children) other.setAttribute("aria-pressed", other === button);
        this.#form.show(preset.spec);
      });
      return button;
    });
    fill(place, buttons);
    if (!this.#form.isTouched) this.#form.show(this.#presets[0].spec);
  }

  #showRecent(auctions) {
    document.getElementById("recent").hidden = auctions.length === 0;
    const items = auctions.map((auction) =>
      el(
        "li",
        {},
        el(
          "a",
          { href: `#${auction.auction_id}` },
          named(auction.query.slice(0, 120)),
          el("bdi", { class: "text", text: auction.text.slice(0, 200) || "no text yet" }),
          el("span", { class: "state", text: `${auction.state} · ${count(auction.num_tokens, "token")}` }),
        ),
      ),
    );
    fill(document.getElementById("recent-list"), items);
  }
}

/** What sort of auction an example is, in a few words. */
function kindOf({ agents, reference_weight: house, mechanism }) {
  const isSoftmax = mechanism === "softmax" ? ", whole texts" : "";
  return `${count(agents.length, "advertiser")}${Number(house ?? 0) > 0 ? " and the house" : ""}${isSoftmax}`;
}
