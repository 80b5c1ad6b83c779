/** The bill: who pays what for the text, and what that bought. */

import { el } from "./dom.js";
import { who } from "./sides.js";
import { count, money, percent } from "./amounts.js";

const REASONS = {
  end: "the text came to its end",
  max_tokens: "it reached its most tokens",
  sentences: "it has its sentences",
  budget_spent: "every budget was spent",
  no_bid: "nobody bid any more",
  cancelled: "it was stopped",
  error: "something went wrong, so nobody pays",
};

/** The card of a settled auction. */
export function billOf(transcript, sides) {
  const { settled, created } = transcript;
  const { currency } = settled;
  const owed = new Map(settled.agents.map((agent) => [agent.id, agent]));
  const rows = sides.filter((side) => !side.isHouse).map((side) => rowOf(side, owed.get(side.id), transcript.tokens, currency));
  const details = transcript.tokens.length > 0 ? ["Influence", "Paid for", "Its bids were"] : []; // whole texts have none
  const total = settled.total_micros === undefined ? "" : money(settled.total_micros, currency);
  return el(
    "section",
    { class: "card bill", "aria-labelledby": "bill-title" },
    el("h2", { id: "bill-title", text: "The bill" }),
    el("p", { class: "intro", text: `${count(settled.num_tokens, "token")}; ${REASONS[settled.finish_reason] ?? settled.finish_reason}.` }),
    el(
      "div",
      { class: "scroller", tabindex: 0, role: "region", "aria-label": "Who pays what" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ["Advertiser", ...details, "Pays"].map((text) => el("th", { scope: "col", text })))),
        el("tbody", {}, rows),
        el("tfoot", {}, el("tr", {}, el("th", { scope: "row", text: "Total" }), details.map(() => el("td")), el("td", { class: "total", text: total }))),
      ),
    ),
    created ? el("p", { class: "promise", text: created.guarantee.summary }) : null,
    settled.voids.length ? el("p", { class: "promise", text: `What took this auction out of that promise: ${settled.voids.join("; ")}.` }) : null,
  );
}

function rowOf(side, agent, tokens, currency) {
  const parts = tokens.map((token) => token.agents.find((one) => one.id === side.id)).filter(Boolean);
  const influence = parts.reduce((sum, part) => sum + part.influence, 0) / (parts.length || 1);
  const numPaid = parts.filter((part) => part.exact_payment_micros > 0).length;
  const bids = parts.reduce((sum, part) => sum + part.effective_bid_micros, 0);
  const unknown = agent ? "" : "not shown to you";
  return el(
    "tr",
    { data: { agent: side.id, micros: agent?.total_micros } },
    el("th", { scope: "row" }, who(side)),
    tokens.length > 0 && [percent(influence), count(numPaid, "token"), money(bids, currency)].map((text) => el("td", { text: parts.length ? text : "–" })),
    el("td", { text: agent ? money(agent.total_micros, currency) : unknown }),
  );
}
