/** Types of verify.js. */

export interface Verdict {
  ok: boolean;
  level: "arithmetic";
  num_steps: number;
  /** What was checked, by name. */
  checks: string[];
  /** What this level cannot see, a sentence each. */
  unchecked: string[];
  /** The first line that does not hold: "auction", "step 3", "settlement", or "file" for what is no receipt. */
  failure: { where: string; step: number | null; message: string } | null;
}

/** Check a receipt (JSON lines) without a server; never rejects. `head` is the published hash of its last line. */
export function verify(
  text: string,
  options?: { head?: string | null; onProgress?: (done: number, all: number) => void },
): Promise<Verdict>;

/** The lines of a receipt, objects as Map and whole numbers as BigInt; throws Unreadable. */
export function parseReceipt(text: string): Map<string, unknown>[];

export class Unreadable extends Error {}
