// @dwmkerr/mock-llm: rules of its own for Chat Completions; streams cut out of the whole answer.
import { createRequire } from "node:module";
import { answered, between, failed, holds, runs } from "./scenarios.mjs";

const { createServer } = createRequire(import.meta.url)("@dwmkerr/mock-llm/dist/server.js");

const completion = (message, more = {}) => ({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: "mock",
  choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop" }],
  ...more,
});
const error = (status, type, code) => ({ status, body: { error: { message: "So it is.", type, param: null, code } } });
const CALL = { id: "call_1", type: "function", function: { name: "get_weather", arguments: '{"city":"Zürich"}' } };

// `reply`: {status, body}, or a body of status 200. A list: one after the other.
const SCENARIOS = [
  {
    name: "echo",
    reply: undefined,
    expect: (dialect, mode) => ({
      ok: true,
      content: `[mock-llm/echo/${dialect}/${mode}]`,
      attempts: 1,
      estimated: true,
    }),
  },
  {
    name: "usage",
    modes: ["chat"],
    reply: completion({ content: "x" }, { usage: { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7 } }),
    expect: answered("x", { estimated: false, usage: { total_tokens: 7 } }),
  },
  {
    name: "usage is null",
    reply: completion({ content: "x" }, { usage: null }),
    expect: answered("x", { estimated: true }),
  },
  {
    name: "a text in many pieces",
    reply: completion({ content: "Zürich 🌍 ".repeat(50) }),
    expect: answered("Zürich 🌍 ".repeat(50)),
  },
  {
    name: "a tool is called",
    modes: ["chat"],
    reply: completion({ content: null, tool_calls: [CALL] }),
    ask: { tools: ["get_weather"] },
    expect: () => ({
      ok: true,
      content: "",
      tool_calls: [{ id: "call_1", name: "get_weather", arguments: '{"city":"Zürich"}' }],
    }),
  },
  {
    name: "code changes in a fence",
    modes: ["generate_code"],
    reply: completion({
      content:
        'Here:\n```json\n{"code_changes":[{"file_path":"a.py","operation":"delete"}],"explanation":"Gone."}\n```\n',
    }),
    expect: () => ({ ok: true, files: ["a.py"], explanation: "Gone." }),
  },
  {
    name: "a path out of the workspace",
    modes: ["generate_code"],
    reply: completion({
      content: '{"code_changes":[{"file_path":"../a.py","operation":"delete"}],"explanation":"Gone."}',
    }),
    expect: failed("SecurityError", { attempts: 1 }),
  },

  {
    name: "401",
    modes: ["chat"],
    reply: error(401, "invalid_request_error", "invalid_api_key"),
    expect: failed("Unauthorized", { status: 401, attempts: 1 }),
  },
  {
    name: "429 twice",
    modes: ["chat"],
    reply: [
      error(429, "requests", "rate_limit_exceeded"),
      error(429, "requests", "rate_limit_exceeded"),
      completion({ content: "now" }),
    ],
    expect: answered("now", { attempts: 3 }),
  },
  {
    name: "500 for ever",
    modes: ["chat"],
    reply: error(500, "server_error", null),
    expect: failed("Unavailable", { status: 500, attempts: 3, end: "exhausted" }),
  },
  {
    name: "418",
    modes: ["chat"],
    reply: error(418, "teapot", null),
    expect: failed("ServiceError", { status: 418, attempts: 1 }),
  },
  // In a stream it tells every error as an event after a head of 200.
  {
    name: "an error as an event",
    modes: ["stream"],
    reply: error(400, "invalid_request_error", "bad"),
    expect: failed("ServiceError", { attempts: 1, detail: holds("So it is.") }),
  },
  {
    name: "a key refused as an event",
    modes: ["stream"],
    reply: error(401, "invalid_request_error", "invalid_api_key"),
    expect: failed("Unauthorized", { attempts: 1 }),
  },

  {
    name: "200 with an error",
    modes: ["chat"],
    reply: { error: { message: "So it is." } },
    expect: failed("InvalidResponse", { attempts: 1, detail: holds("So it is.") }),
  },
  {
    name: "no choices",
    modes: ["chat"],
    reply: completion({}, { choices: [] }),
    expect: failed("InvalidResponse", { attempts: 1 }),
  },
  {
    name: "choices of another type",
    modes: ["chat"],
    reply: completion({}, { choices: "none" }),
    expect: failed("InvalidResponse", { attempts: 1 }),
  },
  {
    name: "no message",
    modes: ["chat"],
    reply: completion({}, { choices: [{}] }),
    expect: failed("InvalidResponse", { attempts: 1 }),
  },
  {
    name: "null content",
    modes: ["chat"],
    reply: completion({ content: null }),
    expect: failed("ImplementationError", { attempts: 1 }),
  },
  {
    name: "an array",
    modes: ["chat"],
    reply: { status: 200, body: [1, 2] },
    expect: failed("InvalidResponse", { attempts: 1 }),
  },
  { name: "empty content", reply: completion({ content: "" }), expect: failed("ImplementationError", { attempts: 1 }) },
  // It cannot stream these: it fails with 500 before the first byte.
  {
    name: "no choices",
    modes: ["stream"],
    reply: completion({}, { choices: [] }),
    expect: failed("Unavailable", { status: 500, attempts: 3 }),
  },
  {
    name: "null content",
    modes: ["stream"],
    reply: completion({ content: null }),
    expect: failed("Unavailable", { status: 500, attempts: 3 }),
  },

  { name: "another path", base: "/v2", expect: failed("NotFound", { status: 404, attempts: 1 }) },
  { name: "health", modes: ["health"], expect: () => ({ ok: true }) },
  { name: "models", modes: ["models"], expect: () => ({ ok: true, models: ["one", "two"] }) },
].map((scenario) => ({ dialects: ["openai-chat"], ...scenario }));

