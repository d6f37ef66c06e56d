// The AI SDK with its Anthropic provider.

import { createAnthropic } from "@ai-sdk/anthropic";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

import { must, serve } from "./loop.mjs";

const REASONS = { stop: "end_turn", "tool-calls": "tool_use", length: "max_tokens" };

function question(job) {
  const provider = createAnthropic({ baseURL: `${job.base_url}/v1`, apiKey: job.key });
  return { model: provider(job.model), prompt: job.text, maxOutputTokens: 2048, maxRetries: 0 };
}

async function create(job) {
  return read(await generateText(question(job)));
}

async function stream(job, options = {}) {
  const pieces = [];
  let failure;
  const result = streamText({ ...question(job), ...options, onError: ({ error }) => (failure = error) });
  for await (const piece of result.textStream) pieces.push(piece);
  if (failure) throw failure instanceof Error ? failure : new Error(JSON.stringify(failure));
  const answer = read({
    text: await result.text,
    reasoningText: await result.reasoningText,
    finishReason: await result.finishReason,
    response: await result.response,
    totalUsage: await result.totalUsage,
  });
  must(answer.text === pieces.join(""), "the pieces are not the text");
  return { ...answer, pieces: pieces.length };
}

async function tools(job) {
  const given = [];
  const get_weather = tool({
    description: "Get current weather for a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async (input) => {
      given.push(input);
      return `sunny in ${input.city}`;
    },
  });
  const result = await generateText({ ...question(job), tools: { get_weather }, stopWhen: stepCountIs(2) });
  const [first] = result.steps;
  const [used] = first.toolCalls;
  return {
    ...read(result),
    tool: { name: used.toolName, input: given[0], stop_reason: REASONS[first.finishReason] },
  };
}

async function thinking(job) {
  return stream(job, { providerOptions: { anthropic: { thinking: { type: "enabled", budgetTokens: 1024 } } } });
}

function read(result) {
  return {
    model: result.response.modelId,
    text: result.text,
    thinking: result.reasoningText ?? "",
    stop_reason: REASONS[result.finishReason],
    prompt_tokens: result.totalUsage.inputTokens,
    output_tokens: result.totalUsage.outputTokens,
  };
}

await serve({ create, stream, tools, thinking });
