// A scenario: {name, dialects, modes, ask, expect, …}; the rest says what the server does and is the server's affair.
// It is run once for each dialect and mode. `ask` is added to the probe's question. `expect` is what its answer must
// hold at least: a value, a function of the value, or nested objects of these; a function gets (dialect, mode).

export const DIALECTS = ["openai-chat", "openai-responses", "anthropic"];
export const MODES = ["chat", "stream"];

/** Each run of each scenario, with a prompt that no other run has. */
export function runs(server, scenarios, only) {
  return scenarios
    .flatMap((scenario) =>
      (scenario.dialects ?? DIALECTS).flatMap((dialect) =>
        (scenario.modes ?? MODES).map((mode) => ({
          scenario,
          dialect,
          mode,
          name: `${server}: ${scenario.name}, ${dialect}, ${mode}`,
          prompt: `[${server}/${scenario.name}/${dialect}/${mode}]`,
        })),
      ),
    )
    .filter(({ name }) => only.test(name));
}

/** Where `seen` is not as `wanted` says; empty when it is. */
export function differences(seen, wanted, path = "") {
  if (typeof wanted === "function") return wanted(seen) ? [] : [`${path} is ${JSON.stringify(seen)}`];
  if (wanted !== null && typeof wanted === "object" && !Array.isArray(wanted)) {
    return Object.entries(wanted).flatMap(([key, value]) => differences(seen?.[key], value, `${path}/${key}`));
  }
  const same = JSON.stringify(seen) === JSON.stringify(wanted);
  return same ? [] : [`${path} is ${JSON.stringify(seen)}, not ${JSON.stringify(wanted)}`];
}

export const between = (least, most) => (value) => typeof value === "number" && value >= least && value <= most;
export const holds = (words) => (value) => typeof value === "string" && value.includes(words);

/** An answer whose pieces, where there are pieces, say the same as the whole. */
export const answered =
  (content, more = {}) =>
  (dialect, mode) => ({
    ok: true,
    content,
    attempts: 1,
    ...(mode === "stream" ? { pieces: { text: content } } : {}),
    ...more,
  });
export const failed =
  (error, more = {}) =>
  () => ({ ok: false, error, ...more });
