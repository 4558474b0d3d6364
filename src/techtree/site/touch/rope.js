/* Rotary positions: the pairs of a query and a key turn with their positions; the score knows the distance. */
"use strict";

(function () {
  function frequencies(width, base) {
    return Array.from({ length: width / 2 }, (_, i) => base ** ((-2 * i) / width));
  }

  /* Turn the pairs (i, i + width / 2) of x by the angles of a position. */
  function rotate(x, position, base) {
    const half = x.length / 2;
    const turned = new Array(x.length);
    frequencies(x.length, base).forEach((frequency, i) => {
      const [cos, sin] = [Math.cos(position * frequency), Math.sin(position * frequency)];
      turned[i] = x[i] * cos - x[i + half] * sin;
      turned[i + half] = x[i] * sin + x[i + half] * cos;
    });
    return turned;
  }

  function score(q, k, t, s, base) {
    const [a, b] = [rotate(q, t, base), rotate(k, s, base)];
    return a.reduce((sum, x, i) => sum + x * b[i], 0);
  }

  const baseOf = (state) => 10 ** state.power;
  const REACH = 64;

  function draw(state, data, width) {
    const base = baseOf(state);
    const [q, k] = [rotate(data.q, state.position, base), rotate(data.k, state.position - state.distance, base)];
    const half = q.length / 2;
    const per_row = width > 520 ? half : half / 2;
    const cell = width / per_row;
    const radius = Math.min(cell / 2 - 6, 36);
    const nodes = [];
    frequencies(q.length, base).forEach((frequency, i) => {
      const [cx, cy] = [(i % per_row) * cell + cell / 2, Math.floor(i / per_row) * (2 * radius + 30) + radius + 4];
      nodes.push(touch.svg("circle", { class: "ghost", cx, cy, r: radius }));
      [[k, "line other"], [q, "line"]].forEach(([x, kind]) => {
        const length = Math.hypot(x[i], x[i + half]) || 1;
        const [u, v] = [(x[i] / length) * radius, (x[i + half] / length) * radius];
        nodes.push(touch.svg("path", { class: kind, d: `M${cx} ${cy}l${u} ${-v}` }));
      });
      const wave = (2 * Math.PI) / frequency;
      nodes.push(
        touch.svg("text", { class: "small soft", x: cx, y: cy + radius + 16, "text-anchor": "middle" }, touch.number(wave, wave < 100 ? 2 : 3)),
      );
    });
    const top = (half / per_row) * (2 * radius + 30) + 26;
    const height = 110;
    const values = Array.from({ length: REACH + 1 }, (_, d) => score(data.q, data.k, d, 0, base));
    const [least, most] = [Math.min(...values, -0.5), Math.max(...values, 0.5)];
    const at = (d, y) => [12 + (d / REACH) * (width - 24), top + 8 + ((most - y) / (most - least)) * (height - 16)];
    nodes.push(touch.svg("text", { class: "small soft", x: 0, y: top - 4 }, "score by distance"));
    nodes.push(touch.svg("path", { class: "axis", d: `M0 ${at(0, 0)[1]}H${width}` }));
    nodes.push(touch.svg("path", { class: "line", d: `M${values.map((y, d) => at(d, y).map((n) => n.toFixed(1)).join(" ")).join("L")}` }));
    const [x, y] = at(state.distance, values[state.distance]);
    nodes.push(touch.svg("circle", { class: "bad", cx: x, cy: y, r: 5 }));
    for (const d of [0, 16, 32, 48, 64]) {
      const anchor = d === 0 ? "start" : d === REACH ? "end" : "middle";
      nodes.push(touch.svg("text", { class: "small soft", x: at(d, 0)[0], y: top + height + 12, "text-anchor": anchor }, String(d)));
    }
    return [top + height + 18, nodes];
  }

  function tell(state, data) {
    const value = score(data.q, data.k, state.position, state.position - state.distance, baseOf(state));
    return (
      `Each dial is a pair: the solid hand is the query's, at position ${touch.number(state.position)}, the dashed one the key's, at ${touch.number(state.position - state.distance)}; ` +
      `below it are the positions of a full turn. The score is ${touch.number(value)}.`
    );
  }

  touch.figure("rope", {
    title: "Turn the pairs",
    lead: "A query and a key of width 16, so eight pairs. From one position to the next the first pair turns by one radian, the last hardly at all.",
    pure: { frequencies, rotate, score },
    start: () => ({ position: 7, distance: 4, power: 4 }),
    question(state, data) {
      const now = score(data.q, data.k, 7, 3, 10_000);
      return {
        text: `The query stands at 7, the key at 3, and their score is ${touch.number(now)}. Both move on by 100 places, and every hand turns. What is the score then?`,
        low: -4,
        high: 4,
        truth: score(data.q, data.k, 107, 103, 10_000),
        then: { position: 107 },
        because: "Both hands of a dial turn by the same angle, so the angle between them stays, and with it the score. Another distance gives another score.",
      };
    },
    controls: () => [
      { kind: "slider", key: "position", name: "Query's position", min: REACH, max: 200 },
      { kind: "slider", key: "distance", name: "Key is behind by", min: 0, max: REACH },
      { kind: "slider", key: "power", name: "Base", min: 1, max: 6, step: 0.1, show: (power) => touch.number(Math.round(10 ** power)) },
    ],
    draw,
    tell,
  });
})();
