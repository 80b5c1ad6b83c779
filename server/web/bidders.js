/** The bidders: what each has paid, how much it shapes the text, and its bid, which a slider moves from the next token on. */

import { bar, el, fill, named, setShare } from "./dom.js";
import { badge } from "./sides.js";
import { micros, money, percent, price } from "./amounts.js";

const RANGE = 4; // the slider goes to so many times the highest bid there was at the start
const STATUS = {
  no_bid: "bids nothing now",
  budget_spent: "has spent its budget",
  absent: "is absent",
};

export class Bidders {
  #rows = new Map();
  #currency = "USD";
  #mostMicros = 0;
  #bid;

  /** `bid(agentId, micros)` sends a bid, and resolves with the first step that it counts for. */
  constructor(bid) {
    this.#bid = bid;
    this.node = el("section", { class: "card bidders", "aria-label": "Advertisers" });
    fill(this.node, el("p", { class: "loading", text: "Waiting for the auction to begin…" }));
  }

  /** `mayBid` is whether this viewer may move the sliders. */
  begin(sides, currency, mayBid) {
    this.#currency = currency;
    const bids = sides.map((side) => micros(side.bid ?? "") ?? 0);
    this.#mostMicros = Math.max(1000, RANGE * Math.max(...bids));
    this.#rows.clear();
    fill(this.node, sides.map((side, index) => this.#row(side, bids[index], mayBid && !side.isHouse)));
  }

  update(transcript) {
    const { tokens } = transcript;
    const last = tokens.at(-1);
    for (const [id, row] of this.#rows) {
      for (; row.seen < tokens.length; row.seen += 1) row.sum += tokens[row.seen].agents.find((agent) => agent.id === id)?.influence ?? 0;
      if (row.seen > tokens.length) this.#recount(row, id, tokens);
      const agent = last?.agents.find((one) => one.id === id);
      if (!agent) continue;
      if (row.paid) row.paid.textContent = money(agent.total_micros, this.#currency);
      row.line.hidden = false;
      setShare(row.fill, row.sum / tokens.length);
      row.share.textContent = `${percent(row.sum / tokens.length)} of the text`;
      this.#follow(row, agent, tokens.length);
    }
    if (transcript.settled) this.#settle(transcript);
  }

  /** The last word on what each pays; nobody can bid any more. */
  #settle({ settled }) {
    for (const { id, total_micros: total } of settled.agents) {
      const row = this.#rows.get(id);
      if (!row?.paid || total === undefined) continue;
      row.paid.textContent = money(total, this.#currency);
      row.paid.nextSibling.textContent = "pays";
    }
    this.#rows.forEach((row) => this.#close(row));
  }

  #recount(row, id, tokens) {
    row.seen = tokens.length;
    row.sum = tokens.reduce((sum, token) => sum + (token.agents.find((agent) => agent.id === id)?.influence ?? 0), 0);
  }

  /** The slider stands where the last token's bid was, unless somebody holds it. */
  #follow(row, agent, numTokens) {
    if (!row.slider) return;
    if (agent.status in STATUS && !row.isBusy) row.says.textContent = STATUS[agent.status];
    if (row.from !== null && numTokens > row.from) {
      row.says.textContent = `counts since token ${row.from + 1}`;
      row.from = null;
    }
    if (!row.isBusy && row.from === null && document.activeElement !== row.slider) this.#put(row, agent.bid_micros);
  }

  #put(row, bidMicros) {
    row.slider.value = String(bidMicros);
    this.#tell(row, bidMicros);
  }

  #tell(row, bidMicros) {
    row.output.textContent = price(bidMicros, this.#currency);
    row.slider.style.setProperty("--at", `${Math.min(100, (100 * bidMicros) / this.#mostMicros).toFixed(1)}%`);
    row.slider.setAttribute("aria-valuetext", `${price(bidMicros, this.#currency)} per token`);
  }

  #close(row) {
    if (!row.slider) return;
    row.slider.disabled = true;
    if (!row.says.classList.contains("bad")) row.says.textContent = "";
  }

  #row(side, bidMicros, mayBid) {
    const track = bar(0, side.look);
    const row = { seen: 0, sum: 0, from: null, isBusy: false, fill: track.firstChild, share: el("span", { class: "number", text: "" }) };
    row.line = el("p", { class: "share-line", hidden: true }, track, row.share); // until there is a share that this viewer sees
    const words = el("div", {}, named(side.name), el("p", { class: "offer", text: side.isHouse ? "keeps a fixed weight and never pays" : side.offer }));
    const head = el("div", { class: "bidder-head" }, badge(side), words);
    if (!side.isHouse && side.bid !== null) {
      row.paid = el("span", { text: money(0, this.#currency) });
      head.append(el("p", { class: "paid" }, row.paid, el("small", { text: "paid so far" })));
    }
    this.#rows.set(side.id, row);
    const value = side.valuePerNat === null ? null : `values a text at ${price(micros(side.valuePerNat), this.#currency)} a nat`;
    const lines = value ? [head, el("p", { class: "small muted", text: value })] : [head, row.line];
    if (!value && !side.isHouse && side.bid !== null) lines.push(this.#bidLine(side, row, bidMicros, mayBid));
    return el("div", { class: `bidder ${side.look}`, data: { agent: side.id } }, lines);
  }

  #bidLine(side, row, bidMicros, mayBid) {
    const id = `bid-${side.index}`;
    const step = 10 ** Math.max(0, Math.floor(Math.log10(this.#mostMicros / 40)));
    row.output = el("output", { for: id });
    row.says = el("p", { class: "says", role: "status" });
    row.slider = el("input", { id, type: "range", min: 0, max: Math.ceil(this.#mostMicros / step) * step, step, disabled: !mayBid });
    row.slider.addEventListener("input", () => this.#tell(row, Number(row.slider.value)));
    row.slider.addEventListener("change", () => this.#send(side, row, Number(row.slider.value)));
    this.#put(row, bidMicros);
    const unseen = el("span", { class: "unseen", text: ` of ${side.name.slice(0, 80)}` });
    const label = el("label", { for: id }, el("span", {}, "Bid per token", unseen), row.output);
    return el("div", { class: `bid-line ${side.look}` }, label, row.slider, row.says);
  }

  async #send(side, row, bidMicros) {
    row.isBusy = true;
    row.says.className = "says";
    row.says.textContent = "sending…";
    try {
      row.from = await this.#bid(side.id, bidMicros);
      row.says.textContent = `counts from token ${row.from + 1} on`;
    } catch (error) {
      row.says.className = "says bad";
      row.says.textContent = error.message;
    }
    row.isBusy = false;
  }
}
