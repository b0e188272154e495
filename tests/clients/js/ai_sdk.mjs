// The AI SDK over one of its protocols (second argument): generate, stream, a tool loop over three turns, structured output.
// Unless told otherwise (third argument) it refers to items of stored responses instead of sending them again.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { BASE_URL, CHAT, KEY, LOOP, MODEL, RECORD, RECORD_SCHEMA, SYSTEM, TOOLS, called, check, resultOf, turn } from "./scenario.mjs";

const baseURL = `${BASE_URL}/v1`;
const MODELS = {
  "openai-compatible": () => createOpenAICompatible({ name: "prefixd", baseURL, apiKey: KEY, includeUsage: true, supportsStructuredOutputs: true })(MODEL),
  anthropic: () => createAnthropic({ baseURL, apiKey: KEY })(MODEL),
  "openai-responses": () => createOpenAI({ baseURL, apiKey: KEY }).responses(MODEL),
};
const model = MODELS[process.argv[3]]();
const providerOptions = process.argv[4] === "unstored" ? { openai: { store: false } } : {};
const GREEDY = { model, temperature: 0, maxOutputTokens: 64, maxRetries: 0, providerOptions };

const counts = (usage) => ({ prompt: usage.inputTokens, cached: usage.inputTokenDetails.cacheReadTokens, completion: usage.outputTokens });

async function chat() {
  const messages = [];
  for (const [at, step] of CHAT.entries()) {
    messages.push({ role: "user", content: step.user });
    const reply = streamText({ ...GREEDY, system: SYSTEM, messages, onError: ({ error }) => console.error(error) });
    let text = "";
    for await (const delta of reply.textStream) text += delta;
    turn(`chat ${at + 1}`, text, step.answer, counts(await reply.usage), at === 0);
    check("finishReason", await reply.finishReason, "stop");
    messages.push(...(await reply.responseMessages));
  }
}

async function loop(ask) {
  const tools = Object.fromEntries(TOOLS.map(({ name, description, parameters }) => [
    name, tool({ description, inputSchema: jsonSchema(parameters), execute: (given) => resultOf(name, given) }),
  ]));
  const messages = [];
  for (const [at, step] of LOOP.entries()) {
    messages.push({ role: "user", content: step.user });
    const reply = await ask({ ...GREEDY, system: SYSTEM, messages, tools, stopWhen: stepCountIs(3) });
    const [call, answer] = reply.steps;
    turn(`call ${at + 1}`, call.toolCalls.map((each) => [each.toolName, each.input]), [called(step)], counts(call.usage), at === 0);
    turn(`answer ${at + 1}`, reply.text, step.answer, counts(answer.usage));
    messages.push(...reply.responseMessages);
  }
}

async function streamed(request) {
  const reply = streamText({ ...request, onError: ({ error }) => console.error(error) });
  await reply.consumeStream();
  return { steps: await reply.steps, text: await reply.text, responseMessages: await reply.responseMessages };
}

await chat();
await loop(generateText);
await loop(streamed);
const output = Output.object({ schema: jsonSchema(RECORD_SCHEMA) });
const reply = await generateText({ ...GREEDY, prompt: RECORD.user, output });
check("Output.object", reply.output, { [RECORD.field]: RECORD.value });
