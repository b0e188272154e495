// The anthropic client: a streamed chat with marked blocks, a streamed tool loop, its tool runner, a schema, counts, errors.
import Anthropic from "@anthropic-ai/sdk";
import { BASE_URL, CHAT, KEY, LOOP, MODEL, RECORD, RECORD_SCHEMA, SYSTEM, TOOLS, called, check, resultOf, turn } from "./scenario.mjs";

const client = new Anthropic({ baseURL: BASE_URL, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const GREEDY = { model: MODEL, temperature: 0, max_tokens: 64 };
const tools = TOOLS.map(({ name, description, parameters }) => ({ name, description, input_schema: parameters }));

const counts = ({ usage }) => ({
  prompt: usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens,
  cached: usage.cache_read_input_tokens,
  completion: usage.output_tokens,
});
const textOf = (reply) => reply.content.filter((block) => block.type === "text").map((block) => block.text).join("");
const callsOf = (reply) => reply.content.filter((block) => block.type === "tool_use");

async function streamed(request) {
  const stream = client.messages.stream({ ...GREEDY, ...request });
  let text = "";
  stream.on("text", (delta) => (text += delta));
  const reply = await stream.finalMessage();
  check("the deltas are the text", text, textOf(reply));
  return reply;
}

async function chat() {
  const system = [{ type: "text", text: SYSTEM, cache_control: { type: "ephemeral" } }];
  const messages = [];
  for (const [at, step] of CHAT.entries()) {
    messages.push({ role: "user", content: step.user });
    const counted = await client.messages.countTokens({ model: MODEL, system, messages });
    const reply = await streamed({ system, messages });
    turn(`chat ${at + 1}`, textOf(reply), step.answer, counts(reply), at === 0);
    check("countTokens", counted.input_tokens, counts(reply).prompt);
    messages.push({ role: "assistant", content: reply.content });
  }
}

async function loop() {
  const messages = [];
  for (const [at, step] of LOOP.entries()) {
    messages.push({ role: "user", content: step.user });
    const call = await streamed({ system: SYSTEM, messages, tools });
    turn(`call ${at + 1}`, callsOf(call).map((block) => [block.name, block.input]), [called(step)], counts(call), at === 0);
    check("stop_reason", call.stop_reason, "tool_use");
    const results = callsOf(call).map((block) => ({ type: "tool_result", tool_use_id: block.id, content: resultOf(block.name, block.input) }));
    messages.push({ role: "assistant", content: call.content }, { role: "user", content: results });
    const answer = await streamed({ system: SYSTEM, messages, tools });
    turn(`answer ${at + 1}`, textOf(answer), step.answer, counts(answer));
    messages.push({ role: "assistant", content: answer.content });
  }
}

async function toolRunner() {
  const runnable = tools.map((tool) => ({ ...tool, parse: (given) => given, run: (given) => resultOf(tool.name, given) }));
  for (const [at, step] of LOOP.entries()) {
    const messages = [{ role: "user", content: step.user }];
    const runner = client.beta.messages.toolRunner({ ...GREEDY, system: SYSTEM, messages, tools: runnable });
    let nth = 0;
    for await (const reply of runner) {
      nth += 1;
      if (nth === 1) turn(`runner calls ${at + 1}`, callsOf(reply).map((block) => [block.name, block.input]), [called(step)], counts(reply), true);
      else turn(`runner answers ${at + 1}`, textOf(reply), step.answer, counts(reply));
    }
    check("requests", nth, 2);
  }
}

async function formats() {
  const messages = [{ role: "user", content: RECORD.user }];
  const reply = await client.messages.create({ ...GREEDY, messages, output_config: { format: { type: "json_schema", schema: RECORD_SCHEMA } } });
  check("a schema", JSON.parse(textOf(reply)), { [RECORD.field]: RECORD.value });
  const refused = await client.messages.create({ ...GREEDY, messages: [] }).catch((error) => error);
  check("a wrong field", [refused instanceof Anthropic.BadRequestError, refused.error?.type], [true, "error"]);
}

await chat();
await loop();
await toolRunner();
await formats();
