/** The fields of a spec, each read or refused, as engine/spec_fields.py and engine/money.py do it. */

const MAX_TEXT = 4_000; // characters
const MAX_MICROS = 10n ** 15n;

export function fieldsOf(source, where, allowed) {
  if (!(source instanceof Map)) throw new Error(`${where} must be a mapping of fields`);
  for (const name of source.keys()) if (!allowed.has(name)) throw new Error(`${where}.${name} is not a field that is known here`);
  return source;
}

export const SPACE = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]"; // what Python calls one
const AROUND = new RegExp(`^${SPACE}+|${SPACE}+$`, "g");

export function text(fields, name, where, { isLine = true } = {}) {
  const value = fields.get(name);
  const bare = typeof value === "string" ? value.replace(AROUND, "") : "";
  if (!bare) throw new Error(`${where}.${name} must be text`);
  if ([...value].length > MAX_TEXT) throw new Error(`${where}.${name} is too long`);
  if (isLine && /[\u0000-\u001f\u007f\u2028\u2029]/.test(value)) throw new Error(`${where}.${name} is not one line`);
  if (/\p{Surrogate}/u.test(value)) throw new Error(`${where}.${name} holds a lone surrogate`);
  return isLine ? bare : value;
}

/** Whole micros of an amount of currency, exactly. */
export function micros(amount, where) {
  const isAmount = typeof amount === "string" || typeof amount === "bigint" || typeof amount === "number";
  const written = isAmount ? String(amount).replace(AROUND, "").replaceAll("_", "") : "";
  const found = /^([+-]?)([0-9]*)\.?([0-9]*)(?:[eE]([+-]?[0-9]{1,18}))?$/.exec(written);
  if (!found || !(found[2] + found[3])) throw new Error(`${where} must be a decimal amount of currency`);
  const digits = (found[2] + found[3]).replace(/^0+/, "");
  if (!digits) return 0n;
  if (found[1] === "-") throw new Error(`${where} must be zero or more`);
  const bare = digits.replace(/0+$/, "");
  const power = Number(found[4] ?? 0) - found[3].length + 6 + (digits.length - bare.length);
  if (power < 0) throw new Error(`${where} is finer than one micro`);
  if (bare.length + power > 16) throw new Error(`${where} is too large`);
  const value = BigInt(bare) * 10n ** BigInt(power);
  if (value > MAX_MICROS) throw new Error(`${where} is too large`);
  return value;
}
