/* Sampling: the probabilities of the next token under temperature, top-k and top-p. */
"use strict";

(function () {
  function softmax(scores) {
    const largest = Math.max(...scores);
    const exponentials = scores.map((score) => Math.exp(score - largest));
    const total = exponentials.reduce((a, b) => a + b, 0);
    return exponentials.map((x) => x / total);
  }

  /* As the lesson's function: top-k and top-p choose by the probabilities as they are, then the temperature. */
  function probabilities(logits, temperature, top_k, top_p) {
    let order = logits.map((_, i) => i).sort((a, b) => logits[b] - logits[a] || a - b);
    if (temperature === 0) order = order.slice(0, 1);
    if (top_k) order = order.slice(0, top_k);
    const p = softmax(order.map((i) => logits[i]));
    let before = 0;
    order = order.filter((_, place) => {
      const stays = place === 0 || top_p >= 1 || before < top_p;
      before += p[place];
      return stays;
    });
    const result = new Array(logits.length).fill(0);
    const scaled = softmax(order.map((i) => (logits[i] - logits[order[0]]) / (temperature || 1)));
    order.forEach((i, place) => (result[i] = scaled[place]));
    return result;
  }

  const current = (state, data) =>
    probabilities(data.logits, state.temperature, state.top_k === data.logits.length ? 0 : state.top_k, state.top_p);

  function draw(state, data, width) {
    const plain = probabilities(data.logits, 1, 0, 1);
    const now = current(state, data);
    const left = Math.max(...data.tokens.map((token) => token.length)) * 7.6 + 10;
    const [right, row] = [52, 19];
    const most = Math.max(...plain, ...now);
    const nodes = [];
    data.tokens.forEach((token, i) => {
      const y = i * row + 2;
      const length = (p) => Math.max((p / most) * (width - left - right), p > 0 ? 1 : 0);
      const is_off = now[i] === 0;
      nodes.push(
        touch.svg("text", { class: is_off ? "mono soft" : "mono", x: left - 8, y: y + 12, "text-anchor": "end" }, token),
        touch.svg("rect", { class: "bar", x: left, y: y + 2, width: length(now[i]), height: row - 7 }),
        touch.svg("rect", { class: is_off ? "bar off" : "ghost", x: left, y: y + 2, width: length(plain[i]), height: row - 7 }),
        touch.svg(
          "text",
          { class: "small soft", x: left + length(Math.max(now[i], plain[i])) + 6, y: y + 12 },
          is_off ? "never" : `${touch.number(100 * now[i], now[i] < 0.0995 ? 2 : 3)} %`,
        ),
      );
    });
    return [data.tokens.length * row + 4, nodes];
  }

  function tell(state, data) {
    const now = current(state, data);
    const n = now.filter((p) => p > 0).length;
    const most = now.indexOf(Math.max(...now));
    return (
      `Outlines: as counted. Bars: what is drawn from, ${n} of ${now.length} tokens; ` +
      `${data.tokens[most]} has ${touch.number(100 * now[most])} %.`
    );
  }

  touch.figure("sampling", {
    title: "Cut the tail, then change the temperature",
    lead: "What follows “np.” in the code of these lessons, by its counts: a model of one token's context.",
    pure: { probabilities },
    start: (data) => ({ temperature: 1, top_k: data.logits.length, top_p: 1 }),
    question(state, data) {
      const left = probabilities(data.logits, 1, 0, 0.8).filter((p) => p > 0).length;
      return {
        text: `top-p keeps the fewest likeliest tokens that have so much of the probability together. How many of these ${data.logits.length} stay with top-p 0.8?`,
        low: 1,
        high: data.logits.length,
        step: 1,
        truth: left,
        then: { top_p: 0.8 },
        because: "What is cut off does not depend on the temperature: the cut comes first, by the probabilities as they are.",
      };
    },
    controls: (state, data) => [
      { kind: "slider", key: "temperature", name: "Temperature", min: 0, max: 2, step: 0.05, show: (t) => (t ? t.toFixed(2) : "0: the likeliest") },
      { kind: "slider", key: "top_k", name: "top-k", min: 1, max: data.logits.length, show: (k) => (k === data.logits.length ? "all" : String(k)) },
      { kind: "slider", key: "top_p", name: "top-p", min: 0, max: 1, step: 0.01, show: (p) => p.toFixed(2) },
    ],
    draw,
    tell,
  });
})();
