/** The options of an auction as fields: each with its choices, its default, and what it means in one line. */

import { el } from "./dom.js";

const TOKEN = "token";
const SOFTMAX = "softmax";

/** Of each: the spec's name, a label, a hint, its choices or what it may be, and for which mechanism it is there. */
const OPTIONS = [
  {
    name: "mechanism",
    label: "Auction",
    hint: "Token by token, or between whole texts.",
    choices: { token: "token auction", softmax: "softmax auction" },
  },
  {
    name: "rule",
    label: "Rule",
    of: TOKEN,
    hint: "How opinions are mixed. Linear keeps the promise that a higher bid never hurts.",
    choices: { linear: "linear: a weighted mean", log_linear: "log-linear: a weighted product" },
  },
  {
    name: "pricing",
    label: "Pricing",
    of: TOKEN,
    hint: "Critical bid: the least bid that keeps the token.",
    choices: { critical_bid: "critical bid", expected: "expected critical bid", kl_clarke: "KL-Clarke", first_price: "first price", free: "free" },
  },
  {
    name: "token_ms",
    label: "Pace",
    of: TOKEN,
    hint: "Slow enough to move a bid while the text is written.",
    choices: { 160: "to read along", 600: "slow, to steer", 0: "as fast as it goes" },
    read: Number,
  },
  {
    name: "reference_weight",
    label: "House model’s weight",
    of: TOKEN,
    hint: "Takes part without an ad, never pays: a soft reserve price. 0 for none.",
    amount: "0",
  },
  {
    name: "temperature",
    label: "Temperature",
    hint: "Of every model’s own distribution. Empty: 0.7 for tokens, 1 for whole texts.",
    number: { initial: "", min: 0.001, max: 100, step: "any" },
  },
  { name: "max_tokens", label: "Most tokens", hint: "The text ends by itself before, or here.", number: { initial: 48, min: 1, max: 2048, step: 1 } },
  {
    name: "seed",
    label: "Seed",
    hint: "Empty: the server draws and commits to one. Given: the auction can be repeated.",
    number: { initial: "", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
  },
  {
    name: "num_candidates",
    label: "Candidates",
    of: SOFTMAX,
    hint: "Whole texts to choose from.",
    number: { initial: 8, min: 1, max: 64, step: 1 },
  },
  {
    name: "proposal",
    label: "Who writes them",
    of: SOFTMAX,
    hint: "Must not depend on what advertisers bid.",
    choices: { context_aware: "the house, knowing the offers", reference: "the house model", token_auction: "the token auction, equal weights" },
  },
  {
    name: "tau",
    label: "Temperature of the choice, τ",
    of: SOFTMAX,
    hint: "Currency per nat: the higher, the less the choice listens to what a text is worth to advertisers.",
    amount: "0.002",
  },
];

/** The fields in one fold; `onChange()` is called when the mechanism changes. */
export function optionFields(onChange) {
  const fields = new Map(OPTIONS.map((option) => [option.name, fieldOf(option)]));
  const mechanism = fields.get("mechanism").input;
  const place = el("div", { class: "options" }, [...fields.values()].map(({ node }) => node));
  const summary = el("summary", {}, "Mechanism and options", el("span", { text: " · rule, pricing, pace, house model, temperature, seed" }));
  const toggle = () => {
    for (const option of OPTIONS) fields.get(option.name).node.hidden = Boolean(option.of) && option.of !== mechanism.value;
    onChange();
  };
  mechanism.addEventListener("change", toggle);
  return {
    node: el("details", { class: "more" }, summary, place),
    show(spec) {
      for (const option of OPTIONS) fields.get(option.name).input.value = String(spec[option.name] ?? initial(option));
      toggle();
    },
    values() {
      const chosen = OPTIONS.filter((option) => !option.of || option.of === mechanism.value);
      const values = Object.fromEntries(OPTIONS.map((option) => [option.name, null]));
      for (const option of chosen) values[option.name] = valueOf(option, fields.get(option.name).input.value);
      if (values.mechanism === TOKEN) values.mechanism = null; // the default
      return values;
    },
  };
}

function initial(option) {
  return option.choices ? (option.name === "token_ms" ? 160 : Object.keys(option.choices)[0]) : (option.amount ?? option.number.initial);
}

function valueOf(option, text) {
  if (option.read) return option.read(text);
  if (option.number) return text.trim() === "" ? null : Number(text);
  return text.trim() === "" ? null : text.trim();
}

function fieldOf(option) {
  const id = `option-${option.name}`;
  const hint = `${id}-hint`;
  const common = { id, name: option.name, "aria-describedby": hint };
  const { min, max, step } = option.number ?? {};
  const input = option.choices
    ? el("select", common, Object.entries(option.choices).map(([value, text]) => el("option", { value, text })))
    : el("input", { ...common, inputmode: "decimal", autocomplete: "off", ...(option.number ? { type: "number", min, max, step } : {}) });
  return { input, node: el("div", {}, el("label", { for: id, text: option.label }), input, el("p", { class: "hint", id: hint, text: option.hint })) };
}
