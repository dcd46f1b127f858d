// node openai_peer.mjs chat|stream URL CALLS IN_FLIGHT: what bench_calls does, through npm `openai` (scripts/bench
// installs it beside this file). Prints floor_http's line; cpu_seconds is of the calls alone, start_cpu_seconds what
// the process took before the first of them.
import OpenAI from "openai";

const [kind, url, calls, inFlight] = process.argv.slice(2);
const client = new OpenAI({ apiKey: "bench", baseURL: url });
const question = {
  model: "bench",
  messages: [{ role: "user", content: "Say what you always say." }],
  max_tokens: 4000,
  temperature: 0.2,
};

async function chat() {
  const answer = await client.chat.completions.create(question);
  if (answer.choices[0].message.content.length === 0) throw new Error("an empty answer");
}

async function stream() {
  const chunks = await client.chat.completions.create({
    ...question,
    stream: true,
    stream_options: { include_usage: true },
  });
  let content = "";
  let usage;
  for await (const chunk of chunks) {
    content += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  if (content.length === 0 || !usage) throw new Error("half an answer");
}

const cpuSeconds = ({ user, system }) => (user + system) / 1e6;
const call = kind === "stream" ? stream : chat;
const before = process.cpuUsage();
const begin = performance.now();
let left = Number(calls);
async function work() {
  while (left-- > 0) await call();
}
await Promise.all(Array.from({ length: Number(inFlight) }, work));
console.log(
  JSON.stringify({
    calls: Number(calls),
    cpu_seconds: cpuSeconds(process.cpuUsage(before)),
    start_cpu_seconds: cpuSeconds(before),
    wall_seconds: (performance.now() - begin) / 1000,
    max_rss_kib: process.resourceUsage().maxRSS,
  }),
);
