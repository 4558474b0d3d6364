/* What a page gains where scripts run: contents that fold on a phone, and questions that are asked. */
(function () {
  "use strict";

  /* What scrolls sideways is reached by the Tab key, and only that: browsers differ in what they reach by themselves. */
  function reach() {
    document.querySelectorAll("pre, .formula, .wide, .frame").forEach(function (each) {
      if (each.scrollWidth > each.clientWidth) { each.tabIndex = 0; } else { each.removeAttribute("tabindex"); }
    });
  }
  reach();
  window.addEventListener("load", reach);
  window.addEventListener("resize", reach);
  document.addEventListener("toggle", reach, true);

  /* On a narrow screen the contents would push the text down. */
  var contents = document.querySelector(".contents details");
  if (contents && window.matchMedia("(max-width: 68rem)").matches) { contents.open = false; }

  /* A question keeps its answer until one's own is written down; what came of it is remembered on this machine. */
  var KEY = "techtree-quiz";

  function remembered() {
    try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch (error) { return {}; }
  }

  function remember(name, value) {
    var all = remembered();
    all[name] = value;
    try { localStorage.setItem(KEY, JSON.stringify(all)); } catch (error) { /* Nothing is kept then. */ }
  }

  function element(tag, className, text) {
    var made = document.createElement(tag);
    if (className) { made.className = className; }
    if (text) { made.textContent = text; }
    return made;
  }

  function button(text) {
    var made = element("button", "", text);
    made.type = "button";
    return made;
  }

  var questions = Array.from(document.querySelectorAll(".question"));
  var lesson = document.body.dataset.tech;
  var tally = document.getElementById("tally");

  function count() {
    if (!tally) { return; }
    var all = remembered();
    var known = questions.filter(function (q) { return all[lesson + "/" + q.id] === "known"; }).length;
    var tried = questions.filter(function (q) { return all[lesson + "/" + q.id]; }).length;
    tally.hidden = tried === 0;
    tally.textContent = "Of the " + questions.length + " questions you knew " + known +
      (tried < questions.length ? ", and " + (questions.length - tried) + " are still to be tried." : ".");
  }

  questions.forEach(function (question) {
    var details = question.querySelector("details");
    var name = lesson + "/" + question.id;
    var field = element("textarea");
    var compare = button("Compare");
    var given = element("div", "given");
    var judged = element("p", "judged");
    field.rows = 2;
    field.setAttribute("aria-label", "Your answer to question " + question.id.replace("question-", ""));
    field.placeholder = "Your answer first";
    given.appendChild(field);
    given.appendChild(compare);
    details.hidden = true;
    question.insertBefore(given, details);

    function tell() {
      var before = remembered()[name];
      judged.textContent = before === "known" ? "You knew it." : "Not yet: it will be asked again.";
      judged.hidden = !before;
    }

    function show() {
      if (!field.value.trim()) {
        field.placeholder = "Write what you think, even if it is only a guess";
        field.focus();
        return;
      }
      details.hidden = false;
      details.open = true;
      compare.hidden = true;
      var verdict = element("p", "verdict", "Was yours the same? ");
      [["Yes", "known"], ["Not quite", "missed"]].forEach(function (choice) {
        var each = button(choice[0]);
        each.addEventListener("click", function () {
          remember(name, choice[1]);
          verdict.remove();
          tell();
          count();
        });
        verdict.appendChild(each);
      });
      details.after(verdict);
    }

    question.appendChild(judged);
    tell();
    compare.addEventListener("click", show);
    field.addEventListener("keydown", function (event) {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { show(); }
    });
  });
  count();
})();
