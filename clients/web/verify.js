/**
 * Does a receipt hold? What `tokenauction verify` checks at the level of arithmetic, computed here, from the receipt alone:
 *
 *     const verdict = await verify(await client.receipt(auction_id), { head });
 *     // { ok: true, level: "arithmetic", num_steps: 29, checks: […], unchecked: […], failure: null }
 *
 * Line by line: the chain, the commitment, every step's key, the draw's uniform against the recorded cdf, bids and
 * budgets, q and r (linear), every critical bid, every payment that follows from one, charges, totals, why it ended. The
 * first line that does not hold is the one that is named. Stored distributions are not computed again; `unchecked` says
 * so, and what else this level cannot see. Nothing is loaded and nothing is sent.
 */

import { checkStep, field, readStep } from "./verification/arithmetic.js";
import { whatWasChecked } from "./verification/coverage.js";
import { NotJson, canonical, parse } from "./verification/exact_json.js";
import { FinalizerCheck } from "./verification/finalizer.js";
import { same, toFloat } from "./verification/numbers.js";
import { stepKey } from "./verification/randomness.js";
import { fromHex, hexDigest, toHex } from "./verification/sha256.js";
import { readSpec } from "./verification/spec.js";
import { Standing } from "./verification/standing.js";

const VERSION = 1;
const MAX_LINES = 2 ** 20;
const STEPS_IN_A_ROW = 64; // before the page has its turn again
const KINDS = new Set(["auction", "step", "candidate", "choice", "settlement"]);

/** The text is no receipt at all. */
export class Unreadable extends Error {}

/** A line that does not hold. */
class Fault extends Error {
  constructor(where, problem) {
    super(problem);
    this.where = where;
  }
}

/** Check a receipt's text; never throws. `onProgress(done, all)` hears how far it is. */
export async function verify(text, { head = null, onProgress = () => {} } = {}) {
  const verdict = { ok: false, level: "arithmetic", num_steps: 0, checks: [], unchecked: [], failure: null };
  let reader = null;
  try {
    reader = new Verification(parseReceipt(text), head);
    verdict.num_steps = reader.numSteps;
    reader.begin();
    for (let number = 1; number < reader.lines.length - 1; number += 1) {
      reader.take(number);
      if (number % STEPS_IN_A_ROW === 0) {
        onProgress(number, reader.numSteps);
        await new Promise((resolve) => setTimeout(resolve));
      }
    }
    reader.end();
    onProgress(reader.numSteps, reader.numSteps);
    return { ...verdict, ok: true, ...whatWasChecked(reader.spec, { isPinned: Boolean(head), isStored: reader.isStored }) };
  } catch (error) {
    const where = error instanceof Fault ? error.where : error instanceof Unreadable ? "file" : (reader?.where ?? "auction");
    const step = /^(step|candidate) \d+$/.test(where) ? Number(where.split(" ")[1]) : null;
    return { ...verdict, failure: { where, step, message: error.message } };
  }
}

/** The lines of a receipt; throws Unreadable for what is none. */
export function parseReceipt(text) {
  const rows = text.split("\n").filter(Boolean);
  if (rows.length === 0) throw new Unreadable("the receipt is empty");
  if (rows.length > MAX_LINES) throw new Unreadable(`a receipt has at most ${MAX_LINES} lines`);
  return rows.map((row, place) => {
    let line;
    try {
      line = parse(row);
    } catch (error) {
      if (!(error instanceof NotJson)) throw error;
      throw new Unreadable(`line ${place + 1} is not JSON: ${error.message}`);
    }
    if (!(line instanceof Map) || !KINDS.has(line.get("kind"))) throw new Unreadable(`line ${place + 1} is not a line of a receipt`);
    return line;
  });
}

class Verification {
  where = "auction"; // what is being looked at
  #settlement = null; // the last line, if it is what was hashed

  constructor(lines, head) {
    this.lines = lines;
    this.head = head;
    this.header = lines[0];
    this.last = lines[lines.length - 1];
    this.isStored = lines.some((line) => line.has("distributions"));
    this.numSteps = lines.filter((line) => ["step", "candidate"].includes(line.get("kind"))).length;
  }

  /** The first line, and what it commits to. */
  begin() {
    if (this.header.get("kind") !== "auction") throw new Fault("auction", "the first line is not the auction");
    if (this.last.get("kind") !== "settlement") throw new Fault("settlement", "the last line is not a settlement: the receipt is cut off");
    this.#checkLink(0);
    this.#checkHeader();
    this.standing = new Standing(this.spec);
    const fault = (where, problem) => new Fault(where, problem);
    if (this.spec.finalizer) this.softmax = new FinalizerCheck(this.spec, this.seed, this.standing, fault);
    if (this.last.get("hash") === contentHash(this.last)) this.#settlement = this.last;
  }

