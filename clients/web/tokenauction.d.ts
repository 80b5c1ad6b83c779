/** Types of tokenauction.js. Events are as docs/protocol.md says; fields that a reader may not see are absent. */

export interface ClientOptions {
  /** http or https; in a browser the page's own origin if left out. */
  url?: string;
  /** An access token, or a function that gets one; null on a server that is open. */
  token?: string | null | (() => string | null | Promise<string | null>);
  /** For Node 20: the class of a package such as ws, or `node --experimental-websocket`. */
  WebSocket?: new (url: string, protocols?: string | string[]) => WebSocket;
  fetch?: typeof fetch;
  /** Without a connection for so long, everything that waits is rejected with Unreachable; never if left out. */
  giveUpMs?: number;
}

export interface Envelope {
  type: string;
  event_id: string;
  time: number;
  [field: string]: unknown;
}

export interface StreamEvent extends Envelope {
  auction_id: string;
  /** Dense from 0; absent from payment.posted, stream.gap and stream.snapshot. */
  seq?: number;
  epoch?: number;
  durable_seq?: number;
}

export interface Session extends Envelope {
  scopes: ("watch" | "bid" | "admin")[];
  agent_id: string | null;
  max_message_bytes: number;
}

export interface Accepted extends Envelope {
  auction_id: string;
  state: string;
  replayed: boolean;
}

export interface BidAccepted extends Envelope {
  auction_id: string;
  agent_id: string;
  bid_micros: number;
  effective_from_step: number;
}

export interface Summary {
  auction_id: string;
  state: string;
  created_at: number;
  query: string;
  tmax_join_ms: number;
  max_tokens: number;
  currency: string;
  rule: string;
  pricing: string;
  agents: { id: string; name: string }[];
  num_tokens: number;
  text: string;
  last_seq: number;
  durable_seq: number;
  epoch: number;
}

export interface Landscape {
  agent_id: string;
  currency: string;
  /** What a bid is for: in a softmax auction it is a value per nat, and influence how far the choice moved. */
  per: "token" | "nat";
  own_bid_micros: number;
  /** False where spending cannot be computed exactly from what is on record; `reason` says why, and points are empty. */
  exact: boolean;
  reason: string;
  points: { bid_micros: number; spend_micros: number; influence: number }[];
}

export interface SweepRow {
  rule: "linear" | "log_linear";
  weight: number;
  num_texts: number;
  mentions: Record<string, number>;
  only: Record<string, number>;
  none: number;
  example: string;
}

export type WatchState = "connecting" | "live" | "reconnecting" | "over" | "failed";

export interface StateDetail {
  reason?: string;
  code?: string;
  retry_ms?: number;
}

export interface WatchOptions {
  /** Events behind this one; -1 for all. */
  afterSeq?: number;
  /** In which `afterSeq` was seen; see Watch.position. */
  epoch?: number | null;
  /** As whom to look, for a token that acts for several agents. */
  agentId?: string | null;
  /** Hears every event at once; without it, iterate over the Watch. */
  onEvent?: ((event: StreamEvent) => void) | null;
  onState?: ((state: WatchState, detail: StateDetail) => void) | null;
  signal?: AbortSignal | null;
}

/** Also dispatches "state" events, whose detail is { state, ...StateDetail }. */
export interface Watch extends EventTarget, AsyncIterable<StreamEvent> {
  readonly auctionId: string;
  readonly state: WatchState;
  readonly error: Refused | Unreachable | null;
  readonly position: { afterSeq: number; epoch: number | null };
  /** Resolves at the auction's end or when the watch is closed; rejects where it fails. */
  readonly done: Promise<void>;
  close(): void;
}

export class Client {
  constructor(options?: ClientOptions);
  session(): Promise<Session>;
  create(spec: object, options?: { idempotencyKey?: string }): Promise<Accepted>;
  cancel(auctionId: string): Promise<Accepted>;
  bid(auctionId: string, agentId: string, bidMicros: number): Promise<BidAccepted>;
  join(
    auctionId: string,
    agentId: string,
    bidMicros: number,
    options?: { budgetMicros?: number | null; brief?: { name: string; offer: string } | null },
  ): Promise<Envelope>;
  leave(auctionId: string, agentId: string): Promise<BidAccepted>;
  watch(auctionId: string, options?: WatchOptions): Watch;
  retryNow(): void;
  close(): void;
  describe(auctionId: string): Promise<Summary>;
  list(query?: { after?: string; limit?: number; newest?: boolean }): Promise<{ auctions: Summary[] }>;
  history(
    auctionId: string,
    query?: { afterSeq?: number; limit?: number },
  ): Promise<{ events: StreamEvent[]; last_seq: number; is_over: boolean }>;
  receipt(auctionId: string): Promise<string>;
  presets(): Promise<{ presets: { name: string; title: string; spec: object }[] }>;
  withoutAds(auctionId: string): Promise<{ text: string; num_tokens: number; finish_reason: string }>;
  landscape(auctionId: string, agentId: string): Promise<Landscape>;
  sweep(
    body: { spec: object; agent_id?: string; points?: number; seeds?: number; rules?: string[] },
    options?: { onRow?: (row: SweepRow) => void },
  ): Promise<SweepRow[]>;
}

/** What an auction's events say so far. */
export class Transcript {
  readonly created: StreamEvent | null;
  readonly settled: StreamEvent | null;
  readonly error: StreamEvent | null;
  readonly tokens: StreamEvent[];
  readonly payments: Record<string, number>;
  readonly text: string;
  readonly totals: Record<string, number>;
  readonly state: string;
  /** Behind a gap: how many tokens the text is ahead of `tokens`. */
  readonly missing: number | null;
  apply(event: StreamEvent): this;
}

/** The server says no; `code` is one of docs/protocol.md's. */
export class Refused extends Error {
  code: string;
}

/** No connection for longer than `giveUpMs`. */
export class Unreachable extends Error {
  retryMs: number;
}
