// script.mjs NECROCODE CASSETTE FOLDER: see check.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI, { AzureOpenAI } from "openai";

const [necrocode, cassette, folder] = process.argv.slice(2);
const greeting = "Grüße,\nworld of recorded answers and streams";

// Starts a server; its first line says where it is.
async function serve(...args) {
  const env = { ...process.env, HOME: folder };
  const child = spawn(necrocode, ["llm", ...args], { env, stdio: ["ignore", "pipe", "ignore"] });
  for await (const line of createInterface({ input: child.stdout })) {
    const { url, endpoint } = JSON.parse(line);
    const ended = new Promise((resolve) => child.on("exit", resolve));
    const stop = async () => (child.kill("SIGTERM"), assert.equal(await ended, 0));
    return { url, endpoint, stop };
  }
  throw new Error(`${args[0]} did not start`);
}

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const chat = (content, more) => ({ model: "gpt-4", messages: [{ role: "user", content }], ...more });
const tools = [{ type: "function", function: { name: "look", parameters: { type: "object" } } }];

const openaiScenarios = {
  "chat, whole": async (client) => {
    const answer = await client.chat.completions.create(chat("greet"));
    assert.equal(answer.choices[0].message.content, greeting);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, 17);
    assert.equal(answer.usage.prompt_tokens_details.cached_tokens, 4);
    assert.ok(answer._request_id);
  },
  "chat, streamed with usage": async (client) => {
    const options = { stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await client.chat.completions.create(chat("greet", options)));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, greeting);
    assert.ok(chunks.length > 5);
    assert.deepEqual(chunks.at(-1).choices, []);
    assert.equal(chunks.at(-1).usage.completion_tokens, 5);
  },
  "chat, tool calls through the stream's own accumulator": async (client) => {
    const stream = client.chat.completions.stream(chat("tools", { tools }));
    const answer = await stream.finalChatCompletion();
    const { message, finish_reason } = answer.choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.equal(message.content, "I look.");
    assert.deepEqual(
      message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]),
      [["call_1", "look", '{"at": "the sky"}'], ["call_2", "go", "{}"]],
    );
  },
  "responses, whole": async (client) => {
    const answer = await client.responses.create({ model: "gpt-4", input: "greet" });
    assert.equal(answer.output_text, greeting);
    assert.equal(answer.status, "completed");
    assert.equal(answer.usage.input_tokens_details.cached_tokens, 4);
  },
  "responses, streamed through the client's own accumulator": async (client) => {
    const names = [];
    const stream = client.responses.stream({ model: "gpt-4", instructions: "be kind", input: "greet" });
    stream.on("event", (event) => names.push(event.type));
    const answer = await stream.finalResponse();
    assert.equal(answer.output_text, greeting);
    assert.equal(names[0], "response.created");
    assert.equal(names.at(-1), "response.completed");
  },
  "responses, tool calls and reasoning streamed": async (client) => {
    const calls = await client.responses.stream({ model: "gpt-4", input: "tools" }).finalResponse();
    const call = calls.output.find((item) => item.type === "function_call");
    assert.deepEqual([call.call_id, call.name, call.arguments], ["call_1", "look", '{"at": "the sky"}']);
    const thought = await client.responses.stream({ model: "gpt-4", input: "think" }).finalResponse();
    assert.equal(thought.output[0].summary[0].text, "hm, so");
    assert.equal(thought.output_text, "done");
  },
  "responses, cut at the token limit": async (client) => {
    const events = await collect(await client.responses.create({ model: "gpt-4", input: "too long", stream: true }));
    assert.equal(events.at(-1).type, "response.incomplete");
    assert.equal(events.at(-1).response.incomplete_details.reason, "max_output_tokens");
  },
  "429 with its hint": async (client) => {
    const error = await client.chat.completions.create(chat("limit")).then(assert.fail, (thrown) => thrown);
    assert.ok(error instanceof OpenAI.RateLimitError, String(error));
    assert.equal(error.status, 429);
    assert.equal(error.code, "rate_limit_exceeded");
    assert.equal(error.headers.get("retry-after"), "2");
  },
  "an error event in the middle of a stream": async (client) => {
    const stream = await client.chat.completions.create(chat("break", { stream: true }));
    const error = await collect(stream).then(assert.fail, (thrown) => thrown);
    assert.ok(error instanceof OpenAI.APIError, String(error));
  },
  "a question that no entry answers": async (client) => {
    const error = await client.responses.create({ model: "gpt-4", input: "?" }).then(assert.fail, (thrown) => thrown);
    assert.ok(error instanceof OpenAI.BadRequestError, String(error));
    assert.match(error.message, /the nearest is entry/);
  },
  "models": async (client) => {
    const models = await collect(client.models.list());
    assert.deepEqual(models.map((model) => model.id), ["replay"]);
  },
};

