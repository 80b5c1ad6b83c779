/**
 * A step's random numbers: pure functions of (seed, step, purpose, agent id), as engine/randomness.py has them.
 *
 *     step key    = SHA-256("tokenauction/step/v1" ‖ seed, 32 bytes ‖ step, 8 bytes)           big endian throughout
 *     word        = first 8 bytes of SHA-256("tokenauction/word/v1" ‖ key ‖ len ‖ purpose ‖ len ‖ agent id)
 *     uniform     = (word >> 11) / 2^53              exponential = -ln(((word >> 12) + ½) / 2^52)
 */

import { bytesOf, sha256 } from "./sha256.js";

export function stepKey(seedBytes, step) {
  return sha256(bytesOf("tokenauction/step/v1", seedBytes, bigEndian(step, 8)));
}

/** The seed of one candidate's draws. */
export function candidateSeed(seedBytes, index) {
  return sha256(bytesOf("tokenauction/candidate/v1", seedBytes, bigEndian(index, 8)));
}

export const uniform = (key, purpose, agentId = "") => Number(word(key, purpose, agentId) >> 11n) / 2 ** 53;

export const exponential = (key, purpose, agentId = "") =>
  -Math.log((Number(word(key, purpose, agentId) >> 12n) + 0.5) / 2 ** 52);

const DOMAIN = bytesOf("tokenauction/word/v1");

function word(key, purpose, agentId) {
  const digest = sha256(bytesOf(DOMAIN, key, framed(purpose), framed(agentId)));
  return new DataView(digest.buffer).getBigUint64(0);
}

function framed(text) {
  const bytes = bytesOf(text);
  return bytesOf(bigEndian(bytes.length, 4), bytes);
}

function bigEndian(number, length) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(number));
  return bytes.slice(8 - length);
}
