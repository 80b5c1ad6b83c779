/** A line chart in its place: uPlot with this page's type and colours, redrawn when the place or the theme changes. */

import uPlot from "./vendor/uPlot.esm.js";
import { el } from "./dom.js";

export const stepped = uPlot.paths.stepped({ align: 1 }); // what is paid is paid with a token

const FONT = "12px Inter, system-ui, sans-serif";

export class Plot {
  #options;
  #data;
  #plot = null;

  /** `options(ink)` gives uPlot's options without a size; `ink` = { text, line }, the colours of now. */
  constructor(label, options) {
    this.#options = options;
    this.node = el("div", { class: "chart", role: "img", "aria-label": label });
    new ResizeObserver(() => this.#fit()).observe(this.node);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#make());
  }

  /** Columns: x first, then a series each. */
  show(data) {
    this.#data = data;
    if (this.#plot) this.#plot.setData(data);
    else this.#make();
  }

  #fit() {
    const { clientWidth: width, clientHeight: height } = this.node;
    if (width === 0) return;
    if (this.#plot) this.#plot.setSize({ width, height });
    else this.#make();
  }

  #make() {
    const { clientWidth: width, clientHeight: height } = this.node;
    if (width === 0 || !this.#data) return;
    this.#plot?.destroy();
    const style = getComputedStyle(this.node);
    const ink = { text: style.getPropertyValue("--ink-3").trim(), line: style.getPropertyValue("--line").trim() };
    this.#plot = new uPlot({ ...this.#options(ink), width, height }, this.#data, this.node);
  }
}

/** An axis in this page's type. */
export function axis(ink, { size = 30, ...others } = {}) {
  const lines = { stroke: ink.line, width: 1 };
  return { stroke: ink.text, font: FONT, labelFont: FONT, labelSize: 18, grid: lines, ticks: { show: false }, size, gap: 6, ...others };
}
