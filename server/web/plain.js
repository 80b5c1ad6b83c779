/** The text without ads beside the one that was sold: the same seed, the house model alone. */

import { el, fill, problem } from "./dom.js";

/** A card that asks for the plain text at once. `withoutAds()` fetches { text }. */
export function plainOf(text, withoutAds) {
  const place = el("div", { "aria-live": "polite" }, el("p", { class: "loading", text: "Writing it again without ads…" }));
  withoutAds().then(
    (plain) => fill(place, el("p", { class: "written", text: plain.text || "The house model alone says nothing." })),
    (error) => fill(place, problem(error)),
  );
  return el(
    "section",
    { class: "card wide plain", "aria-labelledby": "plain-title" },
    el("h2", { id: "plain-title", text: "The same text, without ads" }),
    el("p", { class: "intro", text: "Written from the same seed by the house model alone: what the sponsors changed." }),
    el(
      "div",
      { class: "pair" },
      el("div", {}, el("p", { class: "overline", text: "Sponsored" }), el("p", { class: "written", text })),
      el("div", {}, el("p", { class: "overline", text: "Without ads" }), place),
    ),
  );
}
