// What every JavaScript client is put through (scenario.json), and the lines it reports, which run.py judges.
import { readFileSync } from "node:fs";

export const SCENARIO = JSON.parse(readFileSync(new URL("scenario.json", import.meta.url)));
export const SYSTEM = SCENARIO.system.join("\n");
export const { chat: CHAT, tools: TOOLS, loop: LOOP, record: RECORD } = SCENARIO;
export const MODEL = "default";
export const KEY = "unused";
export const BASE_URL = process.argv[2];

/** One answer of the model with its usage in tokens. `opens`: it begins a conversation, so nothing of it was known. */
export function turn(name, found, expected, { prompt, cached, completion }, opens = false) {
  console.log(JSON.stringify({ turn: name, found, expected, prompt, cached, completion, opens }));
}

/** Anything else that has to be exactly so. */
export function check(name, found, expected) {
  console.log(JSON.stringify({ check: name, found, expected }));
}

/** What the tool answers. Other arguments than the scenario's are an answer too: one that turns out wrong. */
export function resultOf(name, given) {
  const same = (step) => step.tool === name && JSON.stringify(step.arguments) === JSON.stringify(given);
  const result = LOOP.find(same)?.result ?? { error: `${name} was called with ${JSON.stringify(given)}` };
  // As Python writes it, which is how the embedded model learned to read results.
  return JSON.stringify(result, null, 1).replace(/\n */g, " ").replace("{ ", "{").replace(" }", "}");
}

/** The schema of structured output. */
export const RECORD_SCHEMA = {
  type: "object",
  properties: { [RECORD.field]: { type: "string", pattern: RECORD.pattern } },
  required: [RECORD.field],
  additionalProperties: false,
};

/** The call that a turn of the loop expects, as checks compare it. */
export const called = (step) => [step.tool, step.arguments];
