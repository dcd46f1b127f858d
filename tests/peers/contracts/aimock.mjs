// @copilotkit/aimock: fixtures by prompt, errors, cut and slow streams, chaos; all three dialects.
import { LLMock } from "@copilotkit/aimock";
import { answered, between, failed, holds, MODES, runs } from "./scenarios.mjs";

const KEY = "probe-key-0123456789";
const LONG = "Zürich 🌍 ".repeat(400); // 10 units of UTF-16 each: pieces of 5 or 10 cut no character
const CHANGE = {
  code_changes: [{ file_path: "a.py", operation: "create", content: "x = 1\n" }],
  explanation: "Adds it.",
};
const SCHEMA = {
  type: "object",
  properties: { x: { type: "integer" } },
  required: ["x"],
  additionalProperties: false,
};
const WEATHER = { name: "get_weather", arguments: { city: "Zürich" }, id: "call_1" };
const TIME = { name: "get_time", arguments: { zone: "CET" }, id: "call_2" };

const error = (status, type, code, message = "So it is.", more = {}) => ({
  error: { message, type, code },
  status,
  ...more,
});
const LIMITED = error(429, "rate_limit_error", "rate_limit_exceeded");
const FAILING = error(500, "server_error", "internal_error");

const called =
  (...calls) =>
  (list) =>
    Array.isArray(list) &&
    list.length === calls.length &&
    calls.every(({ name, arguments: given }, i) => {
      return (
        list[i].name === name &&
        list[i].id !== "" &&
        JSON.stringify(JSON.parse(list[i].arguments)) === JSON.stringify(given)
      );
    });

