/** Who is mentioned as weight moves: the demonstration of the paper's authors, on this auction's own question. */

import { el, fill, problem, setShare } from "./dom.js";
import { percent } from "./amounts.js";

const POINTS = 7;
const SEEDS = 8;

/** A card with a button: a sweep writes dozens of texts. `sweep(body, onRow)` runs it on the server. */
export function sweepOf(spec, sides, sweep) {
  const bidders = sides.filter((side) => !side.isHouse);
  const place = el("div", { "aria-live": "polite" });
  const select = el("select", { id: "sweep-agent" }, bidders.map((side) => el("option", { value: side.id, text: side.name.slice(0, 60) })));
  const button = el("button", { class: "button quiet slim", type: "button", text: `Write ${POINTS * SEEDS} texts` });
  button.addEventListener("click", async () => {
    button.disabled = true;
    const side = bidders.find((one) => one.id === select.value);
    const rows = el("div", { class: "sweep-rows" });
    const example = el("p", { class: "sweep-example" });
    const waiting = el("p", { class: "loading", text: "Writing…" });
    fill(place, keyOf(bidders), rows, waiting, example);
    try {
      await sweep({ spec, agent_id: side.id, points: POINTS, seeds: SEEDS, rules: [spec.rule ?? "linear"] }, (row) => {
        if (row.weight !== undefined) rows.append(rowOf(row, bidders, example));
      });
      waiting.remove();
    } catch (error) {
      fill(place, problem(error));
    }
    button.disabled = false;
  });
  return el(
    "section",
    { class: "card wide explore", "aria-labelledby": "sweep-title" },
    el("h2", { id: "sweep-title", text: "As weight moves" }),
    el("p", { class: "intro", text: "The same question, with one advertiser’s share λ of all bids going from 0 to 1: who is named in the texts?" }),
    el("div", { class: "tools" }, el("label", { for: "sweep-agent" }, "Weight of", select), button),
    place,
  );
}

function keyOf(bidders) {
  const only = bidders.map((side) => el("li", {}, el("span", { class: `seg ${side.look}` }), `only ${side.name.slice(0, 40)}`));
  const several = el("li", {}, el("span", { class: "seg both" }), bidders.length === 2 ? "both" : "several");
  return el("ul", { class: "key" }, bidders.length > 1 ? [only, several] : only, el("li", {}, el("span", { class: "seg none" }), "nobody"));
}

function rowOf(row, bidders, example) {
  const parts = bidders.map((side) => [side.look, row.only[side.id] ?? 0, `only ${side.name.slice(0, 40)}`]);
  const several = 1 - row.none - parts.reduce((sum, [, share]) => sum + share, 0);
  parts.splice(1, 0, ["both", Math.max(0, several), "several"]);
  parts.push(["none", row.none, "nobody"]);
  const says = parts.filter(([, share]) => share > 0).map(([, share, name]) => `${name} ${percent(share)}`).join(", ");
  const label = `λ ${row.weight.toFixed(2)}: ${says}. Show one of these texts.`;
  const stack = el("span", { class: "stack" }, parts.map(([look, share]) => segment(look, share)));
  const button = el("button", { type: "button", "aria-label": label, title: says }, stack);
  button.addEventListener("click", () => (example.textContent = row.example));
  return el("div", { class: "sweep-row" }, el("span", { class: "number", text: `λ ${row.weight.toFixed(2)}` }), button);
}

function segment(look, share) {
  const node = el("span", { class: `seg ${look}` });
  setShare(node, share);
  return node;
}
