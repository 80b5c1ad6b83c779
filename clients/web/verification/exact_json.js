/**
 * JSON as receipts need it: what was read can be written again byte for byte as the program that hashed it wrote it.
 *
 * Whole numbers are BigInt and all others Number, since 1 and 1.0 are hashed differently and 64 bits do not fit into a
 * Number; objects are Map. `canonical` writes sorted keys (by code point), no spaces, and floats in their shortest exact
 * form as Python writes it: 1e-05, 1e+16, 2.0.
 */

const MAX_DEPTH = 900; // as far as Python's reader goes, roughly
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const SPACE = /[ \t\n\r]*/y;
const HEX = /[0-9a-fA-F]{4}/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const MAX_DIGITS = 4_300; // of a whole number, as in Python

export class NotJson extends Error {}

/** The value of one JSON text; throws NotJson. */
export function parse(text) {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.match(SPACE);
  if (reader.at !== text.length) throw new NotJson(`something stands behind the value, at character ${reader.at}`);
  return value;
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  match(pattern) {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found) this.at = pattern.lastIndex;
    return found;
  }

  skip(expected) {
    if (!this.text.startsWith(expected, this.at)) throw new NotJson(`${expected} is missing at character ${this.at}`);
    this.at += expected.length;
  }

  value(depth) {
    if (depth > MAX_DEPTH) throw new NotJson("it is nested too deeply");
    this.match(SPACE);
    switch (this.text[this.at]) {
      case "{":
        return this.object(depth);
      case "[":
        return this.list(depth);
      case '"':
        return this.string();
      case "t":
        return this.skip("true"), true;
      case "f":
        return this.skip("false"), false;
      case "n":
        return this.skip("null"), null;
      default:
        return this.number();
    }
  }

  object(depth) {
    const found = new Map();
    this.skip("{");
    this.match(SPACE);
    if (this.text[this.at] !== "}") {
      do {
        this.match(SPACE);
        const name = this.string();
        this.match(SPACE);
        this.skip(":");
        found.delete(name); // of a name that comes twice the last one counts, at its place
        found.set(name, this.value(depth + 1));
      } while (this.#goesOn());
    }
    this.skip("}");
    return found;
  }

  list(depth) {
    const found = [];
    this.skip("[");
    this.match(SPACE);
    if (this.text[this.at] !== "]") {
      do found.push(this.value(depth + 1));
      while (this.#goesOn());
    }
    this.skip("]");
    return found;
  }

  #goesOn() {
    this.match(SPACE);
    if (this.text[this.at] !== ",") return false;
    this.at += 1;
    return true;
  }

  string() {
    this.skip('"');
    let found = "";
    while (true) {
      found += this.match(PLAIN)[0];
      const next = this.text[this.at++];
      if (next === '"') return found;
      if (next !== "\\") throw new NotJson("a string does not end, or holds a control character");
      const escape = this.text[this.at++];
      if (escape === "u") {
        const digits = this.match(HEX);
        if (!digits) throw new NotJson("\\u stands before four digits");
        found += String.fromCharCode(parseInt(digits[0], 16));
      } else if (escape in ESCAPES) found += ESCAPES[escape];
      else throw new NotJson(`\\${escape} is no escape`);
    }
  }

  number() {
    const found = this.match(NUMBER);
    if (!found) throw new NotJson(`no value stands at character ${this.at}`);
    if (found[1] !== undefined || found[2] !== undefined) return Number(found[0]);
    if (found[0].length > MAX_DIGITS) throw new NotJson(`a whole number has more than ${MAX_DIGITS} digits`);
    return BigInt(found[0]);
  }
}

/** The canonical text of a value that `parse` gave; throws NotJson for what has none. */
export function canonical(value) {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "number") return floatText(value);
  if (typeof value === "string") return stringText(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const names = [...value.keys()].sort(byCodePoint);
  return `{${names.map((name) => `${stringText(name)}:${canonical(value.get(name))}`).join(",")}}`;
}

function stringText(text) {
  if (!text.isWellFormed?.() && hasLoneSurrogate(text)) throw new NotJson("a text holds half a UTF-16 pair");
  return JSON.stringify(text);
}

function hasLoneSurrogate(text) {
  return /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

/** A float64 as Python's repr writes it: the shortest digits that give it back. */
export function floatText(value) {
  if (!Number.isFinite(value)) throw new NotJson("a number is beyond the range of float64");
  if (Object.is(value, -0)) return "-0.0";
  const size = Math.abs(value);
  if (size >= 1e-4 && size < 1e16) return Number.isInteger(value) ? `${value}.0` : String(value); // written alike by both
  const [mantissa, power] = value.toExponential().split("e"); // d.ddd and a signed exponent: the shortest digits
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 16) {
    return `${mantissa}e${exponent < 0 ? "-" : "+"}${String(Math.abs(exponent)).padStart(2, "0")}`;
  }
  const sign = mantissa.startsWith("-") ? "-" : "";
  const digits = mantissa.replace("-", "").replace(".", "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${digits}`;
  return `${sign}${digits.slice(0, exponent + 1).padEnd(exponent + 1, "0")}.${digits.slice(exponent + 1) || "0"}`;
}

/** JavaScript's own order is by UTF-16 unit, in which 😀 comes before ﬁ. */
function byCodePoint(one, other) {
  const [a, b] = [[...one], [...other]];
  for (let place = 0; place < Math.min(a.length, b.length); place += 1) {
    const difference = a[place].codePointAt(0) - b[place].codePointAt(0);
    if (difference) return difference;
  }
  return a.length - b.length;
}
