/** One token looked at: what every side wanted, the draw, and who paid how much for what would have come otherwise. */

import { bar, el, fill, named, setShare } from "./dom.js";
import { badge, who } from "./sides.js";
import { money, percent, price } from "./amounts.js";

const STATUS = { no_bid: "no bid", budget_spent: "budget spent", absent: "absent", reference: "fixed weight" };

export class Looking {
  #sides = [];
  #byId = new Map();
  #currency = "USD";
  #pricing = "critical_bid";
  #shown = null; // the token
  #title = el("h2", { id: "looking-title" });
  #chance = el("span", { class: "muted" });
  #before;
  #next;
  #body = el("div");

  /** `onChoose(step)` asks for another token, `null` for none. */
  constructor(onChoose) {
    this.#before = button("←", "The token before", () => onChoose(this.#shown.step - 1));
    this.#next = button("→", "The next token", () => onChoose(this.#shown.step + 1));
    const walk = el("div", { class: "walk" }, this.#before, this.#next, button("Close", null, () => onChoose(null)));
    const head = el("header", {}, this.#title, this.#chance, walk);
    this.node = el("section", { class: "card looking", "aria-labelledby": "looking-title", hidden: true }, head, this.#body);
  }

  begin(sides, { currency, pricing }) {
    this.#sides = sides;
    this.#byId = new Map(sides.map((side) => [side.id, side]));
    this.#currency = currency;
    this.#pricing = pricing;
  }

  /** Show a token of a text of so many, or nothing where there is none. */
  show(token, numTokens) {
    this.node.hidden = !token;
    if (!token) return;
    const { step, text, probability } = token;
    fill(this.#title, `Token ${step + 1} of ${numTokens}: `, el("q", { text: text.trim() ? text : visible(text) }));
    this.#before.disabled = step === 0;
    this.#next.disabled = step >= numTokens - 1;
    if (token === this.#shown) return; // what is below depends on the token alone
    this.#shown = token;
    this.#chance.textContent = probability === undefined ? "" : `had a chance of ${percent(probability)}`;
    const hasShares = token.agents.length > 0;
    fill(
      this.#body,
      el("p", { class: "story", text: hasShares ? this.#story(token) : "What each side wanted and paid is shown to the auction’s owner." }),
      token.top_tokens ? this.#wants(token) : null,
      token.draw ? drawn(token) : null,
      hasShares ? this.#table(token) : null,
    );
  }

  /** In a sentence or two, what happened. */
  #story(token) {
    const isCritical = this.#pricing === "critical_bid";
    const bidders = token.agents.filter((agent) => !this.#byId.get(agent.id)?.isHouse);
    const needed = bidders.filter((agent) => agent.exact_critical_bid_micros > 0).map((agent) => {
      const least = money(agent.exact_critical_bid_micros, this.#currency);
      const other = agent.counterfactual_text;
      const otherwise = other === null || other === undefined ? "" : `: below, “${plain(other)}” would have come`;
      return `${this.#nameOf(agent)} had to bid at least ${least} for this token${isCritical ? ", and pays that" : ""}${otherwise}.`;
    });
    if (needed.length === 0 && bidders.some((agent) => agent.exact_critical_bid_micros !== null)) needed.push("Nobody’s bid was needed for this token.");
    if (isCritical) return needed.join(" ");
    const paid = bidders.filter((agent) => agent.exact_payment_micros > 0).map((agent) => `${this.#nameOf(agent)} pays ${money(agent.exact_payment_micros, this.#currency)}`);
    return [...needed, paid.length ? `By this pricing ${paid.join(", ")}.` : "Nobody pays for it."].join(" ");
  }

  #nameOf({ id }) {
    const name = this.#byId.get(id)?.name ?? id;
    return name.length > 60 ? `${name.slice(0, 60)}…` : name;
  }

  #wants(token) {
    const { aggregate, agents } = token.top_tokens;
    const columns = this.#sides.filter((side) => agents[side.id]);
    return el(
      "div",
      {},
      el("h3", {}, "What each wanted ", el("span", { class: "muted small", text: "(· is a space)" })),
      el(
        "div",
        { class: "wants" },
        column(el("h4", { text: "The mixture, drawn from" }), aggregate, token, "house"),
        columns.map((side) => column(el("h4", {}, badge(side), named(side.name)), agents[side.id], token, side.look)),
      ),
    );
  }

  #table(token) {
    const heads = ["", "Weight", "Share", "Wanted it", "Without it", "Critical bid", "Pays", "Otherwise"];
    const rows = token.agents.map((agent) => {
      const side = this.#byId.get(agent.id);
      const currency = this.#currency;
      const weight = agent.status === "bid" || agent.status === "reference" ? price(agent.effective_bid_micros, currency) : STATUS[agent.status];
      const critical = agent.exact_critical_bid_micros;
      const other = agent.counterfactual_text;
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, side ? who(side) : agent.id),
        cell(weight),
        cell(percent(agent.influence)),
        cell(percent(agent.probability)),
        cell(percent(agent.probability_without)),
        cell(side?.isHouse || critical === null ? "–" : money(critical, currency)),
        cell(side?.isHouse ? "never" : money(agent.exact_payment_micros, currency)),
        el("td", {}, other === null || other === undefined ? "the same" : el("span", { class: "word", text: visible(other) })),
      );
    });
    const table = el("table", {}, el("thead", {}, el("tr", {}, heads.map((text) => el("th", { scope: "col", text })))), el("tbody", {}, rows));
    const scroller = el("div", { class: "scroller", tabindex: 0, role: "region", "aria-label": "Who pays for this token" }, table);
    return el("div", {}, el("h3", { text: "Who pays" }), scroller);
  }
}

/** The draw: where in the mixture the committed random number fell. */
function drawn(token) {
  const { uniform, cdf_below: below } = token.draw;
  const hit = el("span", { class: "hit" });
  hit.style.setProperty("--from", `${100 * below}%`);
  setShare(hit, token.probability);
  const at = el("span", { class: "at" });
  at.style.setProperty("--from", `${100 * uniform}%`);
  const says = `The committed random number ${uniform.toFixed(4)} fell into this token’s piece of the mixture, from ${below.toFixed(4)} to ${(below + token.probability).toFixed(4)}.`;
  const track = el("span", { class: "track", "aria-hidden": "true" }, hit, at);
  return el("div", {}, el("h3", { text: "The draw" }), el("div", { class: "draw" }, track, el("p", { class: "small muted", text: says })));
}

function column(head, words, token, look) {
  const items = words.map(({ id, text, probability }) =>
    el(
      "li",
      { class: id === token.token_id ? "drawn" : "" },
      el("span", { class: "word", text: visible(text) }),
      el("span", { class: "number", text: percent(probability) }),
      bar(probability, look),
    ),
  );
  return el("section", {}, head, el("ol", {}, items));
}

function button(text, label, click) {
  return el("button", { class: "button quiet slim", type: "button", "aria-label": label, text, on: { click } });
}

function cell(text) {
  return el("td", { text });
}

/** A token as it can be seen: spaces, breaks and the end have signs. */
export function visible(text) {
  if (text === "") return "⟨end or half a sign⟩";
  return text.replace(/\n/g, "↵").replace(/^ | $/g, "·");
}

/** A token within a sentence. */
function plain(text) {
  return text.trim() || visible(text);
}
