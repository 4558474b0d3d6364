/* The search over all lessons. Its index is a script, loaded when the box is first used: a page from the file
   system may not fetch. Without scripts there is no box. */
(function () {
  "use strict";

  var root = document.body.dataset.root;
  var top = document.querySelector(".top");
  var form = document.createElement("form");
  form.className = "search";
  form.setAttribute("role", "search");
  form.innerHTML =
    '<label class="hidden" for="search">Search all lessons</label>' +
    '<input id="search" type="search" placeholder="Search" autocomplete="off" spellcheck="false"' +
    ' role="combobox" aria-expanded="false" aria-controls="found" aria-autocomplete="list">' +
    '<ul id="found" class="found" role="listbox" aria-label="Found" hidden></ul>' +
    '<p class="hidden" role="status" id="found-count"></p>';
  top.appendChild(form);

  var box = form.querySelector("input");
  var list = form.querySelector("ul");
  var count = form.querySelector("[role=status]");
  var index = null;
  var isAsked = false;
  var chosen = -1;
  var MAX_FOUND = 12;

  function load() {
    if (isAsked) { return; }
    isAsked = true;
    var script = document.createElement("script");
    script.src = root + "assets/search-index.js";
    script.onload = function () { index = window.techtreeIndex; show(); };
    document.head.appendChild(script);
  }

  function places(word) {
    var found = [];
    var number = 0;
    index.words[word].split(" ").forEach(function (part) {
      var isTitle = part.slice(-1) === "!";
      number += parseInt(isTitle ? part.slice(0, -1) : part, 36);
      found.push([number, isTitle]);
    });
    return found;
  }

  /* Every word that was typed must occur; the last one may be the beginning of a word. */
  function search(text) {
    var wanted = text.toLowerCase().match(/[\p{L}\p{N}_]+/gu) || [];
    var telling = wanted.filter(function (word) { return index.common.indexOf(word) < 0; });
    var total = null;
    if (telling.length) { wanted = telling; }
    wanted.forEach(function (word, position) {
      var isLast = position === wanted.length - 1;
      var scores = new Map();
      Object.keys(index.words).forEach(function (known) {
        if (known !== word && !(isLast && known.startsWith(word))) { return; }
        var hits = places(known);
        var rare = Math.log(1 + index.pages.length / hits.length);
        hits.forEach(function (hit) {
          var score = rare * (hit[1] ? 3 : 1) * (known === word ? 2 : 1);
          scores.set(hit[0], Math.max(score, scores.get(hit[0]) || 0));
        });
      });
      if (total === null) { total = scores; return; }
      total.forEach(function (score, page) {
        if (scores.has(page)) { total.set(page, score + scores.get(page)); } else { total.delete(page); }
      });
    });
    if (total === null) { return []; }
    return Array.from(total).sort(function (a, b) { return b[1] - a[1] || a[0] - b[0]; }).map(function (pair) {
      return pair[0];
    });
  }

  function show() {
    if (index === null) { return; }
    var text = box.value.trim();
    var found = text ? search(text) : [];
    list.textContent = "";
    chosen = -1;
    box.removeAttribute("aria-activedescendant");
    found.slice(0, MAX_FOUND).forEach(function (number, position) {
      var page = index.pages[number];
      var item = document.createElement("li");
      var link = document.createElement("a");
      item.id = "found-" + position;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", "false");
      link.href = root + page[0];
      link.tabIndex = -1;
      [["b", page[1]], ["i", page[2]], ["span", page[3]]].forEach(function (part) {
        var element = document.createElement(part[0]);
        element.textContent = part[1];
        link.appendChild(element);
        link.appendChild(document.createTextNode(" "));
      });
      item.appendChild(link);
      list.appendChild(item);
    });
    list.hidden = found.length === 0;
    box.setAttribute("aria-expanded", String(!list.hidden));
    count.textContent = !text ? "" : found.length === 0 ? "Nothing found" : found.length + " found";
    count.className = text && found.length === 0 ? "none" : "hidden";
  }

  function choose(step) {
    var items = list.children;
    if (!items.length) { return; }
    if (chosen >= 0) { items[chosen].setAttribute("aria-selected", "false"); }
    chosen = (chosen + step + items.length + (chosen < 0 && step < 0 ? 1 : 0)) % items.length;
    items[chosen].setAttribute("aria-selected", "true");
    items[chosen].scrollIntoView({ block: "nearest" });
    box.setAttribute("aria-activedescendant", items[chosen].id);
  }

  function close() {
    list.hidden = true;
    count.textContent = "";
    count.className = "hidden";
    box.setAttribute("aria-expanded", "false");
  }

  box.addEventListener("focus", load);
  box.addEventListener("input", function () { load(); show(); });
  box.addEventListener("keydown", function (event) {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      choose(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Escape") {
      close();
    }
  });
  form.addEventListener("submit", function (event) {
    event.preventDefault();
    var item = list.children[Math.max(chosen, 0)];
    if (item && !list.hidden) { item.firstChild.click(); box.blur(); close(); }
  });
  form.addEventListener("focusout", function (event) {
    if (event.relatedTarget && !form.contains(event.relatedTarget)) { close(); }
  });
  list.addEventListener("click", close);
  document.addEventListener("click", function (event) {
    if (!form.contains(event.target)) { close(); }
  });
  document.addEventListener("keydown", function (event) {
    var isTyping = /^(input|textarea|select)$/i.test(event.target.tagName) || event.target.isContentEditable;
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
})();
