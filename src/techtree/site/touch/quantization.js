/* Quantization: a block of 32 weights rounded to 8 or 4 bits, the error drawn. */
"use strict";

(function () {
  const f32 = Math.fround;

  /* The nearest float16, of two equally near ones the even. */
  function f16(x) {
    const size = Math.abs(x);
    if (size >= 65520) return Math.sign(x) * Infinity;
    const exponent = Math.max(Math.floor(Math.log2(size || 1)), -14);
    for (const guess of [exponent - 1, exponent, exponent + 1]) {
      // log2 may be off by one at a power of 2: take the exponent whose binade holds the number.
      if (size < 2 ** (guess + 1) && (size >= 2 ** guess || guess <= -14)) {
        const step = 2 ** (Math.max(guess, -14) - 10);
        const whole = size / step;
        const low = Math.floor(whole);
        const up = whole - low > 0.5 || (whole - low === 0.5 && low % 2 === 1);
        return Math.sign(x) * (low + (up ? 1 : 0)) * step;
      }
    }
    return x;
  }

  /* Scale, whole numbers and values of a block, in float32 as the lesson computes them. */
  function block(x, kind) {
    const weights = x.map(f32);
    let m = weights[0];
    for (const w of weights) if (Math.abs(w) > Math.abs(m)) m = w;
    const d = kind === "q8_0" ? f32(Math.abs(m) / 127) : f32(m / -8);
    const inverse = f32(1 / d);
    const q = weights.map((w) => {
      const s = Number.isFinite(inverse) ? f32(w * inverse) : 0;
      if (kind === "q4_0") return Math.min(Math.floor(f32(s + 8.5)), 15) - 8;
      const whole = Math.trunc(s);
      return whole + Math.trunc(f32(2 * f32(s - whole)));
    });
    const scale = f16(d);
    return { scale, q, values: q.map((n) => f32(scale * n)) };
  }

  const GIANT = 5;
  const weightsOf = (state, data) => data.weights.map((w, i) => (i === GIANT ? state.giant : w));

  /* The mean error of all weights but the large one. */
  function errorOf(weights, kind) {
    const { values } = block(weights, kind);
    const others = values.map((v, i) => Math.abs(v - weights[i])).filter((_, i) => i !== GIANT);
    return others.reduce((a, b) => a + b, 0) / others.length;
  }

  function draw(state, data, width) {
    const weights = weightsOf(state, data);
    const { scale, values } = block(weights, state.kind);
    const [left, height, below] = [30, 210, 76];
    const most = Math.max(...weights.map(Math.abs), Math.abs(8 * scale) * (state.kind === "q4_0" ? 1 : 0)) * 1.06;
    const x = (i) => left + ((i + 0.5) / weights.length) * (width - left);
    const y = (w) => height / 2 + 8 - (w / most) * (height / 2);
    const nodes = [];
    if (state.kind === "q4_0") {
      for (let n = -8; n <= 7; n++) nodes.push(touch.svg("path", { class: n ? "axis" : "mid", d: `M${left} ${y(n * scale)}H${width}` }));
    } else {
      nodes.push(touch.svg("path", { class: "mid", d: `M${left} ${y(0)}H${width}` }));
    }
    const tick = most > 6 ? Math.floor(most / 2) : most > 2 ? 2 : 1;
    for (const w of [-tick, 0, tick]) nodes.push(touch.svg("text", { class: "small soft", x: left - 6, y: y(w) + 4, "text-anchor": "end" }, String(w)));
    weights.forEach((w, i) => {
      nodes.push(
        touch.svg("path", { class: "badline", d: `M${x(i)} ${y(w)}V${y(values[i])}` }),
        touch.svg("circle", { class: "ghost", cx: x(i), cy: y(w), r: 4.5 }),
        touch.svg("circle", { class: "bar", cx: x(i), cy: y(values[i]), r: 2.6 }),
      );
    });
    const top = height + 40;
    const errors = weights.map((w, i) => values[i] - w);
    const largest = Math.max(...errors.map(Math.abs), 1e-12);
    nodes.push(touch.svg("text", { class: "small soft", x: 0, y: top - 8 }, `error, up to ${touch.number(largest, 2)}`));
    nodes.push(touch.svg("path", { class: "mid", d: `M${left} ${top + below / 2}H${width}` }));
    errors.forEach((e, i) => {
      const h = (Math.abs(e) / largest) * (below / 2 - 2);
      const w = Math.max((width - left) / weights.length - 4, 2);
      nodes.push(touch.svg("rect", { class: "bad", x: x(i) - w / 2, y: top + below / 2 - (e > 0 ? h : 0), width: w, height: h }));
    });
    return [top + below, nodes];
  }

  function tell(state, data) {
    const weights = weightsOf(state, data);
    const { scale } = block(weights, state.kind);
    const lines = state.kind === "q4_0" ? " Lines are the 16 values that 4 bits can count." : "";
    return (
      `Rings: the weights. Dots: what they are rounded to, in steps of ${touch.number(Math.abs(scale), 2)}.${lines} ` +
      `The mean error of all but the sixth weight is ${touch.number(errorOf(weights, state.kind), 2)}.`
    );
  }

  touch.figure("quantization", {
    title: "Round a block, and let one weight grow",
    lead: "32 weights of deviation 1 that share a scale, rounded to 4 bits.",
    pure: { f16, block },
    start: (data) => ({ kind: "q4_0", giant: data.weights[GIANT] }),
    question(state, data) {
      const [now, then] = [data.weights[GIANT], 16].map((giant) => errorOf(weightsOf({ giant }, data), "q4_0"));
      return {
        text: `The mean error of the other 31 is ${touch.number(now, 2)}. What is it when the sixth weight grows to 16?`,
        low: 0.01,
        high: 4,
        truth: then,
        is_log: true,
        then: { giant: 16 },
        show: (x) => touch.number(x, 2),
        because: `The step is an eighth of the largest weight, now 2. Nearly all others are rounded to 0, and their error is themselves. Before, it was ${touch.number(now, 2)}.`,
      };
    },
    controls: () => [
      { kind: "choice", key: "kind", name: "Bits", options: [["q4_0", "4 (q4_0)"], ["q8_0", "8 (q8_0)"]] },
      { kind: "slider", key: "giant", name: "Sixth weight", min: -32, max: 32, step: 0.25, show: (w) => touch.number(w, 4) },
    ],
    draw,
    tell,
  });
})();
