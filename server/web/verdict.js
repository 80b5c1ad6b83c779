/** The check: the receipt fetched and verified here in the browser, by arithmetic of its own; downloads and the link. */

import { verify } from "/client/verify.js";
import { el, fill, problem } from "./dom.js";
import { count } from "./amounts.js";

/** verify.js's checks, in words. */
const CHECKS = {
  chain: "Every line is chained to the one before it by its hash",
  commitment: "The seed is the one that was committed to before the first token",
  keys: "Every token’s random numbers follow from that seed",
  "candidates' draws": "Every candidate’s random numbers follow from that seed",
  probabilities: "Every candidate’s chance follows from rewards and values, with and without each advertiser",
  choice: "The text is the one that the random number picks",
  draws: "Every token is the one that its random number picks",
  aggregate: "Every mixture follows from the opinions and the bids",
  "bids and budgets": "Bids counted as they were made, budgets were kept",
  "critical bids": "Every critical bid is the least that keeps its token",
  payments: "Every payment follows from them",
  "charges and totals": "Charges add up to the bill, to the micro",
  ending: "The text ended for the reason given",
  "published head": "It is the very receipt that the stream announced",
};

/** A card that checks the receipt of a settled auction at once. `receipt()` fetches its text; its steps are `noun`s. */
export function verdictOf(auctionId, head, noun, receipt) {
  const says = el("div", { "aria-live": "polite" }, el("p", { class: "loading", text: "Fetching and checking the receipt…" }));
  const tools = el("div", { class: "tools" }, link());
  const node = el(
    "section",
    { class: "card verdict", "aria-labelledby": "verdict-title" },
    el("h2", { id: "verdict-title", text: "Checked in this browser" }),
    el("p", { class: "intro", text: "The receipt holds every number. This page has worked out again what follows from them, and asked the server for nothing else." }),
    says,
    tools,
  );
  check({ auctionId, head, noun, receipt }, says, tools).catch((error) => fill(says, problem(error)));
  return node;
}

async function check({ auctionId, head, noun, receipt }, says, tools) {
  const text = await receipt();
  tools.prepend(download(auctionId, text));
  const verdict = await verify(text, { head });
  const { ok, failure } = verdict;
  const outcome = el("p", {
    class: `outcome ${ok ? "good" : "bad"}`,
    data: { ok, level: verdict.level, steps: verdict.num_steps },
    text: ok ? `✓ The receipt holds: ${count(verdict.num_steps, noun)}` : `✗ It does not hold at ${failure.where}`,
  });
  const unchecked = (verdict.unchecked ?? []).map((text) => el("li", { class: "unchecked" }, el("span", { text })));
  fill(
    says,
    outcome,
    ok ? el("ul", {}, (verdict.checks ?? []).map((name) => el("li", {}, el("span", { text: CHECKS[name] ?? name })))) : el("p", { class: "notice bad", text: failure.message }),
    unchecked.length ? el("details", {}, el("summary", { text: "What arithmetic alone cannot see" }), el("ul", {}, unchecked)) : null,
  );
}

function download(auctionId, text) {
  const save = () => {
    const url = URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" }));
    el("a", { href: url, download: `${auctionId}.receipt.jsonl` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  };
  return el("button", { class: "button quiet slim", type: "button", text: "Download the receipt", on: { click: save } });
}

function link() {
  const button = el("button", { class: "button quiet slim", type: "button", text: "Copy the link" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = "Copied";
    } catch {
      button.textContent = "The link is in the address bar"; // clipboards want https or localhost, and leave
    }
    setTimeout(() => (button.textContent = "Copy the link"), 2_000);
  });
  return button;
}
