/** What can go wrong: the server says no (Refused), or is not there (Unreachable). */

export class Refused extends Error {
  /** `code` stays the same from version to version (docs/protocol.md, Refusals); `message` is one line for people. */
  constructor(code, message) {
    super(message);
    this.name = "Refused";
    this.code = code;
  }
}

export class Unreachable extends Error {
  /** No answer, or one that says to come back: worth another try, in `retryMs` at the earliest. */
  constructor(message, retryMs = 0) {
    super(message);
    this.name = "Unreachable";
    this.retryMs = retryMs;
  }
}
