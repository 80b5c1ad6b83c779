/** Numbers as a receipt holds them (BigInt and Number) and as its checks need them. */

/** A Number; throws for what is none, a boolean among it. */
export function toFloat(value) {
  if (typeof value === "number") return value;
  if (typeof value === "bigint") return Number(value);
  throw new TypeError("a number is missing or of the wrong kind");
}

/** A whole number of at least 0; throws for what is none. */
export function toWhole(value) {
  if (typeof value !== "bigint" || value < 0n) throw new TypeError("a whole number is missing or of the wrong kind");
  return value;
}

/** Whether two values of a receipt are equal, as Python takes it: 1, 1.0 and true are. */
export function same(one, other) {
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((value, place) => same(value, other[place]));
  }
  if (isNumber(one) && isNumber(other)) return one == other; // exact, whichever kinds they are of
  return one === other;
}

const isNumber = (value) => ["number", "bigint", "boolean"].includes(typeof value);

export function isClose(one, other, relative, absolute) {
  if (one === other) return true;
  if (!Number.isFinite(one) || !Number.isFinite(other)) return false;
  const difference = Math.abs(one - other);
  return difference <= Math.abs(relative * one) || difference <= Math.abs(relative * other) || difference <= absolute;
}

/** The sum rounded once (Shewchuk 1997), so that it does not depend on the order. */
export function exactSum(values) {
  if (!values.every(Number.isFinite)) {
    const sum = values.reduce((total, value) => total + value, 0);
    if (Number.isNaN(sum) && !values.some(Number.isNaN)) throw new RangeError("infinities of both signs have no sum");
    return sum;
  }
  if (values.length <= 2) return (values[0] ?? 0) + (values[1] ?? 0);
  const parts = [];
  for (let value of values) {
    let kept = 0;
    for (let part of parts) {
      if (Math.abs(value) < Math.abs(part)) [value, part] = [part, value];
      const high = value + part;
      const low = part - (high - value);
      if (low) parts[kept++] = low;
      value = high;
    }
    parts[kept] = value;
    parts.length = kept + 1;
  }
  let place = parts.length - 1;
  let sum = parts[place] ?? 0;
  let low = 0;
  while (place > 0) {
    const before = sum;
    const part = parts[--place];
    sum = before + part;
    low = part - (sum - before);
    if (low) break;
  }
  // Half-way cases: what is still below decides which way to round.
  if (place > 0 && ((low < 0 && parts[place - 1] < 0) || (low > 0 && parts[place - 1] > 0))) {
    const doubled = 2 * low;
    const moved = sum + doubled;
    if (doubled === moved - sum) sum = moved;
  }
  return sum;
}
