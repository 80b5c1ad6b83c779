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
  #presets = [FALLBACK];

  /** `begin(spec)` creates an auction and goes to it. */
  constructor(begin) {
    this.node = document.getElementById("start");
    this.#form = new Form(document.getElementById("form"), begin);
    this.#form.show(FALLBACK.spec);
    document.getElementById("hawaii").addEventListener("click", (event) => this.#runFirst(event.currentTarget));
  }

  /** Ask the server for its examples and its auctions; the page works without either. */
  async fetch(client) {
    const [presets, listed] = await Promise.allSettled([client.presets(), client.list({})]);
    if (presets.status === "fulfilled" && presets.value.presets.length) this.#presets = presets.value.presets;
    this.#showPresets();
    if (listed.status === "fulfilled") this.#showRecent(listed.value.auctions);
  }

  async #runFirst(button) {
    button.disabled = true;
    const { spec } = this.#presets.find((preset) => preset.name === "hawaii") ?? FALLBACK;
    this.#form.show(spec);
    if (!(await this.#form.send())) document.getElementById("setup").scrollIntoView();
    button.disabled = false;
  }

  #showPresets() {
    const place = document.getElementById("presets");
    const buttons = this.#presets.map((preset, index) => {
      const button = el("button", { type: "button", "aria-pressed": index === 0, text: preset.title });
      button.addEventListener("click", () => {
        for (const other of place.children) other.setAttribute("aria-pressed", other === button);
        this.#form.show(preset.spec);
      });
      return button;
    });
    fill(place, buttons);
    this.#form.show(this.#presets[0].spec);
  }

  #showRecent(auctions) {
    document.getElementById("recent").hidden = auctions.length === 0;
    const items = auctions.slice(-MOST_LISTED).reverse().map((auction) =>
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
