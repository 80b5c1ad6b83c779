/** The REST half of a server: JSON in, JSON or an error of errors.js out. It knows no WebSocket. */

import { Refused, Unreachable } from "./errors.js";

export class Rest {
  constructor(url, fetch, bearer) {
    this.url = url;
    this.fetch = fetch;
    this.bearer = bearer; // an async function: the access token, or null
  }

  async get(path, query = {}) {
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
    const search = given.length ? `?${new URLSearchParams(given)}` : "";
    return (await this.#call("GET", path + search)).json();
  }

  async text(path) {
    return (await this.#call("GET", path)).text();
  }

  async post(path, body = undefined) {
    return (await this.#call("POST", path, body)).json();
  }

  /** Hand over a JSON object for each line of the answer as it comes; all of them. An error among them is thrown. */
  async lines(path, body, onLine) {
    const answer = await this.#call("POST", path, body);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const found = [];
    for (let rest = "", isOver = false; !isOver; ) {
      const { value = "", done } = await reader.read();
      const rows = (rest + value).split("\n");
      rest = done ? "" : rows.pop();
      isOver = done;
      for (const row of rows.filter(Boolean).map((text) => JSON.parse(text))) {
        if (row.error) throw new Refused(row.error.code, row.error.message);
        if (row.done) return found;
        found.push(row);
        onLine(row);
      }
    }
    throw new Unreachable("the answer broke off");
  }

  async #call(method, path, body = undefined) {
    const token = await this.bearer();
    const headers = token === null ? {} : { authorization: `Bearer ${token}` };
    if (body !== undefined) headers["content-type"] = "application/json";
    let answer;
    try {
      answer = await this.fetch(this.url + path, { method, headers, body: body && JSON.stringify(body), cache: "no-store" });
    } catch (error) {
      throw new Unreachable(`the server cannot be reached (${error.message})`);
    }
    if (answer.ok) return answer;
    const { code, message } = (await answer.json().catch(() => ({}))).error ?? {};
    const says = message ?? `the server answered with ${answer.status}`;
    if (answer.status >= 500 || answer.status === 429) throw new Unreachable(says, 1e3 * (Number(answer.headers.get("retry-after")) || 0));
    throw new Refused(code ?? "http", says);
  }
}
