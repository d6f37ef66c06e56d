// The call of the playground as code. The key never stands in it.
const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const indent = (text, by) => text.replaceAll("\n", "\n" + by);

export function asCurl(baseUrl, body) {
  return [
    `curl ${baseUrl}/v1/messages \\`,
    `  -H "x-api-key: $CROSSMODEL_API_KEY" \\`,
    `  -H "anthropic-version: 2023-06-01" \\`,
    `  -H "content-type: application/json" \\`,
    `  -d ${quote(JSON.stringify(body, null, 2))}`,
  ].join("\n");
}

// Python has True, False and None for what JSON calls true, false and null; texts are the same in both.
const asPythonValue = (value) => {
  if (value === true) return "True";
  if (value === false) return "False";
  return indent(JSON.stringify(value, null, 4), "    ");
};

export function asPython(baseUrl, body) {
  const { stream, ...rest } = body;
  const fields = Object.entries(rest).map(([name, value]) => `    ${name}=${asPythonValue(value)},`);
  const head = [
    "import os",
    "from anthropic import Anthropic",
    "",
    `client = Anthropic(base_url=${JSON.stringify(baseUrl)}, api_key=os.environ["CROSSMODEL_API_KEY"])`,
  ];
  const tail = stream
    ? ["with client.messages.stream(", ...fields, ") as stream:", "    for text in stream.text_stream:", "        print(text, end=\"\", flush=True)"]
    : ["message = client.messages.create(", ...fields, ")", "print(message.content[0].text)"];
  return [...head, ...tail].join("\n");
}

export function asTypeScript(baseUrl, body) {
  const { stream, ...rest } = body;
  const head = [
    'import Anthropic from "@anthropic-ai/sdk";',
    "",
    "const client = new Anthropic({",
    `  baseURL: ${JSON.stringify(baseUrl)},`,
    "  apiKey: process.env.CROSSMODEL_API_KEY,",
    "});",
  ];
  const fields = JSON.stringify(rest, null, 2);
  const tail = stream
    ? [`const stream = client.messages.stream(${fields});`, 'stream.on("text", (text) => process.stdout.write(text));', "await stream.finalMessage();"]
    : [`const message = await client.messages.create(${fields});`, "console.log(message.content);"];
  return [...head, ...tail].join("\n");
}
