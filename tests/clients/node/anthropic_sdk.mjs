// The official TypeScript SDK. Its package is the argument: two versions are installed side by side.

import { must, serve } from "./loop.mjs";

const { default: Anthropic } = await import(process.argv[2]);

const TOOL = {
  name: "get_weather",
  description: "Get current weather for a city.",
  input_schema: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
};

function client(job) {
  return new Anthropic({ baseURL: job.base_url, apiKey: job.key, maxRetries: 0 });
}

function question(job) {
  return { model: job.model, max_tokens: 2048, messages: [{ role: "user", content: job.text }] };
}

async function create(job) {
  return read(await client(job).messages.create(question(job)));
}

async function stream(job) {
  const pieces = [];
  const events = client(job).messages.stream(question(job));
  events.on("text", (piece) => pieces.push(piece));
  const answer = read(await events.finalMessage());
  must(answer.text === pieces.join(""), "the pieces are not the text");
  return { ...answer, pieces: pieces.length };
}

async function tools(job) {
  const sdk = client(job);
  const asked = { ...question(job), tools: [TOOL] };
  const call = await sdk.messages.create(asked);
  const used = call.content.find((block) => block.type === "tool_use");
  asked.messages.push(
    { role: "assistant", content: call.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: used.id, content: "sunny" }] },
  );
  const first = read(call);
  const answer = read(await sdk.messages.create(asked));
  return {
    ...answer,
    prompt_tokens: first.prompt_tokens + answer.prompt_tokens,
    output_tokens: first.output_tokens + answer.output_tokens,
    tool: { name: used.name, input: used.input, stop_reason: call.stop_reason },
  };
}

async function thinking(job) {
  const pieces = [];
  const events = client(job).messages.stream({
    ...question(job),
    thinking: { type: "enabled", budget_tokens: 1024 },
  });
  events.on("thinking", (piece) => pieces.push(piece));
  const answer = read(await events.finalMessage());
  must(answer.thinking === pieces.join(""), "the pieces are not the thinking");
  return answer;
}

// Anthropic's own loop over tools: it asks for a thread on the server first.
async function runner(job) {
  const { betaTool } = await import(`${process.argv[2]}/helpers/beta/json-schema`);
  const tool = betaTool({
    name: TOOL.name,
    description: TOOL.description,
    inputSchema: TOOL.input_schema,
    run: ({ city }) => `It rains in ${city}.`,
  });
  const turns = client(job).beta.messages.toolRunner({
    ...question(job),
    tools: [tool],
    stream: job.stream,
    max_iterations: 2,
  });
  const replies = [];
  for await (const turn of turns) replies.push(job.stream ? await turn.finalMessage() : turn);
  return { stop_reasons: replies.map((reply) => reply.stop_reason) };
}

async function parse(job) {
  const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
  const format = { type: "json_schema", schema: { ...schema, additionalProperties: false } };
  const sdk = client(job);
  const asked = { ...question(job), output_config: { format } };
  const texts = [read(await sdk.messages.create(asked)), read(await sdk.messages.stream(asked).finalMessage())];
  return { cities: texts.map(({ text }) => typeof JSON.parse(text).city) };
}

function read(reply) {
  const { usage } = reply;
  const texts = (type, field) =>
    reply.content
      .filter((block) => block.type === type)
      .map((block) => block[field])
      .join("");
  return {
    model: reply.model,
    text: texts("text", "text"),
    thinking: texts("thinking", "thinking"),
    stop_reason: reply.stop_reason,
    prompt_tokens: usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens,
    output_tokens: usage.output_tokens,
  };
}

await serve({ create, stream, tools, thinking, runner, parse });
