// node compare.mjs SSE_READER: our reader and eventsource-parser on the same streams; exits with 1 at a difference.
import { spawnSync } from "node:child_process";
import { createParser } from "eventsource-parser";
import { Random, stream } from "./streams.mjs";

const BATCH = 1000;
const RETRY_MAX = 60_000; // event_stream.hpp: "bounded to a minute"
const reader = process.argv[2];
const count = Number(process.env.NECROCODE_STREAMS ?? 30_000);
const seed = Number(process.env.NECROCODE_SEED ?? Math.floor(Math.random() * 2 ** 32));

/** What eventsource-parser makes of the pieces, in our words. */
function peer(pieces) {
  const events = [];
  let id = ""; // The peer gives each event its own; the last one given stays (WHATWG HTML 9.2.6, "last event ID").
  let retry = null;
  const parser = createParser({
    onId: (value) => (id = value),
    onEvent: ({ event, data }) => events.push([id, event ?? "", data]),
    onRetry: (value) => (retry = Math.min(value, RETRY_MAX)),
  });
  // ignoreBOM: the mark is left to the parser, or a second one would be taken for the first.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  for (const piece of pieces) parser.feed(decoder.decode(piece, { stream: true }));
  parser.feed(decoder.decode());
  return { events, retry, refused: false };
}

// Our reader hands over bytes. Line ends are ASCII, so decoding a value alone gives what decoding the stream gives.
function text(hex) {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.from(hex, "hex"));
}

/** What our reader makes of each of the streams. */
function own(streams) {
  const input = Buffer.concat(
    streams.flatMap((pieces) => [
      Buffer.from(`${pieces.length}\n`),
      ...pieces.flatMap((piece) => [Buffer.from(`${piece.length}\n`), piece]),
    ]),
  );
  const run = spawnSync(reader, { input, maxBuffer: 2 ** 30 });
  if (run.status !== 0) throw run.error ?? new Error(`${reader} ended with ${run.status}: ${run.stderr}`);
  const lines = run.stdout.toString().trimEnd().split("\n");
  if (lines.length !== streams.length) throw new Error(`${lines.length} answers to ${streams.length} streams`);
  return lines.map((line) => {
    const { events, retry, refused } = JSON.parse(line);
    return { events: events.map((event) => event.map(text)), retry, refused };
  });
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const shorten = (value) => JSON.stringify(value).replace(/(.{2000}).*/s, "$1 …");

function tell(what, pieces, ours, theirs) {
  console.log(`${what}\n  pieces ${shorten(pieces.map((piece) => piece.toString("latin1")))}`);
  console.log(`  ours   ${shorten(ours)}\n  peer   ${shorten(theirs)}`);
}

// Where the two differ on purpose; the random streams keep away from these. Each must still differ as it says, so that
// the list stays true.
const DEVIATIONS = [
  {
    what: "text that begins with U+00EF U+00BB U+00BF is no byte order mark, but the peer drops it",
    rule: "WHATWG HTML 9.2.5: stream = [ bom ] *event, bom = %xFEFF",
    pieces: ["ï»¿data: a\n\n"],
    ours: { events: [], retry: null, refused: false },
    peer: { events: [["", "", "a"]], retry: null, refused: false },
  },
  {
    what: "an id of more than 1 KiB is refused",
    rule: "limits::kEventStreamNameBytes; the standard has no limit",
    pieces: [`id: ${"x".repeat(1025)}\ndata: a\n\n`],
    ours: { events: [], retry: null, refused: true },
    peer: { events: [["x".repeat(1025), "", "a"]], retry: null, refused: false },
  },
  {
    what: "an event's name of more than 1 KiB is refused",
    rule: "limits::kEventStreamNameBytes; the standard has no limit",
    pieces: [`event: ${"x".repeat(1025)}\ndata: a\n\n`],
    ours: { events: [], retry: null, refused: true },
    peer: { events: [["", "x".repeat(1025), "a"]], retry: null, refused: false },
  },
  {
    what: "an event of more than 16 MiB is refused",
    rule: "limits::kEventStreamBytes; the standard has no limit",
    pieces: [`data: ${"x".repeat(2 ** 24)}\n\n`],
    ours: { events: [], retry: null, refused: true },
    peer: { events: [["", "", "x".repeat(2 ** 24)]], retry: null, refused: false },
  },
];

let failed = 0;
for (const { what, rule, ...deviation } of DEVIATIONS) {
  const pieces = deviation.pieces.map((piece) => Buffer.from(piece));
  const [ours] = own([pieces]);
  const theirs = peer(pieces);
  const holds = same(ours, deviation.ours) && same(theirs, deviation.peer);
  console.log(`${holds ? "ok  " : "FAIL"} deviation: ${what} (${rule})`);
  if (!holds) (tell("  it is not as the list says", pieces, ours, theirs), failed++);
}

let events = 0;
const seeds = new Random(seed);
for (let begin = 0; begin < count && failed < 5; begin += BATCH) {
  const batch = Array.from({ length: Math.min(BATCH, count - begin) }, () => Math.floor(seeds.next() * 2 ** 32));
  const streams = batch.map(stream);
  own(streams).forEach((ours, i) => {
    const theirs = peer(streams[i]);
    events += ours.events.length;
    if (!same(ours, theirs)) (tell(`FAIL stream ${begin + i}`, streams[i], ours, theirs), failed++);
  });
}
console.log(`${failed ? "FAIL" : "ok  "} ${count} streams, ${events} events, seed ${seed}`);
process.exitCode = failed ? 1 : 0;
