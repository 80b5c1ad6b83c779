/** What each advertiser has paid so far: the running chart, and its last values as numbers. */

import { el, fill, named } from "./dom.js";
import { colour } from "./sides.js";
import { money, price } from "./amounts.js";
import { Plot, axis, stepped } from "./plot.js";

const SVG = "http://www.w3.org/2000/svg";

const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]; // tokens from one tick to the next

export class Payments {
  #sides = [];
  #columns = [[0]]; // tokens, then micros per side
  #values = el("ul", { class: "chart-values", "aria-label": "Paid so far" });
  #currency = "USD";
  #plot = null;
  #hint = el("p", { class: "small muted", text: "What is paid shows here, token by token." });

  constructor() {
    this.node = el("section", { class: "card chart-card", "aria-labelledby": "payments-title" });
    this.node.append(el("h2", { id: "payments-title", text: "Payments" }), this.#hint, this.#values);
  }

  begin(sides, currency) {
    this.#sides = sides.filter((side) => !side.isHouse && side.bid !== null); // whose numbers this viewer sees
    this.#currency = currency;
    this.#columns = [[0], ...this.#sides.map(() => [0])];
    this.#plot ??= new Plot("Payments of each advertiser as the text grows; the numbers are in the list above", (ink) => this.#options(ink));
    this.node.append(this.#plot.node);
    fill(this.#values, this.#sides.map((side) => el("li", {}, sampleLine(side), named(side.name), el("span", { class: "number" }))));
    this.#hint.remove();
    this.#show();
  }

  update(transcript) {
    const { tokens } = transcript;
    if (this.#sides.length === 0) return this.#sayPrivate();
    const known = this.#columns[0].length - 1;
    if (known > tokens.length) for (const column of this.#columns) column.length = tokens.length + 1;
    for (let step = this.#columns[0].length - 1; step < tokens.length; step += 1) this.#push(tokens[step], step);
    if (known !== tokens.length) this.#show();
    return undefined;
  }

  /** The chart's own last values, in micros by id: what a bill can be compared with. */
  get last() {
    return Object.fromEntries(this.#sides.map((side, index) => [side.id, this.#columns[index + 1].at(-1)]));
  }

  #push(token, step) {
    const totals = new Map(token.agents.map((agent) => [agent.id, agent.total_micros]));
    this.#columns[0].push(step + 1);
    this.#sides.forEach((side, index) => {
      const column = this.#columns[index + 1];
      column.push(totals.get(side.id) ?? column.at(-1));
    });
  }

  #show() {
    this.#plot.show(this.#columns.map((column, index) => (index === 0 ? column : column.map((micros) => micros / 1e6))));
    const { last } = this;
    [...this.#values.children].forEach((item, index) => {
      const side = this.#sides[index];
      item.dataset.agent = side.id;
      item.dataset.micros = last[side.id];
      item.lastChild.textContent = money(last[side.id], this.#currency);
    });
  }

  #sayPrivate() {
    this.#hint.textContent = "What advertisers pay is shown to them and to the auction’s owner.";
    fill(this.node, this.node.firstChild, this.#hint);
  }

  #options(ink) {
    const values = (_, ticks) => ticks.map((tick) => price(Math.round(tick * 1e6), this.#currency));
    return {
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: (_, low, high) => [0, Math.max(high, 10)] }, y: { range: (_, low, high) => [0, high * 1.08 || 0.001] } },
      axes: [axis(ink, { incrs: WHOLE }), axis(ink, { values, size: 62 })],
      series: [{}, ...this.#sides.map((side) => ({ stroke: colour(side), width: 2.2, dash: side.dash, paths: stepped, points: { show: false } }))],
    };
  }
}

/** A piece of a side's line, as the chart draws it. */
function sampleLine(side) {
  const svg = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "line");
  svg.setAttribute("class", side.look);
  svg.setAttribute("viewBox", "0 0 26 8");
  svg.setAttribute("aria-hidden", "true");
  for (const [name, value] of Object.entries({ x1: 0, x2: 26, y1: 4, y2: 4, "stroke-dasharray": side.dash.join(" ") })) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}