  /** A token or candidate, or the choice: whether it stands where it belongs, and whether its numbers follow. */
  take(number) {
    const line = this.lines[number];
    this.where = this.#whereOf(number);
    this.#checkLink(number);
    if (this.softmax) this.softmax.take(line);
    else this.#takeStep(line, number);
    this.standing.noteVoids(line);
  }

  #takeStep(line, number) {
    if (this.standing.limitReached) throw new Fault(this.where, "the text had reached its limit before this step");
    const key = stepKey(this.seed, number - 1);
    if (field(line, "key") !== toHex(key)) throw new Fault(this.where, "its key does not follow from the seed");
    this.#checkBids(line);
    const problem = checkStep(readStep(this.spec, line), key);
    if (problem) throw new Fault(this.where, problem);
    this.#checkCharges(line);
    if (this.spec.agents.some((agent) => agent.hasOwnModel)) this.#checkReports(line);
    if (line.has("distributions")) this.#checkStored(line);
    if (this.#settlement) this.#checkAgainstSettlement(line);
  }

  /** The last line: text, totals, and why the auction ended there. */
  end() {
    this.where = "settlement";
    this.#checkLink(this.lines.length - 1);
    this.softmax?.settle(this.last);
    const { standing } = this;
    const reason = field(this.last, "finish_reason");
    const isPosted = reason !== "error";
    const follows = {
      num_tokens: BigInt(standing.numTokens),
      token_ids: standing.tokenIds,
      exact_micros: standing.exactMicros,
      totals_micros: isPosted ? standing.totals : standing.totals.map(() => 0n),
      posted: isPosted,
      voids: [...standing.voids].sort(),
    };
    for (const [name, value] of Object.entries(follows)) {
      if (!same(field(this.last, name), value)) throw new Fault(this.where, `${name}: ${this.last.get(name)} is recorded, ${value} follows`);
    }
    if (!standing.exactMicros.every(Number.isFinite)) throw new Fault(this.where, "the totals are not finite");
    if (!this.softmax) this.#checkText(); // else the text was chosen whole
    const mayEnd = standing.mayEndBy(String(reason));
    if (mayEnd === undefined) throw new Fault(this.where, `finish_reason ${reason} is none`);
    if (!mayEnd) throw new Fault(this.where, `the auction did not end for the reason that is recorded: ${reason}`);
    const isPinned = this.head !== null && this.head !== undefined;
    if (isPinned && this.last.get("hash") !== this.head) throw new Fault(this.where, "the receipt's head is not the published one");
  }

