// node contracts.mjs LLM_PROBE: every scenario of both servers; exits with 1 when one does not hold.
import { execFile } from "node:child_process";
import { aimock, weather } from "./aimock.mjs";
import { mockLlm } from "./mock_llm.mjs";
import { DIALECTS, differences } from "./scenarios.mjs";

const AT_ONCE = 8; // most of the time is waiting for what servers ask for
const PATIENCE_MS = 20_000;
const CALLS = 12; // of each dialect and mode in bad weather
const binary = process.argv[2];
const only = new RegExp(process.env.NECROCODE_ONLY ?? "");
let failures = 0;

function tell(name, complaints) {
  failures += complaints.length > 0 ? 1 : 0;
  process.stdout.write(
    `${complaints.length > 0 ? "FAIL" : "ok  "} ${name}\n${complaints.map((c) => `       ${c}\n`).join("")}`,
  );
}

/** What the probe tells; a call that does not end is told as such, not waited for. */
function probe(question) {
  return new Promise((resolve, reject) => {
    execFile(
      binary,
      [JSON.stringify(question)],
      { maxBuffer: 2 ** 26, timeout: PATIENCE_MS },
      (error, stdout, stderr) => {
        if (error?.killed) resolve({ ok: false, error: `no end after ${PATIENCE_MS} ms` });
        else if (error) reject(new Error(`${error.message}\n${stderr}`));
        else resolve(JSON.parse(stdout));
      },
    );
  });
}

async function each(list, action) {
  const waiting = list.values();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const one of waiting) await action(one);
    }),
  );
}

async function check(server) {
  await each(server.runs, async (run) => {
    const outcome = await probe(server.question(run));
    const complaints = differences(outcome, run.scenario.expect(run.dialect, run.mode));
    const seen = server.seen?.(run);
    if (seen !== undefined && outcome.attempts !== undefined && seen !== outcome.attempts) {
      complaints.push(`the client says ${outcome.attempts} attempts, the server saw ${seen}`);
    }
    if (complaints.length > 0) complaints.push(JSON.stringify(outcome).slice(0, 1500));
    tell(run.name, complaints);
  });
  await server.stop();
}

// Whatever happens to a call, its end is the whole answer or a true error.
async function checkWeather() {
  const server = await weather();
  const kinds = DIALECTS.flatMap((dialect) => server.modes.map((mode) => ({ dialect, mode })));
  for (const { dialect, mode } of kinds) {
    const name = `aimock: bad weather, ${dialect}, ${mode}`;
    if (!only.test(name)) continue;
    const outcomes = [];
    await each(Array(CALLS).fill(server.question(dialect, mode)), async (question) =>
      outcomes.push(await probe(question)),
    );
    const isTrue = ({ ok, content, error }) =>
      ok ? content === server.answer : ["Unavailable", "InvalidResponse", "RateLimited"].includes(error);
    const wrong = outcomes.filter((outcome) => !isTrue(outcome));
    const good = outcomes.filter(({ ok }) => ok).length;
    tell(
      `${name} (${good} of ${CALLS} answered)`,
      wrong.map((outcome) => JSON.stringify(outcome).slice(0, 1500)),
    );
    const refused = await probe(server.question(dialect, mode, server.wrongKey));
    const told = JSON.stringify(refused);
    tell(`aimock: a wrong key, ${dialect}, ${mode}`, [
      ...differences(refused, { ok: false, error: "Unauthorized", status: 401, attempts: 1 }),
      ...(told.includes(server.wrongKey) ? [`the key is told: ${told}`] : []),
    ]);
  }
  await server.stop();
}

await check(await aimock(only));
await check(await mockLlm(only));
await checkWeather();
console.log(`${failures === 0 ? "ok  " : "FAIL"} ${failures} scenarios failed`);
process.exitCode = failures === 0 ? 0 : 1;