// `response`: the fixture's; a list: one after the other, the last for ever. `options`: of the fixture.
// `match`: more of the request, `otherwise`: the response when it does not.
// `unseen`: the server's journal leaves out requests whose client went away.
const SCENARIOS = [
  { name: "a word", response: { content: "Hi there!" }, expect: answered("Hi there!") },
  {
    name: "a long text in small pieces",
    response: { content: LONG },
    options: { chunkSize: 5 },
    expect: answered(LONG),
  },
  {
    name: "line ends and quotes",
    response: { content: 'a\r\nb\n"c"\\\u2028' },
    expect: answered('a\r\nb\n"c"\\\u2028'),
  },
  {
    name: "usage is the server's",
    response: {
      content: "x",
      usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18, input_tokens: 11, output_tokens: 7 },
    },
    expect: answered("x", { estimated: false, usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 } }),
  },
  {
    name: "reasoning",
    response: { content: "42", reasoning: "Think hard." },
    expect: answered("42", { reasoning: "Think hard." }),
  },
  {
    name: "a tool is called",
    response: { toolCalls: [WEATHER] },
    ask: { tools: ["get_weather"] },
    expect: () => ({ ok: true, tool_calls: called(WEATHER) }),
  },
  {
    name: "two tools at once",
    response: { toolCalls: [WEATHER, TIME] },
    ask: { tools: ["get_weather", "get_time"] },
    options: { chunkSize: 3 },
    expect: () => ({ ok: true, tool_calls: called(WEATHER, TIME) }),
  },
  {
    name: "a tool before the text",
    response: {
      blocks: [
        { type: "toolCall", ...WEATHER },
        { type: "text", text: "I am looking." },
      ],
    },
    ask: { tools: ["get_weather"] },
    expect: () => ({ ok: true, content: "I am looking.", tool_calls: called(WEATHER) }),
  },
  {
    name: "code changes",
    modes: ["generate_code"],
    response: { content: JSON.stringify(CHANGE) },
    expect: () => ({ ok: true, files: ["a.py"], explanation: "Adds it.", attempts: 1 }),
  },
  {
    name: "asked for by a schema",
    dialects: ["openai-chat"],
    match: { responseFormat: "json_schema" },
    response: { content: '{"x":1}' },
    ask: { schema: SCHEMA },
    expect: answered('{"x":1}'),
  },
  {
    name: "a schema is refused",
    dialects: ["openai-chat"],
    modes: ["chat"],
    match: { responseFormat: "json_object" },
    response: { content: '{"x":1}' },
    otherwise: error(
      400,
      "invalid_request_error",
      "unsupported_parameter",
      "response_format json_schema is not supported",
    ),
    ask: { schema: SCHEMA },
    unseen: true, // what a 400 teaches is no attempt
    expect: answered('{"x":1}'),
  },
  {
    name: "code changes that are prose",
    modes: ["generate_code"],
    response: { content: "I'd rather not." },
    expect: failed("ImplementationError", { attempts: 1, detail: holds("rather not") }),
  },
  {
    name: "cut off at the token limit",
    response: { content: "half a", finishReason: "length" },
    expect: failed("ImplementationError", { attempts: 1 }),
  },
  {
    name: "filtered",
    dialects: ["openai-chat"],
    response: { content: "half a", finishReason: "content_filter" },
    expect: failed("ImplementationError", { attempts: 1 }),
  },
  {
    // For Responses it says only that the answer failed, where OpenAI says "incomplete" and why.
    name: "failed without a reason",
    dialects: ["openai-responses"],
    response: { content: "half a", finishReason: "content_filter" },
    expect: failed("InvalidResponse", { attempts: 1, partial: "half a" }),
  },
  { name: "an empty answer", response: { content: "" }, expect: failed("ImplementationError", { attempts: 1 }) },

  // Never worth another attempt.
  {
    name: "401",
    response: error(401, "authentication_error", "invalid_api_key"),
    expect: failed("Unauthorized", { status: 401, attempts: 1 }),
  },
  {
    name: "403",
    response: error(403, "permission_error", "forbidden"),
    expect: failed("Unauthorized", { status: 403, attempts: 1 }),
  },
  {
    name: "404",
    response: error(404, "not_found_error", "model_not_found"),
    expect: failed("NotFound", { status: 404, attempts: 1 }),
  },
  {
    name: "400",
    response: error(400, "invalid_request_error", "bad"),
    expect: failed("ServiceError", { status: 400, attempts: 1, detail: holds("So it is.") }),
  },
  {
    name: "413",
    response: error(413, "request_too_large", "too_large"),
    expect: failed("ServiceError", { status: 413, attempts: 1 }),
  },
  {
    name: "422",
    response: error(422, "invalid_request_error", "unprocessable"),
    expect: failed("ServiceError", { status: 422, attempts: 1 }),
  },
  { name: "no fixture at all", unmatched: true, expect: failed("NotFound", { status: 404, attempts: 1 }) },
  {
    name: "context length",
    response: error(
      400,
      "invalid_request_error",
      "context_length_exceeded",
      "prompt is too long: maximum context length is 8",
    ),
    expect: failed("ContextLengthExceeded", { attempts: 1 }),
  },
  {
    name: "quota",
    response: error(429, "insufficient_quota", "insufficient_quota"),
    expect: failed("RateLimited", { attempts: 1, end: "permanent" }),
  },

  // Worth one.
  {
    name: "500 for ever",
    response: FAILING,
    expect: failed("Unavailable", { status: 500, attempts: 3, end: "exhausted" }),
  },
  { name: "500 once", response: [FAILING, { content: "now" }], expect: answered("now", { attempts: 2 }) },
  {
    name: "503 twice",
    response: [error(503, "overloaded", "overloaded"), error(503, "overloaded", "overloaded"), { content: "now" }],
    expect: answered("now", { attempts: 3 }),
  },
  {
    name: "529 once",
    response: [error(529, "overloaded_error", "overloaded_error"), { content: "now" }],
    expect: answered("now", { attempts: 2 }),
  },
  // aimock's 429 says: Retry-After 1, x-ratelimit-reset-tokens 6m0s. The nearer word is the answer's own.
  {
    name: "429 once",
    response: [LIMITED, { content: "now" }],
    expect: answered("now", { attempts: 2, wall_ms: between(1000, 2500) }),
  },
  {
    name: "429 for ever",
    response: LIMITED,
    ask: { retries: 1 },
    expect: failed("RateLimited", { status: 429, attempts: 2, end: "exhausted", wall_ms: between(1000, 2500) }),
  },
  {
    name: "429 beyond the deadline",
    response: { ...LIMITED, retryAfter: 90 },
    ask: { deadline_ms: 5000 },
    expect: failed("RateLimited", {
      attempts: 1,
      end: "deadline",
      retry_in_ms: between(80_000, 100_000),
      wall_ms: between(0, 2000),
    }),
  },

  // Chaos.
  {
    name: "chaos: dropped",
    response: { content: "x" },
    options: { chaos: { dropRate: 1 } },
    expect: failed("Unavailable", { status: 500, attempts: 3 }),
  },
  {
    name: "chaos: malformed",
    response: { content: "x" },
    options: { chaos: { malformedRate: 1 } },
    expect: failed("InvalidResponse", { attempts: 1 }),
  },
  {
    name: "chaos: disconnected",
    response: { content: "x" },
    options: { chaos: { disconnectRate: 1 } },
    expect: failed("Unavailable", { attempts: 3, end: "exhausted", maybe_accepted: true }),
  },
  {
    name: "chaos: limited",
    response: { content: "x" },
    ask: { retries: 0 },
    options: { chaos: { rateLimitRate: 1 } },
    expect: failed("RateLimited", { status: 429, attempts: 1 }),
  },
  {
    name: "chaos: slow, but in time",
    response: { content: "x" },
    options: { chaos: { latencyMs: 300 } },
    expect: answered("x", { wall_ms: between(300, 3000) }),
  },
  {
    name: "chaos: slower than the deadline",
    response: { content: "x" },
    unseen: true,
    ask: { deadline_ms: 400 },
    options: { chaos: { latencyMs: 2000 } },
    expect: failed("TimeoutError", { end: "deadline", wall_ms: between(360, 900) }),
  },
  {
    name: "chaos: slower than an attempt",
    response: { content: "x" },
    unseen: true,
    ask: { timeout_seconds: 0.2, retries: 1 },
    options: { chaos: { latencyMs: 2000 } },
    expect: failed("TimeoutError", { attempts: 2, wall_ms: between(400, 1500) }),
  },

  // Streams that break off. What came is kept, and is no success.
  {
    name: "cut after three events",
    modes: ["stream"],
    response: { content: LONG },
    options: { chunkSize: 50, truncateAfterChunks: 3 },
    ask: { retries: 1 },
    expect: failed("Unavailable", { attempts: 2, end: "exhausted" }),
  },
  {
    name: "cut in the middle, once",
    modes: ["stream"],
    response: [{ content: LONG }, { content: LONG }],
    cut: [{ chunkSize: 50, latency: 10, truncateAfterChunks: 9 }, {}], // without a pause nothing of it arrives
    expect: answered(LONG, { attempts: 2, pieces: { text: LONG, restarts: 1 } }),
  },
  {
    name: "cut by time",
    modes: ["stream"],
    response: { content: LONG },
    options: { chunkSize: 10, latency: 20, disconnectAfterMs: 150 },
    ask: { retries: 0 },
    expect: failed("Unavailable", { attempts: 1, wall_ms: between(100, 2000) }),
  },
  {
    name: "slow, but in progress",
    modes: ["stream"],
    response: { content: "0123456789".repeat(4) },
    options: { chunkSize: 2, latency: 40 },
    ask: { timeout_seconds: 30 },
    expect: answered("0123456789".repeat(4), { wall_ms: between(500, 8000) }),
  },
  {
    name: "a stream past the deadline",
    modes: ["stream"],
    response: { content: LONG },
    options: { chunkSize: 5, latency: 30 },
    ask: { deadline_ms: 500 },
    expect: failed("TimeoutError", { end: "deadline", wall_ms: between(450, 1000), partial: holds("Zürich") }),
  },

  // It cuts by UTF-16: half of a pair is no text, and not to be guessed at.
  {
    name: "a character cut in two",
    modes: ["stream"],
    response: { content: LONG },
    options: { chunkSize: 7 },
    ask: { retries: 0 },
    expect: failed("InvalidResponse", { attempts: 1, partial: holds("Zürich") }),
  },

  // Azure's base: the deployment in the path, the key in a header of its own, the version in the query.
  {
    name: "Azure",
    dialects: ["openai-chat"],
    base: "/openai/deployments/probe?api-version=2024-10-21",
    response: { content: LONG },
    options: { chunkSize: 90 },
    expect: answered(LONG),
  },
  {
    name: "Azure: 401",
    dialects: ["openai-chat"],
    base: "/openai/deployments/probe?api-version=2024-10-21",
    response: error(401, "authentication_error", "invalid_api_key"),
    expect: failed("Unauthorized", { status: 401, attempts: 1 }),
  },

  // OpenRouter's base, with its comments between the events.
  {
    name: "OpenRouter",
    dialects: ["openai-chat"],
    base: "/api/v1",
    response: { content: LONG, usage: { prompt_tokens: 5, completion_tokens: 6, total_tokens: 11 } },
    options: { chunkSize: 90, openRouterProcessing: true },
    ask: { model: "openai/gpt-4o" },
    expect: answered(LONG),
  },
  {
    name: "OpenRouter: 429 once",
    dialects: ["openai-chat"],
    base: "/api/v1",
    response: [LIMITED, { content: "now" }],
    ask: { model: "openai/gpt-4o" },
    expect: answered("now", { attempts: 2 }),
  },
];

