/** SHA-256 (FIPS 180-4) in plain JavaScript: the browser's own is not there on pages that came over plain http. */

const PRIMES = [];
for (let number = 2; PRIMES.length < 64; number += 1) if (PRIMES.every((prime) => number % prime)) PRIMES.push(number);
/** The first 32 bits behind the point of a root. Products of whole numbers settle what rounding would leave open. */
const fraction = (root, power, prime) => {
  const scaled = BigInt(prime) << BigInt(32 * power);
  let found = BigInt(Math.floor(root * 2 ** 32));
  while ((found + 1n) ** BigInt(power) <= scaled) found += 1n;
  while (found ** BigInt(power) > scaled) found -= 1n;
  return Number(found & 0xffffffffn);
};
const ROUNDS = Int32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime), 3, prime));
const START = Int32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime), 2, prime));

const rotate = (word, places) => (word >>> places) | (word << (32 - places));

/** The 32 bytes of the digest. */
export function sha256(bytes) {
  const padded = new Uint8Array(((bytes.length + 8) >> 6 << 6) + 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setBigUint64(padded.length - 8, BigInt(bytes.length) * 8n);
  const state = Int32Array.from(START);
  const words = new Int32Array(64);
  for (let block = 0; block < padded.length; block += 64) {
    for (let i = 0; i < 16; i += 1) words[i] = view.getInt32(block + 4 * i);
    for (let i = 16; i < 64; i += 1) {
      const a = words[i - 15];
      const b = words[i - 2];
      const s0 = rotate(a, 7) ^ rotate(a, 18) ^ (a >>> 3);
      const s1 = rotate(b, 17) ^ rotate(b, 19) ^ (b >>> 10);
      words[i] = (words[i - 16] + s0 + words[i - 7] + s1) | 0;
    }
    compress(state, words);
  }
  const digest = new Uint8Array(32);
  const out = new DataView(digest.buffer);
  state.forEach((word, i) => out.setInt32(4 * i, word));
  return digest;
}

function compress(state, words) {
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i += 1) {
    const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
    const first = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i] + words[i]) | 0;
    const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
    const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g; // one by one: this is what a long receipt's verification does most
    g = f;
    f = e;
    e = (d + first) | 0;
    d = c;
    c = b;
    b = a;
    a = (first + second) | 0;
  }
  state[0] += a; // an Int32Array wraps by itself
  state[1] += b;
  state[2] += c;
  state[3] += d;
  state[4] += e;
  state[5] += f;
  state[6] += g;
  state[7] += h;
}

const ENCODER = new TextEncoder();

/** The bytes of texts (as UTF-8) and byte arrays, one behind the other. */
export function bytesOf(...parts) {
  const pieces = parts.map((part) => (typeof part === "string" ? ENCODER.encode(part) : part));
  if (pieces.length === 1) return pieces[0];
  const joined = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

const PAIRS = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
export const toHex = (bytes) => {
  let text = "";
  for (const byte of bytes) text += PAIRS[byte];
  return text;
};
export const fromHex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
export const hexDigest = (...parts) => toHex(sha256(bytesOf(...parts)));
