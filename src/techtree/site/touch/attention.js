/* Attention: the weights of a few random queries and keys, with the scale and the mask as controls. */
"use strict";

(function () {
  /* The softmax of factor * (q . k) over the keys that may be seen: rows of weights. */
  function weights(q, k, factor, is_causal) {
    return q.map((query, row) => {
      const last = is_causal ? row + k.length - q.length : k.length - 1;
      const scores = k.map((key, j) =>
        j > last ? -Infinity : factor * key.reduce((sum, x, d) => sum + x * query[d], 0),
      );
      const largest = Math.max(...scores);
      const exponentials = scores.map((score) => Math.exp(score - largest));
      const total = exponentials.reduce((a, b) => a + b, 0);
      return exponentials.map((x) => x / total);
    });
  }

  /* The exponential of the entropy: how many keys a query looks at, in effect. */
  const effective = (row) => Math.exp(-row.reduce((sum, p) => (p > 0 ? sum + p * Math.log(p) : sum), 0));

  const factorOf = (state, data) => data.q[0].length ** -state.power;
  const current = (state, data) => weights(data.q, data.k, factorOf(state, data), state.mask === "causal");

  function draw(state, data, width) {
    const rows = current(state, data);
    const n = rows.length;
    const [left, top, right] = [58, 24, 74];
    const size = Math.min(Math.floor((width - left - right) / n), 44);
    const nodes = [
      touch.svg("text", { class: "small soft", x: left, y: 13 }, "keys"),
      touch.svg("text", { class: "small soft", x: left + n * size + 10, y: 13 }, "looks at"),
    ];
    rows.forEach((row, i) => {
      const y = top + i * size;
      nodes.push(touch.svg("text", { class: "small soft", x: 0, y: y + size / 2 + 4 }, `query ${i + 1}`));
      row.forEach((p, j) => {
        const x = left + j * size;
        nodes.push(touch.svg("rect", { class: "cell empty", x, y, width: size, height: size }));
        const side = Math.sqrt(p) * (size - 3);
        nodes.push(
          touch.svg("rect", {
            class: "bar",
            x: x + (size - side) / 2,
            y: y + (size - side) / 2,
            width: side,
            height: side,
          }),
        );
        if (state.mask === "causal" && j > i + row.length - n) {
          nodes.push(touch.svg("path", { class: "mid", d: `M${x + size * 0.4} ${y + size * 0.4}l${size * 0.2} ${size * 0.2}m0 ${-size * 0.2}l${-size * 0.2} ${size * 0.2}` }));
        }
      });
      const words = `${touch.number(effective(row), 2)} of ${state.mask === "causal" ? i + 1 : n}`;
      nodes.push(touch.svg("text", { class: "small", x: left + n * size + 10, y: y + size / 2 + 4 }, words));
    });
    return [top + n * size + 4, nodes];
  }

  function tell(state, data) {
    const rows = current(state, data);
    const last = rows[rows.length - 1];
    const most = Math.max(...last);
    return (
      `The area of a square is a weight; each row sums to 1. The scores are multiplied by ${touch.number(factorOf(state, data))}. ` +
      `The last query looks at ${touch.number(effective(last), 2)} keys in effect; its largest weight, on key ${last.indexOf(most) + 1}, is ${touch.number(most, 2)}.`
    );
  }

  touch.figure("attention", {
    title: "Change the scale, and lift the mask",
    lead: "Random queries and keys of width 64, as in the left part of the figure above, but few enough to see each weight. The scores are divided by the square root of the width.",
    pure: { weights, effective },
    start: () => ({ power: 0.5, mask: "causal" }),
    question(state, data) {
      const plain = weights(data.q, data.k, 1, true);
      return {
        text: `The last query looks at ${touch.number(effective(current(state, data)[data.q.length - 1]), 2)} of ${data.k.length} keys in effect. At how many would it look if the scores were not divided at all?`,
        low: 1,
        high: data.k.length,
        step: 0.1,
        truth: effective(plain[plain.length - 1]),
        show: (x) => touch.number(x, 2),
        then: { power: 0 },
        because: "A dot product of width 64 has a spread of 8, so the largest score stands far above the next, and takes nearly everything. Such a row hardly learns.",
      };
    },
    controls: (state, data) => [
      {
        kind: "slider",
        key: "power",
        name: "Scores divided by",
        min: 0,
        max: 1,
        step: 0.05,
        show: (power) => `${data.q[0].length}^${power.toFixed(2)} = ${touch.number(data.q[0].length ** power)}`,
      },
      { kind: "choice", key: "mask", name: "A query sees", options: [["causal", "itself and what is before"], ["none", "all keys"]] },
    ],
    draw,
    tell,
  });
})();