/** {runs, ask(run), seen(run), stop()} */
export async function aimock(only) {
  const all = runs("aimock", SCENARIOS, only);
  const mock = new LLMock({ host: "127.0.0.1", port: 0, auth: { apiKeys: [KEY] }, journalMaxEntries: 0 });
  for (const { scenario, prompt } of all) {
    if (scenario.unmatched) continue;
    const responses = [scenario.response].flat();
    responses.forEach((response, i) => {
      const turn = i + 1 < responses.length ? { sequenceIndex: i } : {};
      mock.on({ userMessage: prompt, ...scenario.match, ...turn }, response, {
        ...scenario.options,
        ...scenario.cut?.[i],
      });
    });
  }
  for (const { scenario, prompt } of all) {
    if (scenario.otherwise) mock.on({ userMessage: prompt }, scenario.otherwise);
  }
  await mock.start();
  const question = ({ scenario, dialect, mode, prompt }) => ({
    provider: dialect,
    mode,
    prompt,
    endpoint: mock.url + (scenario.base ?? "/v1"),
    api_key: KEY,
    ...scenario.ask,
  });
  const seen = ({ scenario, prompt }) =>
    scenario.unseen
      ? undefined
      : mock.getRequests().filter(({ body }) => JSON.stringify(body ?? null).includes(prompt)).length;
  return { runs: all, question, seen, stop: () => mock.stop() };
}

/** A server where each kind of chaos may meet any call; and one that knows no key of ours. */
export async function weather() {
  const chaos = { dropRate: 0.2, malformedRate: 0.05, disconnectRate: 0.2, rateLimitRate: 0.02 };
  const mock = new LLMock({ host: "127.0.0.1", port: 0, chaos, auth: { apiKeys: [KEY] } });
  mock.onMessage(/./, { content: LONG }, { chunkSize: 100 });
  await mock.start();
  const question = (dialect, mode, api_key = KEY) => ({
    provider: dialect,
    mode,
    prompt: "How is it?",
    endpoint: `${mock.url}/v1`,
    api_key,
    retries: 4,
  });
  return { question, modes: MODES, answer: LONG, wrongKey: "wrong-key-0123456789", stop: () => mock.stop() };
}
