/** What stands above an auction: the question and its terms, who sponsors the text, how far it is, pause and stop. */

import { el, fill, named } from "./dom.js";
import { count } from "./amounts.js";

const WORDS = { critical_bid: "critical bid", kl_clarke: "KL-Clarke", first_price: "first price", log_linear: "log-linear" };

export class AuctionHead {
  #query = el("h1", { dir: "auto", text: "…" });
  #terms = el("p", { class: "terms" });
  #disclosure = el("p", { class: "disclosure" });
  #progress = el("p", { class: "progress" });
  #pause = el("button", { class: "button quiet slim", type: "button", text: "Pause", disabled: true });
  #skip = el("button", { class: "button quiet slim", type: "button", text: "Skip to the end", hidden: true });
  #stop = el("button", { class: "button quiet slim", type: "button", text: "Stop", hidden: true });
  #maxTokens = 0;
  #mayStop = false;

  constructor({ onPause, onSkip, onStop }) {
    this.#pause.addEventListener("click", onPause);
    this.#skip.addEventListener("click", onSkip);
    this.#stop.addEventListener("click", onStop);
    const again = el("a", { class: "button quiet slim", href: "#", text: "New auction" });
    const words = el("div", {}, el("p", { class: "overline", text: "The question" }), this.#query, this.#terms);
    this.node = el("header", { class: "question" }, words, el("p", { class: "actions" }, this.#pause, this.#skip, this.#stop, again));
    this.bar = el("div", { class: "bar-top" }, el("div", { class: "bar-inner" }, this.#disclosure, this.#progress));
    this.#disclose([]);
  }

  /** What anybody may know of the auction, before its stream has begun. */
  summary(summary, mayStop) {
    this.#mayStop = mayStop;
    this.#query.textContent = summary.query;
    document.title = `${summary.query.slice(0, 60)} · tokenauction`;
    this.#disclose(summary.agents);
    if (summary.state === "joining") this.#progress.textContent = "Advertisers may still join";
  }

  begin(created) {
    const { spec, disclosure } = created;
    this.#maxTokens = spec.max_tokens;
    this.#query.textContent = spec.query;
    if (disclosure) this.#disclose(disclosure.by);
    const isSoftmax = spec.mechanism === "softmax";
    const mechanism = isSoftmax ? ["softmax auction"] : [spec.rule, spec.sampler, spec.pricing];
    const seed = created.seed_source === "caller" ? "seed given" : "seed drawn and committed";
    this.#terms.textContent = [...mechanism.map((word) => WORDS[word] ?? word), `temperature ${spec.temperature}`, seed, created.model.name].join(" · ");
  }

  progress({ numTokens, settled, isPaused, isReplaying, numWaiting }) {
    this.#progress.textContent = this.#says(numTokens, settled, isPaused, isReplaying, numWaiting);
    this.#progress.dataset.state = settled ? "settled" : isPaused ? "paused" : "writing";
    this.#pause.textContent = isPaused ? "Resume" : "Pause";
    this.#pause.setAttribute("aria-pressed", isPaused);
    this.#pause.disabled = numTokens === 0;
    this.#pause.hidden = Boolean(settled);
    this.#skip.hidden = !isReplaying;
    this.#stop.hidden = Boolean(settled) || isReplaying || !this.#mayStop;
  }

  #says(numTokens, settled, isPaused, isReplaying, numWaiting) {
    if (settled) return `${settled.posted ? "Settled" : "Ended without a bill"} · ${count(settled.num_tokens, "token")}`;
    if (isPaused) return `Paused at token ${numTokens}${numWaiting ? ` · the auction goes on, ${numWaiting} more to show` : ""}`;
    if (isReplaying) return `Replay from the ledger · token ${numTokens}`;
    if (numTokens === 0) return "Beginning";
    return this.#maxTokens ? `Writing · token ${numTokens} of at most ${this.#maxTokens}` : `Writing · token ${numTokens}`;
  }

  /** Always there: that the text is paid for, and by whom. */
  #disclose(sponsors) {
    const names = sponsors.flatMap((sponsor, index) => [index === 0 ? null : index === sponsors.length - 1 ? "and" : ",", named(sponsor.name)]);
    fill(this.#disclosure, el("span", { class: "tag", text: "Sponsored" }), sponsors.length ? "by" : "text", names);
  }
}
