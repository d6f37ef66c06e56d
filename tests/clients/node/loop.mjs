// What every Node driver does: read jobs from standard input, answer each with one line of JSON.
// Jobs and answers are described in tests/clients/client_process.py.

import { createInterface } from "node:readline";

export async function serve(features) {
  console.log = console.error; // What a client prints is no answer.
  for await (const line of createInterface({ input: process.stdin })) {
    const job = JSON.parse(line);
    let answer;
    try {
      answer = await features[job.feature](job);
    } catch (error) {
      answer = { error: describe(error) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
}

function describe(error) {
  const status = error.status ?? error.statusCode;
  return {
    class: error.constructor.name,
    status: Number.isInteger(status) ? status : null,
    message: `${error.message} ${error.responseBody ?? ""}`,
  };
}

export function must(condition, complaint) {
  if (!condition) throw new Error(complaint);
}
