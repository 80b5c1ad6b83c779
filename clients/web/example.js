import { Client } from "./tokenauction.js";

const show = (id, text) => (document.getElementById(id).textContent = text);
const alpha = { id: "alpha", name: "Alpha Airlines", offer: "flights to Hawaii", bid: "0.002" };
const beta = { id: "beta", name: "Beta Resort", offer: "a quiet beach resort", bid: "0.002" };

let text = "";
const client = new Client();
const { auction_id } = await client.create({ query: "Vacations in Hawaii", agents: [alpha, beta], max_sentences: 1 });
for await (const event of client.watch(auction_id)) {
  if (event.disclosure) show("sponsors", `Sponsored by ${event.disclosure.by.map(({ name }) => name).join(" and ")}`);
  if (event.type === "auction.token") show("text", (text += event.text));
}
