/** The page: which view is shown follows from the address, and one client is behind all of them. */

import { Client } from "/client/tokenauction.js";
import { Auction } from "./auction.js";
import { el, fill } from "./dom.js";
import { Start } from "./start.js";

const SAYS = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  over: "Complete",
  failed: "Not connected",
  ready: "Connected",
};
const PATIENCE_MS = 1_500; // until an answer is late
const views = ["start", "auction", "trouble"].map((id) => document.getElementById(id));
const pill = document.getElementById("connection");
const summary = document.getElementById("summary");

let client = new Client();
let auction = null;
const start = new Start(begin);

/** How the connection is, in words; "ready" is a connection over which nothing is watched. */
function showState(state, { reason, retry_ms: retryMs, code } = {}) {
  pill.dataset.state = state === "ready" ? "live" : state;
  const when = retryMs >= 1000 ? ` in ${Math.round(retryMs / 1000)} s` : "";
  pill.lastElementChild.textContent = state === "reconnecting" ? `${SAYS[state]}${when}` : SAYS[state];
  pill.title = reason ?? "";
  if (state === "failed") showTrouble(code, reason);
}

function show(id) {
  for (const view of views) view.hidden = view.id !== id;
}

async function begin(spec) {
  const isSlow = setTimeout(() => showState("reconnecting"), PATIENCE_MS); // it is sent as soon as there is a connection
  try {
    const accepted = await client.create(spec);
    location.hash = accepted.auction_id;
  } finally {
    clearTimeout(isSlow);
    if (pill.dataset.state === "reconnecting") showState("ready");
  }
}

function route() {
  auction?.close();
  auction = null;
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id.startsWith("auc_")) return showStart(id);
  showState("connecting");
  auction = new Auction(client, id, { announce: (text) => (summary.textContent = text), onState: showState });
  fill(views[1], auction.node);
  show("auction");
  scrollTo(0, 0);
  return document.getElementById("main").focus({ preventScroll: true });
}

async function showStart(anchor) {
  document.title = "tokenauction";
  show("start");
  if (anchor) document.getElementById(anchor)?.scrollIntoView();
  try {
    await client.session();
    if (auction) return;
    showState("ready");
    await start.fetch(client);
  } catch (error) {
    showState("failed", { code: error.code, reason: error.message });
  }
}

/** What is wrong and what can be done about it. */
function showTrouble(code, reason) {
  const needsToken = code === "unauthorized" || code === "forbidden";
  const title = needsToken ? "This server asks who you are" : code === "not_found" ? "There is no such auction here" : "Something is in the way";
  const input = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false" });
  const form = el("form", {}, el("div", {}, el("label", { for: "token", text: "Access token" }), input), el("button", { class: "button primary", text: "Go on" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    client.close();
    client = new Client({ token: input.value.trim() || null });
    route();
  });
  const hint = el("p", { class: "muted", text: "Make one beside the server: tokenauction token create --scope admin. It stays in this page’s memory." });
  const back = el("p", {}, el("a", { class: "button quiet", href: "#", text: "To the start" }));
  fill(views[2], el("div", { class: "trouble" }, el("h1", { text: title }), el("p", { class: "notice", text: reason ?? "" }), needsToken ? [form, hint] : back));
  show("trouble");
  if (needsToken) input.focus();
}

addEventListener("hashchange", route);
route();
