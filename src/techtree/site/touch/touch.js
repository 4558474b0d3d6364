/* What the figures to touch share. Each is one classic script, `<technology>.js`, that calls `touch.figure`:
   the figure as it begins, a question, the gap between guess and answer, then one to three controls.

   What a figure computes with is under `pure`: functions that know nothing of the page, tested against the
   lesson's NumPy. */
"use strict";

var touch = (function () {
  const SVG = "http://www.w3.org/2000/svg";
  const kinds = {};

  function filled(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== undefined && child !== null));
    return node;
  }

  const html = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

  /* Short enough to read, exact enough to compare: 1,234, 12.3, 0.0123. */
  function number(x, digits = 3) {
    if (Math.abs(x) >= 1e15) return x.toExponential(2);
    if (Number.isInteger(x) || Math.abs(x) >= 1000) return Math.round(x).toLocaleString("en");
    return String(Number(x.toPrecision(digits)));
  }

  /* A slider with its name and its value. `show` turns the position into what is displayed. */
  function slider({ key, name, min, max, step = 1, value, show = number, change }) {
    const id = `touch-${key}`;
    const input = html("input", { id, type: "range", min, max, step, value });
    const output = html("output", { for: id }, show(Number(value)));
    input.addEventListener("input", () => {
      output.textContent = show(Number(input.value));
      input.setAttribute("aria-valuetext", output.textContent);
      change(Number(input.value));
    });
    input.setAttribute("aria-valuetext", output.textContent);
    return html("div", { class: "touch-slider" }, html("label", { for: id }, name), input, output);
  }

  /* A few named possibilities, of which one holds. */
  function choice({ key: group, name, options, value, change }) {
    const buttons = options.map(([key, words]) =>
      html(
        "label",
        {},
        html("input", { type: "radio", name: `touch-${group}`, value: key, checked: key === value, onchange: () => change(key) }),
        words,
      ),
    );
    return html("fieldset", { class: "touch-choice" }, html("legend", {}, name), ...buttons);
  }

  function text({ name, value, limit, change }) {
    const input = html("input", { type: "text", value, maxlength: limit, spellcheck: "false", autocomplete: "off" });
    input.addEventListener("input", () => change(input.value));
    return html("label", { class: "touch-text" }, html("span", {}, name), input);
  }

  const CONTROLS = { slider, choice, text };

  /* A line from `low` to `high` with the guess and the answer on it. */
  function gap(width, guess, { low, high, truth, is_log, show = number }) {
    const scale = (x) => (is_log ? Math.log(x) : x);
    const left = 16;
    const at = (x) => {
      const part = (scale(x) - scale(low)) / (scale(high) - scale(low));
      return left + Math.min(Math.max(part, 0), 1) * (width - 2 * left);
    };
    const [g, t] = [at(guess), at(truth)];
    const anchor = (x) => (x < 90 ? "start" : x > width - 90 ? "end" : "middle");
    return svg(
      "svg",
      { viewBox: `0 0 ${width} 64`, width, height: 64, class: "touch-gap", "aria-hidden": "true" },
      svg("path", { class: "axis", d: `M${left} 32H${width - left}` }),
      svg("path", { class: "between", d: `M${g} 32H${t}` }),
      svg("circle", { class: "guess", cx: g, cy: 32, r: 6 }),
      svg("circle", { class: "truth", cx: t, cy: 32, r: 6 }),
      svg("text", { x: g, y: 16, "text-anchor": anchor(g) }, `you: ${show(guess)}`),
      svg("text", { x: t, y: 58, "text-anchor": anchor(t), class: "strong" }, `it is ${show(truth)}`),
    );
  }

  /* Put a figure into its place in the page.

     kind.title, kind.lead   the heading, and what is to be seen
     kind.pure               the functions that compute
     kind.start(data)        -> the state that the controls change
     kind.question(state, data) -> {text, low, high, step, truth, because, then, is_log, show}: `then` is
                             the state that shows the answer
     kind.controls(state, data) -> [{kind: "slider" | "choice" | "text", key, ...}]
     kind.draw(state, data, width) -> [height, SVG nodes]
     kind.tell(state, data) -> what is drawn, in a sentence */
  function figure(id, kind) {
    kinds[id] = kind;
    if (typeof document === "undefined") return;
    const root = document.querySelector(`[data-touch="${id}"]`);
    const block = document.getElementById("touch-data");
    if (root && block) mount(id, kind, root, JSON.parse(block.textContent));
  }

  function mount(id, kind, root, data) {
    const state = kind.start(data);
    const picture = svg("svg", { class: "touch-picture", role: "img" });
    const told = html("p", { class: "touch-told", role: "status" });
    const rest = html("div", { class: "touch-rest", hidden: true });

    function draw() {
      const width = Math.max(Math.min(Math.floor(root.clientWidth || 640), 672), 240);
      const [height, nodes] = kind.draw(state, data, width);
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.setAttribute("width", width);
      picture.setAttribute("height", height);
      picture.replaceChildren(...nodes.flat());
      const words = kind.tell(state, data);
      picture.setAttribute("aria-label", words);
      if (told.textContent !== words) told.textContent = words;
    }

    const question = kind.question(state, data);
    const input = html("input", {
      type: "number",
      min: question.low,
      max: question.high,
      step: question.step || "any",
      required: true,
      inputmode: question.low < 0 ? "text" : "decimal",
    });
    const answer = html("div", { class: "touch-answer", role: "status", tabindex: -1 });
    const form = html(
      "form",
      {
        class: "touch-question",
        onsubmit: (event) => {
          event.preventDefault();
          reveal(Number(input.value));
        },
      },
      html("label", {}, html("span", { class: "touch-ask" }, "Guess first"), html("span", {}, question.text), input),
      html("button", { type: "submit" }, "Compare"),
      html("button", { type: "button", class: "quiet", onclick: () => reveal(null) }, "Just show me"),
    );

    function reveal(guess) {
      Object.assign(state, question.then);
      const show = question.show || number;
      const width = Math.max(Math.min(root.clientWidth || 640, 672), 240);
      const words =
        guess === null ? `It is ${show(question.truth)}.` : `You said ${show(guess)}; it is ${show(question.truth)}.`;
      answer.replaceChildren(
        ...(guess === null ? [] : [gap(width, guess, question)]),
        html("p", {}, html("strong", {}, words), ` ${question.because}`),
      );
      form.hidden = true;
      addControls();
      draw();
      answer.focus({ preventScroll: true });
    }

    function addControls() {
      for (const control of kind.controls(state, data)) {
        const change = (value) => {
          state[control.key] = value;
          draw();
        };
        rest.append(CONTROLS[control.kind]({ ...control, value: state[control.key], change }));
      }
      rest.hidden = false;
    }

    const heading = `touch-${id}-title`;
    root.setAttribute("aria-labelledby", heading);
    root.append(
      html("h3", { id: heading }, kind.title),
      html("p", {}, kind.lead),
      picture,
      told,
      form,
      answer,
      rest,
    );
    draw();
    let before = root.clientWidth;
    new ResizeObserver(() => {
      if (root.clientWidth !== before) {
        before = root.clientWidth;
        draw();
      }
    }).observe(root);
  }

  return { figure, html, kinds, number, svg };
})();
