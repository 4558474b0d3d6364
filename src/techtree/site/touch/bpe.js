/* Byte-pair encoding: a line of text becomes tokens, merge by merge. */
"use strict";

(function () {
  const SPACE = "\\p{White_Space}";
  const WORD = new RegExp(
    `'(?:[sS\\u017ftTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}` +
      `| ?[^${SPACE}\\p{L}\\p{N}]+[\\r\\n]*|${SPACE}*[\\r\\n]+|${SPACE}+(?!\\P{White_Space})|${SPACE}+`,
    "gu",
  );

  /* The character that stands for each byte in a vocabulary file, as in `pretokenize`. */
  const VISIBLE = [];
  for (let byte = 0, others = 0; byte < 256; byte++) {
    const is_shown = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte < 0xad) || byte > 0xad;
    VISIBLE.push(String.fromCharCode(is_shown ? byte : 256 + others++));
  }
  const BYTE = new Map(VISIBLE.map((character, byte) => [character, byte]));

  const split = (text) => text.match(WORD) || [];

  /* The tokens of a text, each in visible characters, and the merges that were used, in their order. */
  function encode(text, merges) {
    const ranks = new Map(merges.map(([left, right], rank) => [`${left} ${right}`, rank]));
    const tokens = [];
    const used = [];
    for (const word of split(text)) {
      const symbols = [...new TextEncoder().encode(word)].map((byte) => VISIBLE[byte]);
      for (;;) {
        let [rank, at] = [Infinity, -1];
        for (let i = 0; i + 1 < symbols.length; i++) {
          const found = ranks.get(`${symbols[i]} ${symbols[i + 1]}`);
          if (found < rank) [rank, at] = [found, i];
        }
        if (at < 0) break;
        symbols.splice(at, 2, symbols[at] + symbols[at + 1]);
        used.push(rank);
      }
      tokens.push(...symbols);
    }
    return { tokens, used };
  }

  /* A token as a reader sees it: spaces and line ends marked, parts of a character as bytes. */
  function shown(token) {
    const bytes = Uint8Array.from([...token].map((character) => BYTE.get(character)));
    try {
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
      return text.replace(/ /g, "␣").replace(/\n/g, "⏎").replace(/\t/g, "⇥");
    } catch {
      return [...bytes].map((byte) => `<${byte.toString(16)}>`).join("");
    }
  }

  function draw(state, data, width) {
    const { tokens } = encode(state.text, data.merges.slice(0, state.n));
    const fresh = state.n > 0 ? data.merges[state.n - 1].join("") : "";
    const nodes = [];
    let [x, y] = [1, 1];
    for (const token of tokens) {
      const words = shown(token);
      const w = Math.min([...words].length * 7.6 + 9, width - 2);
      if (x + w > width) [x, y] = [1, y + 34];
      const kind = token === fresh ? "token new" : "token";
      nodes.push(touch.svg("rect", { class: kind, x, y, width: w, height: 27, rx: 4 }));
      const fit = { textLength: w - 9, lengthAdjust: "spacingAndGlyphs" };
      nodes.push(touch.svg("text", { class: "mono", x: x + 4.5, y: y + 18, ...fit }, words));
      x += w + 4;
    }
    return [y + 30, nodes];
  }

  function tell(state, data) {
    const { tokens, used } = encode(state.text, data.merges.slice(0, state.n));
    const n_bytes = new TextEncoder().encode(state.text).length;
    const last = used.length ? Math.max(...used) : -1;
    const merge = last < 0 ? "" : ` The latest merge in use is number ${last + 1}: ${data.merges[last].map((part) => `“${shown(part)}”`).join(" and ")}.`;
    const many = (n, what) => `${touch.number(n)} ${what}${n === 1 ? "" : "s"}`;
    return `${many(n_bytes, "byte")}, ${many(tokens.length, "token")} with ${many(state.n, "merge")}.${merge}`;
  }

  touch.figure("bpe", {
    title: "Merge a text of yours",
    lead: "Each box is a token. At first every byte is one; then the merges that were learned from this tree's own lessons are replayed, the first one first.",
    pure: { split, encode, shown },
    start: (data) => ({ text: data.text, n: 0 }),
    question(state, data) {
      const full = encode(data.text, data.merges).tokens.length;
      return {
        text: `This line has ${touch.number(data.text.length)} bytes. How many tokens are left when all ${touch.number(data.merges.length)} merges are known?`,
        low: 1,
        high: data.text.length,
        step: 1,
        truth: full,
        then: { n: data.merges.length },
        because: "Add the merges one by one, and see which come first: what is frequent in code, not what is a word.",
      };
    },
    controls: (state, data) => [
      { kind: "slider", key: "n", name: "Merges known", min: 0, max: data.merges.length },
      { kind: "text", key: "text", name: "Your text", limit: 200 },
    ],
    draw,
    tell,
  });
})();
