/** Money and shares as text: exact integer micros inside, a currency's own signs outside. */

const PER_UNIT = 1_000_000; // micros in one unit of a currency
const MOST_DIGITS = 15;
const FORMATTERS = new Map(); // making one takes longer than a frame has for it

/** "$0.000920": always six digits, so that columns line up. */
export function money(micros, currency = "USD") {
  return formatter(currency, 6).format(micros / PER_UNIT);
}

/** "$0.004": as many digits as it needs, for bids. */
export function price(micros, currency = "USD") {
  return formatter(currency, 0).format(micros / PER_UNIT);
}

/** Whole micros as the decimal string that goes into a spec. */
export function decimal(micros) {
  const whole = Math.floor(micros / PER_UNIT);
  const rest = String(micros % PER_UNIT).padStart(6, "0").replace(/0+$/, "");
  return rest ? `${whole}.${rest}` : String(whole);
}

/** A decimal string as whole micros, or null where it is none or has more than six decimals. */
export function micros(text) {
  const match = /^(\d*)(?:[.,](\d{0,6}))?$/.exec(String(text).trim());
  if (!match || !(match[1] || match[2]) || match[1].length > MOST_DIGITS - 6) return null;
  return Number(match[1] || 0) * PER_UNIT + Number((match[2] || "").padEnd(6, "0"));
}

/** "41%", "0.3%", "0%". */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  if (value > 0 && value < 0.05) return "<0.1%";
  return `${value >= 9.95 || value === 0 ? Math.round(value) : value.toFixed(1)}%`;
}

/** "1 token", "12 tokens". */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

function formatter(currency, least) {
  const key = `${currency} ${least}`;
  if (!FORMATTERS.has(key)) {
    const digits = { minimumFractionDigits: least, maximumFractionDigits: 6 };
    FORMATTERS.set(key, new Intl.NumberFormat("en-US", { style: "currency", currency, currencyDisplay: "narrowSymbol", ...digits }));
  }
  return FORMATTERS.get(key);
}