const PATH = "^/v1/chat/completions$";

/** The echo, the list of models, and the rules of the runs. Its counters are a path's, so lists get paths of their own. */
function config(all) {
  const echo = completion({ content: "{{jmes request body.messages[-1].content}}" });
  const rules = [
    { path: PATH, method: "POST", response: { status: 200, content: JSON.stringify(echo) } },
    {
      path: "^/v1/models$",
      method: "GET",
      response: { status: 200, content: '{"object":"list","data":[{"id":"one"},{"id":"two"}]}' },
    },
  ];
  for (const { scenario, prompt } of all.filter(({ scenario }) => scenario.reply)) {
    const replies = [scenario.reply].flat();
    replies.forEach((reply, i) => {
      const { status, body } = reply.status ? reply : { status: 200, body: reply };
      rules.push({
        path: replies.length > 1 ? `^/${slug(scenario)}/chat/completions$` : PATH,
        match: `contains(body.messages[-1].content, '${prompt}')`,
        ...(replies.length > 1 ? { sequence: i } : {}),
        response: { status, content: JSON.stringify(body) },
      });
    });
  }
  return { streaming: { chunkSize: 5, chunkIntervalMs: 1 }, rules };
}

const slug = ({ name }) => name.replaceAll(/[^a-z0-9]/g, "-");

/** {runs, question(run), stop()} */
export async function mockLlm(only) {
  const all = runs("mock-llm", SCENARIOS, only);
  const quiet = console.log;
  console.log = () => {}; // it tells of every request there
  const app = createServer(config(all), "127.0.0.1", 0);
  const server = await new Promise((resolve, reject) => {
    const listening = app.listen(0, "127.0.0.1", () => resolve(listening)).on("error", reject);
  });
  const url = `http://127.0.0.1:${server.address().port}`;
  const question = ({ scenario, dialect, mode, prompt }) => {
    const own = Array.isArray(scenario.reply) ? `/${slug(scenario)}` : "/v1";
    return { provider: dialect, mode, prompt, endpoint: url + (scenario.base ?? own), ...scenario.ask };
  };
  const stop = () => {
    console.log = quiet;
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { runs: all, question, stop };
}