  #checkLink(number) {
    const line = this.lines[number];
    const where = this.#whereOf(number);
    const isLast = number === this.lines.length - 1;
    const inside = field(this.header, "spec").get("mechanism") === "softmax" ? ["candidate", "choice"] : ["step"];
    const kinds = number === 0 ? ["auction"] : isLast ? ["settlement"] : inside;
    const kind = line.get("kind");
    if (!kinds.includes(kind)) throw new Fault(where, `line ${number + 1} is out of place`);
    if (kind === "step" && field(line, "step") !== BigInt(number - 1)) {
      throw new Fault(where, `the steps are not dense: ${line.get("step")} stands where ${number - 1} belongs`);
    }
    if (number && field(line, "previous") !== field(this.lines[number - 1], "hash")) {
      throw new Fault(where, "the chain is broken: the line before it is not the one that was hashed");
    }
    if (field(line, "hash") !== contentHash(line)) throw new Fault(where, "its hash is not that of its content: the line was changed");
  }

  /** How a line is named where it does not hold. */
  #whereOf(number) {
    if (number === 0) return "auction";
    if (number === this.lines.length - 1) return "settlement";
    const kind = this.lines[number].get("kind");
    return kind === "choice" ? kind : `${kind === "candidate" ? kind : "step"} ${number - 1}`;
  }

  #checkHeader() {
    const { header, last } = this;
    if (!same(field(header, "version"), BigInt(VERSION))) throw new Fault("auction", `its version is not ${VERSION}`);
    this.spec = readSpec(field(header, "spec"));
    if (!same(field(header, "rows"), this.spec.listedIds)) throw new Fault("auction", "the rows are not those of the spec");
    if (field(header, "guarantee") !== this.spec.guarantee || !same(field(header, "limits"), this.spec.limits)) {
      throw new Fault("auction", "the guarantee and its limits are not those of this rule, sampler and pricing");
    }
    for (const name of ["seed", "nonce"]) {
      const value = field(last, name);
      if (typeof value !== "string" || !/^[0-9a-f]{64}$/.test(value)) throw new Fault("settlement", `its ${name} is not 32 bytes in hexadecimal`);
    }
    this.seed = fromHex(last.get("seed"));
    const nonce = fromHex(last.get("nonce"));
    const source = field(header, "seed_source");
    if (!["caller", "drawn"].includes(source) || this.spec.seed !== null) {
      throw new Fault("auction", "its seed is neither the caller's nor drawn, or is not withheld");
    }
    const content = canonical(without(header, "commitment", "hash"));
    if (hexDigest("tokenauction/commitment/v1", this.seed, nonce, content) !== field(header, "commitment")) {
      this.#checkLink(this.lines.length - 1); // it may be the settlement that was changed
      throw new Fault("auction", "seed, nonce and spec are not those that were committed to");
    }
    if (source === "caller" && last.get("nonce") !== hexDigest("tokenauction/nonce/v1", this.seed)) {
      throw new Fault("auction", "the nonce is not that of a caller's seed");
    }
  }

  #checkBids(line) {
    const read = this.standing.readBids(field(line, "bids"), field(line, "status"));
    for (const [name, follows] of Object.entries(read)) {
      if (!same(field(line, name), follows)) throw new Fault(this.where, `${name}: ${line.get(name)} is recorded, ${follows} follows`);
    }
  }

  #checkCharges(line) {
    const due = this.standing.record(line.get("token"), field(line, "text"), line.get("owed"));
    for (const [name, follows] of Object.entries(due)) {
      const recorded = field(line, name);
      if (recorded.length !== follows.length) throw new Error(`${name} has not one entry a row`);
      for (const [row, mine] of follows.entries()) {
        if (same(mine, recorded[row])) continue;
        throw new Fault(this.where, `${name} of ${this.spec.rowIds[row]}: ${recorded[row]} is recorded, ${mine} follows`);
      }
    }
  }

  /** Every agent with a model of its own that took part has a report, and what is stored of it is what was hashed. */
  #checkReports(line) {
    const [hashes, reports] = [field(line, "report_hashes"), field(line, "reports")];
    const { agents, rowIds } = this.spec;
    if (hashes.length !== rowIds.length || reports.length !== rowIds.length) throw new Error("reports are not one a row");
    for (const [row, id] of rowIds.entries()) {
      const isReporter = agents[row]?.hasOwnModel ?? false;
      if (hashes[row] === null && isReporter && line.get("status")[row] !== "absent") {
        throw new Fault(this.where, `${id} runs its own model and took part without a report`);
      }
      if (hashes[row] !== null && !isReporter) throw new Fault(this.where, `a report of ${id} is recorded, whose model is the platform's`);
      if (reports[row] !== null && reportHash(reports[row]) !== hashes[row]) {
        throw new Fault(this.where, `the stored report of ${id} is not the one that was hashed`);
      }
    }
  }

  /** Stored distributions must at least be those that were hashed into the step. */
  #checkStored(line) {
    const [packed, hashes] = [line.get("distributions"), field(line, "distribution_hashes")];
    const width = this.spec.rowIds.length;
    if (packed.length !== width || hashes.length !== width) throw new Error("the stored distributions are not one a row");
    for (const [row, text] of packed.entries()) {
      const bytes = fromBase64(text);
      if (bytes.length % 8 || hexDigest(bytes) !== hashes[row]) {
        throw new Fault(this.where, "a stored distribution is not the one that was hashed into its step");
      }
    }
  }

  #checkAgainstSettlement(line) {
    const [tokens, text] = [field(this.#settlement, "token_ids"), field(this.#settlement, "text")];
    if (!same(tokens[this.standing.numTokens - 1], line.get("token"))) {
      throw new Fault(this.where, "its token is not the one in the settlement");
    }
    if (!text.startsWith(this.standing.text)) throw new Fault(this.where, "its text is not the one in the settlement");
  }

  /** The text is that of the steps, and at most the characters that were held back behind it. */
  #checkText() {
    const text = field(this.last, "text");
    const steps = this.lines.slice(1, -1);
    const spoken = steps.findLastIndex((line) => line.get("text") !== "");
    const numSilent = steps.length - 1 - spoken;
    const heldBack = [...text.slice(this.standing.text.length)];
    if (!text.startsWith(this.standing.text) || heldBack.length > numSilent + 1) {
      throw new Fault(this.where, "its text is not that of the steps");
    }
  }
}

const without = (line, ...names) => new Map([...line].filter(([name]) => !names.includes(name)));
const fromBase64 = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

/** SHA-256 of what an agent sent: a dense report's bytes, or a sparse one's canonical JSON with every number a float. */
function reportHash(report) {
  if (!report.has("ids")) {
    if (!["float16", "float32"].includes(field(report, "format"))) throw new Error("a stored report has an unknown format");
    return hexDigest(fromBase64(field(report, "data")));
  }
  const numbers = field(report, "log_probs").map(toFloat);
  const tail = toFloat(field(report, "tail_mass"));
  return hexDigest(canonical(new Map([["ids", field(report, "ids")], ["log_probs", numbers], ["tail_mass", tail]])));
}

/** SHA-256 of a line without its own hash; of stored distributions and reports only their hashes count. */
const contentHash = (line) => hexDigest(canonical(without(line, "hash", "distributions", "reports")));
