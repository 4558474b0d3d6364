/* Mixture of experts: which experts the router chooses, and for which tokens there is no room. */
"use strict";

(function () {
  function softmax(scores) {
    const largest = Math.max(...scores);
    const exponentials = scores.map((score) => Math.exp(score - largest));
    const total = exponentials.reduce((a, b) => a + b, 0);
    return exponentials.map((x) => x / total);
  }

  /* The experts of each token, the best first, and their weights, which sum to 1. */
  function route(logits, n_chosen) {
    const experts = logits.map((row) =>
      row.map((_, e) => e).sort((a, b) => row[b] - row[a] || a - b).slice(0, n_chosen),
    );
    const weights = logits.map((row, token) => {
      const p = softmax(row);
      const chosen = experts[token].map((e) => p[e]);
      const total = chosen.reduce((a, b) => a + b, 0);
      return chosen.map((each) => each / total);
    });
    return { experts, weights };
  }

  /* How many choices fell on each expert. */
  function load(experts, n_experts) {
    const counts = new Array(n_experts).fill(0);
    for (const e of experts.flat()) counts[e]++;
    return counts;
  }

  /* 1 when the choices are even, up to E / k when they are not. */
  function balanceLoss(logits, experts) {
    const n_experts = logits[0].length;
    const shares = load(experts, n_experts).map((n) => n / experts.flat().length);
    const p = logits.map(softmax);
    return n_experts * shares.reduce((sum, share, e) => sum + share * (p.reduce((s, row) => s + row[e], 0) / p.length), 0);
  }

  /* The most choices that an expert answers. */
  const room = (n_tokens, n_chosen, n_experts, capacity) => Math.ceil((capacity * n_tokens * n_chosen) / n_experts);

  /* What the tokens share leans the router towards a few experts; the rest tells the kinds of tokens apart. */
  const logitsOf = (state, data) => data.kinds.map((row) => row.map((x, e) => x + state.shared * data.lean[e]));

  const roomOf = (state, n_tokens, n_experts) => room(n_tokens, state.k, n_experts, state.capacity);

  function dropped(experts, n_experts, most) {
    const taken = new Array(n_experts).fill(0);
    return experts.map((chosen) => chosen.map((e) => ++taken[e] > most));
  }

  function draw(state, data, width) {
    const logits = logitsOf(state, data);
    const n_experts = logits[0].length;
    const { experts, weights } = route(logits, state.k);
    const most = roomOf(state, logits.length, n_experts);
    const is_dropped = dropped(experts, n_experts, most);
    const counts = load(experts, n_experts);
    const left = 64;
    const cell = Math.min((width - left) / n_experts, 56);
    const row = 18;
    const tall = 84;
    const nodes = [touch.svg("text", { class: "small soft", x: 0, y: 22 }, "tokens"), touch.svg("text", { class: "small soft", x: 0, y: 37 }, "for each")];
    const unit = (tall - 20) / Math.max(...counts, most);
    counts.forEach((n, e) => {
      const x = left + e * cell;
      nodes.push(
        touch.svg("rect", { class: "bar", x: x + 4, y: tall - Math.min(n, most) * unit, width: cell - 8, height: Math.min(n, most) * unit }),
        touch.svg("rect", { class: "bad", x: x + 4, y: tall - n * unit, width: cell - 8, height: Math.max(n - most, 0) * unit }),
        touch.svg("text", { class: "small", x: x + cell / 2, y: tall - n * unit - 4, "text-anchor": "middle" }, String(n)),
        touch.svg("text", { class: "small soft", x: x + cell / 2, y: tall + 15, "text-anchor": "middle" }, String(e)),
      );
    });
    nodes.push(touch.svg("path", { class: "badline", d: `M${left} ${tall - most * unit}h${n_experts * cell}`, "stroke-dasharray": "4 3" }));
    nodes.push(touch.svg("text", { class: "small soft", x: 0, y: tall + 15 }, "expert"));
    const top = tall + 24;
    logits.forEach((_, token) => {
      const y = top + token * row;
      nodes.push(touch.svg("text", { class: "small soft", x: 0, y: y + 13 }, `token ${token}`));
      for (let e = 0; e < n_experts; e++) {
        nodes.push(touch.svg("rect", { class: "empty", x: left + e * cell + 2, y: y + 1, width: cell - 4, height: row - 2, rx: 2 }));
      }
      experts[token].forEach((e, place) => {
        const w = Math.max(weights[token][place] * (cell - 4), 2);
        nodes.push(
          touch.svg("rect", { class: is_dropped[token][place] ? "bad" : "bar", x: left + e * cell + 2, y: y + 1, width: w, height: row - 2, rx: 2 }),
        );
      });
    });
    return [top + logits.length * row + 2, nodes];
  }

  function tell(state, data) {
    const logits = logitsOf(state, data);
    const n_experts = logits[0].length;
    const { experts } = route(logits, state.k);
    const most = roomOf(state, logits.length, n_experts);
    const counts = load(experts, n_experts);
    const n_dropped = dropped(experts, n_experts, most).flat().filter(Boolean).length;
    const unused = counts.filter((n) => n === 0).length;
    return (
      `${logits.length} tokens, ${state.k} of ${n_experts} experts each; the length of a bar is its weight. The busiest expert is chosen ${Math.max(...counts)} times, ${unused} never. ` +
      `There is room for ${most} each, so ${n_dropped} choices are dropped. The balance loss is ${touch.number(balanceLoss(logits, experts))}.`
    );
  }

  touch.figure("moe", {
    title: "Let the router choose",
    lead: "Sixteen tokens of eight kinds, two of each, and a router that has not been trained for balance yet. Its scores differ by the kind of a token.",
    pure: { route, load, balanceLoss, room, dropped },
    start: () => ({ k: 1, shared: 0, capacity: 1.5 }),
    question(state, data) {
      const counts = load(route(logitsOf({ shared: 1 }, data), 1).experts, data.lean.length);
      return {
        text: "Now all tokens also share a large part, as in a trained network, and the router's answer to it is added to the scores of every token. Of the 16 tokens, how many does the busiest expert get?",
        low: 1,
        high: data.kinds.length,
        step: 1,
        truth: Math.max(...counts),
        then: { shared: 1 },
        because: "What all tokens share favours the same few experts for all of them. Chosen experts learn and are chosen again, unless a loss on the balance keeps the choices even. Move the shared part to see it.",
      };
    },
    controls: () => [
      { kind: "slider", key: "shared", name: "Shared part", min: 0, max: 1.5, step: 0.05, show: (x) => x.toFixed(2) },
      { kind: "slider", key: "k", name: "Experts per token", min: 1, max: 4 },
      { kind: "slider", key: "capacity", name: "Capacity", min: 0.5, max: 4, step: 0.25, show: (x) => `${x} of an even share` },
    ],
    draw,
    tell,
  });
})();
