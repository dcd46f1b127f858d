// Random event streams, reproducible from a number: every corner of the grammar, in every kind of pieces.

/** mulberry32: 32 bits of state, enough to choose by. */
export class Random {
  constructor(seed) {
    this.state = seed >>> 0;
  }
  next() {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  }
  below(limit) {
    return Math.floor(this.next() * limit);
  }
  chance(probability) {
    return this.next() < probability;
  }
  pick(list) {
    return list[this.below(list.length)];
  }
}

const bytes = (...values) => Buffer.from(values);
const BOM = bytes(0xef, 0xbb, 0xbf);
const CHAT_CHUNK =
  '{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"héllo 🌍"},' +
  '"finish_reason":null}]}';

// What a value or a comment is made of. Bytes stand for what is no UTF-8: cut off, stray, overlong, a surrogate.
const WORDS = [
  "a", "hello", " ", "  ", ":", "::", "data: inside", "\t", "\0", "é", "中文", "🌍", "\u2028", "\u0085", "\u000b",
  "\ufeff", "\ufffd", "[DONE]", CHAT_CHUNK, "{", '"', "\\n", "0", "id", "\x7f",
  BOM, bytes(0xc3), bytes(0xe4, 0xb8), bytes(0xf0, 0x9f, 0x8c), bytes(0x80), bytes(0xff), bytes(0xc0, 0xaf),
  bytes(0xed, 0xa0, 0x80), bytes(0xf5, 0x80, 0x80, 0x80),
];
const FIELDS = ["data", "data", "data", "data", "event", "id", "retry"];
const NO_FIELDS = [
  "Data", "DATA", " data", "data ", "dat", "dataa", "d", "even", "events", "i", "ids", "ID", "retr", "retryy", "foo",
  "\ufeffdata", "data\0", "\0", "1",
];
const RETRIES = [
  "0", "1", "250", "0005", "59999", "60000", "60001", "99999999999", "9223372036854775808", "18446744073709551616",
  "1".repeat(60), "", " 5", "5 ", "-1", "+5", "1.5", "1e3", "0x10", "１２", "12x", "١", "\t5",
];
const ALPHABET = ["d", "a", "t", "a", "data", "data:", "id:", "event:", ":", " ", "\n", "\n\n", "\r", "\r\n", "\0", "x", BOM];
const LINE_ENDS = [["\n"], ["\r"], ["\r\n"], ["\n", "\r", "\r\n"]];

function words(random, most) {
  return Array.from({ length: random.below(most + 1) }, () => random.pick(WORDS));
}

/** The parts of one line, without its end. */
function line(random) {
  const kind = random.next();
  if (kind < 0.1) return [":", ...words(random, 3)];
  if (kind < 0.2) return [random.pick(NO_FIELDS), random.pick(["", ":", ": "]), ...words(random, 2)];
  if (kind < 0.21) return ["data:", " ".repeat(random.below(2)), "x".repeat(random.below(300_000))];
  const field = random.pick(FIELDS);
  if (random.chance(0.1)) return [field];
  const value = field === "retry" && random.chance(0.9) ? [random.pick(RETRIES)] : words(random, 4);
  return [field, ":", " ".repeat(random.below(3)), ...value];
}

function text(random) {
  const parts = [];
  if (random.chance(0.15)) parts.push(BOM);
  if (random.chance(0.05)) parts.push(random.pick([BOM, BOM.subarray(0, 1), BOM.subarray(0, 2), "\n", "\r"]));
  if (random.chance(0.15)) {
    for (let i = random.below(60); i > 0; --i) parts.push(random.pick(ALPHABET));
  } else {
    const ends = random.pick(LINE_ENDS);
    for (let i = random.below(30); i > 0; --i) {
      if (random.chance(0.7)) parts.push(...line(random));
      parts.push(random.pick(ends));
    }
  }
  const whole = Buffer.concat(parts.map((part) => Buffer.from(part)));
  return random.chance(0.3) ? whole.subarray(0, random.below(whole.length + 1)) : whole;
}

/** Where the pieces end; the same place twice is an empty piece. */
function cuts(random, whole) {
  const kind = random.next();
  if (kind < 0.1) return [];
  if (kind < 0.3 && whole.length < 2000) return Array.from({ length: whole.length }, (_, i) => i);
  const few = Array.from({ length: random.below(12) }, () => random.below(whole.length + 1));
  if (kind < 0.6) return few;
  // Between the two bytes of a line's end, right behind one, inside of a character.
  const delicate = [];
  whole.forEach((byte, i) => {
    if (byte === 13 || byte === 10 || byte >= 0x80) delicate.push(i, i + 1);
  });
  return delicate.filter(() => random.chance(0.5)).concat(few.slice(0, 2));
}

/** The pieces of the stream that `seed` stands for. */
export function stream(seed) {
  const random = new Random(seed);
  const whole = text(random);
  const places = [0, ...cuts(random, whole).sort((a, b) => a - b), whole.length];
  return places.slice(1).map((end, i) => whole.subarray(places[i], end));
}