const message = (content, more) => ({ model: "claude", max_tokens: 100, messages: [{ role: "user", content }], ...more });

const anthropicScenarios = {
  "messages, whole": async (client) => {
    const answer = await client.messages.create(message("greet", { system: "be kind" }));
    assert.deepEqual(answer.content.map((block) => block.text), [greeting]);
    assert.equal(answer.stop_reason, "end_turn");
    assert.deepEqual([answer.usage.input_tokens, answer.usage.cache_read_input_tokens], [8, 4]);
    assert.ok(answer._request_id);
  },
  "messages, streamed through the client's own accumulator": async (client) => {
    const pieces = [];
    const stream = client.messages.stream(message("greet")).on("text", (text) => pieces.push(text));
    const answer = await stream.finalMessage();
    assert.equal(pieces.join(""), greeting);
    assert.ok(pieces.length > 2);
    assert.equal(answer.stop_reason, "end_turn");
    assert.equal(answer.usage.output_tokens, 5);
  },
  "messages, tool calls and thinking streamed": async (client) => {
    const calls = await client.messages.stream(message("tools")).finalMessage();
    assert.equal(calls.stop_reason, "tool_use");
    assert.deepEqual(calls.content[1], { type: "tool_use", id: "call_1", name: "look", input: { at: "the sky" } });
    const thought = await client.messages.stream(message("think")).finalMessage();
    assert.equal(thought.content[0].thinking, "hm, so");
  },
  "429 with its hint, 529": async (client) => {
    const error = await client.messages.create(message("limit")).then(assert.fail, (thrown) => thrown);
    assert.ok(error instanceof Anthropic.RateLimitError, String(error));
    assert.equal(error.headers.get("retry-after"), "2");
    const overload = await client.messages.create(message("overload")).then(assert.fail, (thrown) => thrown);
    assert.ok(overload instanceof Anthropic.InternalServerError, String(overload));
    assert.equal(overload.error.error.type, "overloaded_error");
  },
  "an error event in the middle of a stream": async (client) => {
    const stream = await client.messages.create(message("break", { stream: true }));
    const error = await collect(stream).then(assert.fail, (thrown) => thrown);
    assert.ok(error instanceof Anthropic.APIError, String(error));
  },
};

let failed = 0;
async function run(where, scenarios, client) {
  for (const [name, scenario] of Object.entries(scenarios)) {
    try {
      await scenario(client);
      console.log(`ok    ${where}: ${name}`);
    } catch (error) {
      ++failed;
      console.log(`FAIL  ${where}: ${name}\n${error.stack}`);
    }
  }
}

async function runAll(where, { url, endpoint }) {
  const options = { apiKey: "any", maxRetries: 0, timeout: 10_000 };
  await run(`openai, ${where}`, openaiScenarios, new OpenAI({ ...options, baseURL: endpoint }));
  // Its base has no version of its own, but users put one there.
  for (const baseURL of [url, endpoint]) {
    await run(`anthropic, ${where}`, anthropicScenarios, new Anthropic({ ...options, baseURL }));
  }
}

const replay = await serve("serve-replay", cassette);
await runAll("replay", replay);
const azure = new AzureOpenAI({ apiKey: "any", endpoint: replay.url, apiVersion: "2024-10-21", maxRetries: 0 });
await run("openai for Azure, replay", { "chat, whole": openaiScenarios["chat, whole"] }, azure);

// Through the recorder, then from what it wrote. What broke off or had no entry is asked of the first server only.
const recorded = `${folder}/recorded.json`;
const recorder = await serve("record", "--llm-endpoint", replay.endpoint, "--out", recorded);
await runAll("recorder", recorder);
await recorder.stop();
await replay.stop();
const again = await serve("serve-replay", recorded);
delete openaiScenarios["a question that no entry answers"];
delete openaiScenarios["models"];
await runAll("recorded cassette", again);
await again.stop();
console.log(`${JSON.parse(readFileSync(recorded)).entries.length} exchanges were recorded`);
process.exitCode = failed ? 1 : 0;
