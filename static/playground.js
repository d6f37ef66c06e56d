// The playground: asks /v1/messages with a lent secret, and shows the answer as text, never as markup.
import { asCurl, asPython, asTypeScript } from "./playground_calls.js";

const ESTIMATE_DELAY_MS = 500;
const SECRET_MARGIN_MS = 30_000; // A secret that ends sooner is not used any more.
const MAX_TURNS = 50;
const UNREACHED = "CrossModel cannot be reached. Check your connection, and try again.";
const SIGNED_OUT = "You are signed out. Reload the page to sign in again.";
const BROKEN = "The connection broke before the answer was whole. What came is billed.";

const root = document.getElementById("playground");
if (root) start(root);

function start(root) {
  const at = (name) => document.getElementById(`playground-${name}`);
  const form = at("form");
  const turns = []; // What was said so far, as the API takes it.
  let lent = null; // { key, secret, endsAt }: in the memory of this page only.
  let running = null;
  let timer = null;
  let asked = 0;

  const field = (name) => form.elements[name].value;

  function body(message) {
    const asked = { model: field("model"), max_tokens: Number(field("max_tokens")) };
    if (field("system").trim()) asked.system = field("system");
    if (field("temperature") !== "") asked.temperature = Number(field("temperature"));
    asked.messages = [...turns, { role: "user", content: message }];
    if (form.elements.stream.checked) asked.stream = true;
    return asked;
  }

  function showCalls() {
    const asked = body(field("message") || "Hello!");
    const base = root.dataset.baseUrl;
    document.getElementById("call-curl").textContent = asCurl(base, asked);
    document.getElementById("call-python").textContent = asPython(base, asked);
    document.getElementById("call-typescript").textContent = asTypeScript(base, asked);
  }

  // A browser's own words for a lost connection are for developers.
  async function reach(address, options) {
    try {
      return await fetch(address, options);
    } catch (error) {
      throw error.name === "AbortError" ? error : new Error(UNREACHED);
    }
  }

  async function borrow() {
    const key = field("key");
    if (lent && lent.key === key && lent.endsAt - SECRET_MARGIN_MS > Date.now()) return lent.secret;
    const sent = new FormData();
    sent.append("key", key);
    const answer = await reach(root.dataset.secretUrl, {
      method: "POST",
      body: sent,
      headers: { "X-CSRFToken": form.elements.csrfmiddlewaretoken.value },
      redirect: "manual",
    });
    if (answer.type === "opaqueredirect") throw new Error(SIGNED_OUT); // It leads to the page where people sign in.
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(told.message || "The key cannot be used right now. Reload the page and try again.");
    lent = { key, secret: told.secret, endsAt: Date.now() + told.seconds * 1000 };
    return lent.secret;
  }

  async function ask(path, asked, signal) {
    const send = async () =>
      reach(path, {
        method: "POST",
        signal,
        body: JSON.stringify(asked),
        headers: {
          "content-type": "application/json",
          "anthropic-version": "2023-06-01",
          "x-crossmodel-usage-cost": "true",
          "x-api-key": await borrow(),
        },
      });
    const answer = await send();
    if (answer.status !== 401) return answer;
    lent = null; // It ended early: somebody signed out, or another page needed the room.
    return send();
  }

  async function errorOf(answer) {
    const told = await answer.json().catch(() => null);
    return told?.error?.message || `The answer was ${answer.status}.`;
  }

  async function estimate() {
    const mine = ++asked;
    const line = at("estimate");
    if (!field("message").trim() || !form.elements.max_tokens.checkValidity()) {
      line.textContent = "";
      return;
    }
    try {
      const answer = await ask("/api/v1/estimate", body(field("message")));
      const text = answer.ok ? describe((await answer.json()).data) : await errorOf(answer);
      if (mine === asked) line.textContent = text;
    } catch (error) {
      if (mine === asked) line.textContent = error.message;
    }
  }

  function describe(told) {
    const tokens = told.estimated_input_tokens.toLocaleString("en-US");
    const range = `About ${tokens} input tokens: $${told.cost_of_input} to $${told.cost_with_max_tokens}.`;
    const hold = ` $${told.hold} is held while it runs`;
    if (told.is_covered) return `${range}${hold}.`;
    const fits = told.affordable_max_tokens ? `; ${told.affordable_max_tokens} tokens of answer would fit` : "";
    return `${range}${hold}, and $${told.available} is available${fits}.`;
  }

  function estimateSoon() {
    showCalls();
    clearTimeout(timer);
    timer = setTimeout(estimate, ESTIMATE_DELAY_MS);
  }

  function addTurn(title, text) {
    at("empty")?.remove();
    const turn = document.createElement("article");
    turn.className = "playground-turn";
    const head = document.createElement("h3");
    head.textContent = title;
    const thinking = document.createElement("p");
    thinking.className = "playground-text playground-thinking";
    thinking.hidden = true;
    const said = document.createElement("p");
    said.className = "playground-text";
    said.textContent = text;
    turn.append(head, thinking, said);
    at("turns").append(turn);
    return { turn, thinking, said };
  }

  function addFacts(turn, text, requestId, isWrong) {
    const facts = document.createElement("p");
    facts.className = "playground-facts";
    const words = document.createElement("span");
    words.textContent = text;
    if (isWrong) words.className = "playground-wrong";
    facts.append(words);
    if (requestId) {
      const link = document.createElement("a");
      link.href = root.dataset.receiptUrl.replace("REQUEST", requestId);
      link.textContent = "Receipt";
      facts.append(" ", link);
    }
    turn.append(facts);
    at("status").textContent = text;
  }

  function describeEnd(state, started) {
    const usage = state.usage;
    const prompt = (usage.input_tokens || 0) + (usage.cache_read_input_tokens || 0) + (usage.cache_creation_input_tokens || 0);
    const words = [`${prompt.toLocaleString("en-US")} in, ${(usage.output_tokens || 0).toLocaleString("en-US")} out`];
    if (usage.cost !== undefined) words.push(`$${usage.cost}`);
    words.push(`${((performance.now() - started) / 1000).toFixed(1)} s`);
    if (state.stopReason === "max_tokens") words.push("cut at the longest answer");
    return words.join(" · ");
  }

  function take(event, state, shown) {
    if (event.type === "message_start") Object.assign(state.usage, event.message.usage);
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") {
      state.text += event.delta.text;
      shown.said.append(event.delta.text);
    }
    if (event.type === "content_block_delta" && event.delta.type === "thinking_delta") {
      shown.thinking.hidden = false;
      shown.thinking.append(event.delta.thinking);
    }
    if (event.type === "message_delta") {
      Object.assign(state.usage, event.usage);
      state.stopReason = event.delta.stop_reason;
    }
    if (event.type === "message_stop") state.isWhole = true;
    if (event.type === "error") throw new Error(event.error.message);
  }

  async function readStream(answer, state, shown) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw error.name === "AbortError" ? error : new Error(BROKEN);
      });
      if (done) break;
      rest += value;
      const events = rest.split("\n\n");
      rest = events.pop();
      for (const lines of events) {
        const data = lines.split("\n").find((line) => line.startsWith("data:"));
        if (data) take(JSON.parse(data.slice(5)), state, shown);
      }
    }
    if (!state.isWhole) throw new Error(BROKEN);
  }

  function readWhole(told, state, shown) {
    for (const block of told.content) {
      if (block.type === "text") state.text += block.text;
    }
    shown.said.textContent = state.text;
    Object.assign(state.usage, told.usage);
    state.stopReason = told.stop_reason;
  }

  async function send() {
    const message = field("message");
    const sent = body(message);
    const started = performance.now();
    const state = { text: "", usage: {}, stopReason: "", isWhole: false };
    running = new AbortController();
    setRunning(true);
    addTurn("You", message);
    const shown = addTurn(sent.model, "");
    let requestId = "";
    try {
      const answer = await ask("/v1/messages", sent, running.signal);
      requestId = answer.headers.get("request-id") || "";
      if (!answer.ok) throw new Error(await errorOf(answer));
      if (sent.stream) await readStream(answer, state, shown);
      else readWhole(await answer.json(), state, shown);
      turns.push({ role: "user", content: message });
      turns.push({ role: "assistant", content: state.text || "(nothing)" });
      turns.splice(0, Math.max(0, turns.length - MAX_TURNS));
      form.elements.message.value = "";
      addFacts(shown.turn, describeEnd(state, started), requestId, false);
    } catch (error) {
      const text = error.name === "AbortError" ? "Stopped. What was generated until then is billed." : error.message;
      addFacts(shown.turn, text, requestId, true);
    } finally {
      running = null;
      setRunning(false);
      showCalls();
      at("estimate").textContent = "";
    }
  }

  function setRunning(isRunning) {
    at("send").disabled = isRunning;
    at("stop").hidden = !isRunning;
    at("clear").hidden = isRunning;
  }

  function clear() {
    turns.length = 0;
    at("turns").replaceChildren();
    at("clear").hidden = true;
    showCalls();
    form.elements.message.focus();
  }

  function fitMaxTokens() {
    form.elements.max_tokens.max = form.elements.model.selectedOptions[0].dataset.maxTokens;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    asked += 1;
    if (!running) send();
  });
  form.addEventListener("input", estimateSoon);
  form.elements.model.addEventListener("change", fitMaxTokens);
  form.elements.message.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  at("stop").addEventListener("click", () => running?.abort());
  at("clear").addEventListener("click", clear);
  addEventListener("pagehide", () => { lent = null; });
  fitMaxTokens();
  showCalls();
}
