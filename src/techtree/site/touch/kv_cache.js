/* The KV cache: which tokens go through the model in each call, with the cache and without. */
"use strict";

(function () {
  /* How many tokens go through the model in each call that asks for a new token. */
  function work(n_prompt, n_new, has_cache) {
    return Array.from({ length: n_new }, (_, call) => (has_cache && call ? 1 : n_prompt + call));
  }

  const total = (calls) => calls.reduce((a, b) => a + b, 0);

  /* Bytes of keys and values of so many tokens. */
  const cacheBytes = ({ n_layers, n_kv_heads, head_width, bytes }, n_tokens) =>
    2 * n_layers * n_kv_heads * head_width * bytes * n_tokens;

  const N_CALLS = 8;

  function draw(state, data, width) {
    const has_cache = state.cache === "with";
    const n_columns = state.prompt + N_CALLS - 1;
    const [left, top] = [56, 24];
    const size = Math.min((width - left) / n_columns, 26);
    const nodes = [touch.svg("text", { class: "small soft", x: left, y: 13 }, "tokens of the text")];
    const calls = work(state.prompt, N_CALLS, has_cache);
    calls.forEach((n, call) => {
      const y = top + call * size;
      const is_shown = call < state.calls;
      nodes.push(touch.svg("text", { class: "small soft", x: 0, y: y + size / 2 + 4 }, `call ${call + 1}`));
      for (let place = 0; place < n_columns; place++) {
        const length = state.prompt + call;
        const kind = !is_shown || place >= length ? "empty" : place >= length - n ? "made" : "kept";
        nodes.push(touch.svg("rect", { class: kind, x: left + place * size + 1, y: y + 1, width: size - 2, height: size - 2, rx: 2 }));
      }
    });
    return [top + N_CALLS * size + 2, nodes];
  }

  function tell(state, data) {
    const has_cache = state.cache === "with";
    const calls = work(state.prompt, N_CALLS, has_cache).slice(0, state.calls);
    const n_kept = state.prompt + state.calls - 1;
    const kept = has_cache
      ? ` Pale ones are only read from the cache, which holds ${n_kept} tokens: ${touch.number(cacheBytes(data.model, n_kept) / 1024)} KiB in ${data.model.name}.`
      : " Nothing is kept.";
    return `Full squares go through the model: ${touch.number(total(calls))} after ${state.calls} calls, ${calls[calls.length - 1]} in the last.${kept}`;
  }

  touch.figure("kv_cache", {
    title: "Fill the cache",
    lead: "A prompt, then new tokens one by one. Each call asks for the next token.",
    pure: { work, cacheBytes },
    start: () => ({ cache: "without", prompt: 8, calls: N_CALLS }),
    question() {
      const ratio = total(work(500, 200, false)) / total(work(500, 200, true));
      return {
        text: "Without a cache each call reads the whole text again. With a prompt of 500 tokens and 200 new ones, how many times as many tokens go through the model as with a cache?",
        low: 1,
        high: 1000,
        truth: ratio,
        is_log: true,
        then: { cache: "with" },
        because: `${touch.number(total(work(500, 200, false)))} tokens instead of ${touch.number(total(work(500, 200, true)))}: the prompt once, then one in each call. What grows instead is what is kept and read.`,
      };
    },
    controls: () => [
      { kind: "choice", key: "cache", name: "Cache", options: [["without", "without"], ["with", "with"]] },
      { kind: "slider", key: "prompt", name: "Prompt", min: 1, max: 16, show: (n) => `${n} token${n === 1 ? "" : "s"}` },
      { kind: "slider", key: "calls", name: "Calls so far", min: 1, max: N_CALLS },
    ],
    draw,
    tell,
  });
})();
