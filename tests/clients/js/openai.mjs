// The openai client: a streamed chat, a streamed tool loop, its tool runner, structured output, errors.
import OpenAI from "openai";
import { BASE_URL, CHAT, KEY, LOOP, MODEL, RECORD, RECORD_SCHEMA, SYSTEM, TOOLS, called, check, resultOf, turn } from "./scenario.mjs";

const client = new OpenAI({ baseURL: `${BASE_URL}/v1`, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const GREEDY = { model: MODEL, temperature: 0, max_tokens: 64 };
const STREAMED = { ...GREEDY, stream: true, stream_options: { include_usage: true } };

const counts = (usage) => ({
  prompt: usage.prompt_tokens,
  cached: usage.prompt_tokens_details.cached_tokens,
  completion: usage.completion_tokens,
});

async function chat() {
  const messages = [{ role: "developer", content: SYSTEM }];
  for (const [at, step] of CHAT.entries()) {
    messages.push({ role: "user", content: [{ type: "text", text: step.user }] });
    const stream = client.chat.completions.stream({ ...STREAMED, messages });
    let text = "";
    stream.on("content", (delta) => (text += delta));
    const reply = await stream.finalChatCompletion();
    turn(`chat ${at + 1}`, text, step.answer, counts(reply.usage), at === 0);
    check("finish_reason", reply.choices[0].finish_reason, "stop");
    messages.push({ role: "assistant", content: text });
  }
}

const callsOf = (message) => (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);

async function loop() {
  const tools = TOOLS.map((tool) => ({ type: "function", function: tool }));
  const ask = (messages) => client.chat.completions.stream({ ...STREAMED, messages, tools }).finalChatCompletion();
  const messages = [{ role: "system", content: SYSTEM }];
  for (const [at, step] of LOOP.entries()) {
    messages.push({ role: "user", content: step.user });
    const call = await ask(messages);
    const { message } = call.choices[0];
    turn(`call ${at + 1}`, callsOf(message), [called(step)], counts(call.usage), at === 0);
    messages.push(message);
    for (const { id, function: { name, arguments: given } } of message.tool_calls ?? [])
      messages.push({ role: "tool", tool_call_id: id, content: resultOf(name, JSON.parse(given)) });
    const answer = await ask(messages);
    turn(`answer ${at + 1}`, answer.choices[0].message.content, step.answer, counts(answer.usage));
    messages.push(answer.choices[0].message);
  }
}

async function toolRunner(request) {
  const tools = TOOLS.map((tool) => ({
    type: "function",
    function: { ...tool, parse: JSON.parse, function: (given) => resultOf(tool.name, given) },
  }));
  for (const [at, step] of LOOP.entries()) {
    const messages = [{ role: "system", content: SYSTEM }, { role: "user", content: step.user }];
    const runner = client.chat.completions.runTools({ ...request, messages, tools });
    const text = await runner.finalContent();
    const [call, answer] = runner.allChatCompletions();
    turn(`runner calls ${at + 1}`, callsOf(call.choices[0].message), [called(step)], counts(call.usage), true);
    turn(`runner answers ${at + 1}`, text, step.answer, counts(answer.usage));
  }
}

async function formats() {
  const messages = [{ role: "user", content: RECORD.user }];
  const response_format = { type: "json_schema", json_schema: { name: "record", schema: RECORD_SCHEMA, strict: true } };
  const reply = await client.chat.completions.create({ ...GREEDY, messages, response_format });
  check("response_format", JSON.parse(reply.choices[0].message.content), { [RECORD.field]: RECORD.value });
  const models = await client.models.list();
  check("models", models.data.some((model) => model.id === MODEL), true);
  const refused = await client.chat.completions.create({ ...GREEDY, messages, max_tokens: -2 }).catch((error) => error);
  check("a wrong field", [refused instanceof OpenAI.BadRequestError, refused.param], [true, "max_tokens"]);
  const stop = new AbortController();
  const stream = await client.chat.completions.create({ ...STREAMED, max_tokens: 20_000, ignore_eos: true, messages }, { signal: stop.signal });
  for await (const _ of stream) stop.abort();
  check("after leaving", (await client.models.retrieve(MODEL)).id, MODEL);
}

await chat();
await loop();
await toolRunner(GREEDY);
await toolRunner(STREAMED);
await formats();
