/** The ribbon under the text: each token a column, each side's share of it a piece, so that a moved bid is seen at once. */

import { el } from "./dom.js";
import { colour } from "./sides.js";

const MOST_COLUMNS = 400; // beyond it a column stands for several tokens
const FIRST_COLUMNS = 64;

export class Ribbon {
  #canvas = el("canvas", { "aria-hidden": "true" });
  #sides = [];
  #columns = []; // per token: the shares, in the order of the sides
  #place = FIRST_COLUMNS; // for so many columns there is room from the start
  #shown = -1;

  constructor() {
    const caption = el("p", { class: "overline" }, el("span", { text: "Influence, token by token" }));
    this.node = el("div", { class: "ribbon-box", hidden: true }, caption, this.#canvas);
    this.#watchSize();
  }

  begin(sides, { max_tokens: maxTokens }) {
    this.#sides = sides;
    this.#place = Math.min(maxTokens ?? MOST_COLUMNS, FIRST_COLUMNS);
  }

  update(transcript) {
    const { tokens } = transcript;
    if (this.#columns.length > tokens.length) this.#columns.length = tokens.length;
    for (let step = this.#columns.length; step < tokens.length; step += 1) {
      const shares = new Map(tokens[step].agents.map((agent) => [agent.id, agent.influence ?? 0]));
      this.#columns.push(this.#sides.map((side) => shares.get(side.id) ?? 0));
    }
    this.node.hidden = !this.#columns.some((shares) => shares.some((share) => share > 0));
    if (this.#shown !== this.#columns.length) this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (this.node.hidden || width === 0) return;
    const scale = devicePixelRatio || 1;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    this.#shown = this.#columns.length;
    const group = Math.ceil(this.#columns.length / MOST_COLUMNS);
    const num = Math.ceil(this.#columns.length / group);
    const step = width / Math.max(num, this.#place);
    const fills = this.#sides.map((side) => fillOf(pen, side));
    for (let at = 0; at < num; at += 1) {
      const columns = this.#columns.slice(at * group, (at + 1) * group);
      let top = 0;
      this.#sides.forEach((side, index) => {
        const share = columns.reduce((sum, shares) => sum + shares[index], 0) / columns.length;
        pen.fillStyle = fills[index];
        pen.globalAlpha = side.isHouse ? 0.35 : 0.9;
        pen.fillRect(at * step, top * height, Math.max(1, step - 1), share * height);
        top += share;
      });
    }
  }

  #watchSize() {
    new ResizeObserver(() => this.draw()).observe(this.#canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }
}

/** Sides differ by pattern too: the first is full, the others are striped, each wider than the one before. */
function fillOf(pen, side) {
  const ink = colour(side);
  if (side.isHouse || side.index === 0) return ink;
  const tile = new OffscreenCanvas(4, 2 + (side.index % 5));
  const tilePen = tile.getContext("2d");
  tilePen.fillStyle = ink;
  tilePen.fillRect(0, 0, tile.width, tile.height - 1);
  return pen.createPattern(tile, "repeat");
}
