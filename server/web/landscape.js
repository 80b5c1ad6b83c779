/** What if somebody had bid otherwise: spend and influence of one advertiser against its own bid, from what is on record. */

import { el, fill, problem } from "./dom.js";
import { colour } from "./sides.js";
import { percent, price } from "./amounts.js";
import { Plot, axis } from "./plot.js";

const OF_TOKENS =
  "Along this text, token by token: what an advertiser would spend in expectation, and its influence, at every bid of its own. The others’ bids stay.";
const OF_TEXTS = "Among these candidates: what an advertiser would pay, and how far it would move the choice, at every value of its own. The others’ values stay.";

/** A card with a choice of advertiser. `landscape(agentId)` fetches the points. */
export function landscapeOf(sides, currency, isToken, landscape) {
  const bidders = sides.filter((side) => !side.isHouse);
  const place = el("div", { "aria-live": "polite" });
  const select = el("select", { id: "landscape-agent" }, bidders.map((side) => el("option", { value: side.id, text: side.name.slice(0, 60) })));
  const show = async () => {
    const side = bidders.find((one) => one.id === select.value);
    fill(place, el("p", { class: "loading", text: "Computing…" }));
    try {
      fill(place, ...(await drawnOf(side, currency, await landscape(side.id))));
    } catch (error) {
      fill(place, problem(error));
    }
  };
  select.addEventListener("change", show);
  show();
  return el(
    "section",
    { class: "card explore", "aria-labelledby": "landscape-title" },
    el("h2", { id: "landscape-title", text: "Had it bid otherwise" }),
    el("p", { class: "intro", text: isToken ? OF_TOKENS : OF_TEXTS }),
    el("div", { class: "tools" }, el("label", { for: "landscape-agent" }, "Advertiser", select)),
    place,
  );
}

async function drawnOf(side, currency, { exact, reason, points, per, own_bid_micros: own }) {
  if (!exact || points.length === 0) return [el("p", { class: "notice", text: reason || "This auction’s record is not enough to say." })];
  const columns = [points.map((point) => point.bid_micros / 1e6), points.map((point) => point.spend_micros / 1e6), points.map((point) => point.influence)];
  const at = points.reduce((best, point) => (Math.abs(point.bid_micros - own) < Math.abs(best.bid_micros - own) ? point : best));
  const plot = new Plot(`Spend and influence of ${side.name.slice(0, 80)} against its own bid`, (ink) => options(ink, side, currency, own, per));
  queueMicrotask(() => plot.show(columns));
  const key = el(
    "ul",
    { class: "key" },
    el("li", { text: "— spend, left" }),
    el("li", { text: "- - influence, right" }),
    el("li", { text: `┊ its ${per === "nat" ? "value" : "bid"}, ${price(own, currency)}: spends ${price(Math.round(at.spend_micros), currency)}, ${percent(at.influence)} influence` }),
  );
  return [plot.node, key];
}

function options(ink, side, currency, own, per) {
  const stroke = colour(side);
  const amounts = (_, ticks) => ticks.map((tick) => price(Math.round(tick * 1e6), currency));
  return {
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false }, y: { range: (_, low, high) => [0, high * 1.05 || 0.001] }, share: { range: [0, 1] } },
    axes: [
      axis(ink, { values: amounts, size: 30, label: per === "nat" ? "own value per nat" : "own bid per token" }),
      axis(ink, { values: amounts, size: 62 }),
      axis(ink, { values: (_, ticks) => ticks.map(percent), side: 1, scale: "share", size: 48 }),
    ],
    series: [{}, { stroke, width: 2.4, points: { show: false } }, { stroke, width: 1.8, dash: [6, 5], scale: "share", points: { show: false } }],
    hooks: { draw: [(plot) => mark(plot, own / 1e6, ink.text)] },
  };
}

/** A dotted line at the bid that it made. */
function mark(plot, at, stroke) {
  const x = plot.valToPos(at, "x", true);
  const { top, height } = plot.bbox;
  plot.ctx.save();
  plot.ctx.strokeStyle = stroke;
  plot.ctx.lineWidth = devicePixelRatio || 1;
  plot.ctx.setLineDash([2, 4]);
  plot.ctx.beginPath();
  plot.ctx.moveTo(x, top);
  plot.ctx.lineTo(x, top + height);
  plot.ctx.stroke();
  plot.ctx.restore();
}
