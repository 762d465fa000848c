// Light or dark, the list of pages, keys, and the search. The index is a script beside this one, and is loaded when it
// is first needed: pages that are opened from a disk may not read other files.
"use strict";
(function () {
  const here = document.currentScript, root = here.dataset.root, html = document.documentElement;
  // A browser may refuse to remember anything.
  const store = {
    get() { try { return localStorage.theme; } catch { return null; } },
    set(theme) { try { localStorage.theme = theme; } catch { } },
  };
  if (store.get()) html.dataset.theme = store.get();
  const by = id => document.getElementById(id), box = by("search"), found = by("found");
  by("theme").onclick = () => {
    const now = html.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    html.dataset.theme = now === "dark" ? "light" : "dark";
    store.set(html.dataset.theme);
  };
  if (by("menu")) by("menu").onclick = () => document.body.classList.toggle("menu");
  const current = document.querySelector("nav [aria-current]");
  if (current) { const nav = current.closest("nav"); nav.scrollTop = current.offsetTop - nav.clientHeight / 2; }

  function load(then) {
    if (window.INDEX) return then();
    const script = document.createElement("script");
    script.src = here.dataset.index;
    script.onload = then;
    document.head.append(script);
  }
  // Sections that have all words; those with the words in this order come first, and before them those that are called
  // so.
  function search(asked) {
    const phrase = asked.toLowerCase().trim().replace(/\s+/g, " "), words = phrase.split(" ").filter(w => w);
    if (!words.length) return [];
    const count = (text, part) => text.split(part).length - 1;
    return window.INDEX.map(section => {
      const title = (section.t + " " + section.c).toLowerCase(), text = section.x.toLowerCase();
      const all = title + " " + text;
      if (!words.every(word => all.includes(word))) return null;
      const score = 50 * title.includes(phrase) + 10 * Math.min(5, count(text, phrase))
        + words.reduce((sum, word) => sum + 5 * title.includes(word) + Math.min(3, count(text, word)), 0)
        + 5 * section.p.includes("/book/");
      return { section, score };
    }).filter(hit => hit).sort((a, b) => b.score - a.score).slice(0, 30);
  }
  function excerpt(text, asked) {
    const lower = text.toLowerCase(), phrase = asked.toLowerCase().trim();
    let at = lower.indexOf(phrase), length = phrase.length;
    if (at < 0) { const word = phrase.split(/\s+/)[0]; at = lower.indexOf(word); length = word.length; }
    const small = document.createElement("small");
    if (at < 0) { small.textContent = text.slice(0, 160); return small; }
    const mark = document.createElement("mark");
    mark.textContent = text.slice(at, at + length);
    small.append(text.slice(Math.max(0, at - 70), at), mark, text.slice(at + length, at + length + 110));
    return small;
  }
  function show() {
    const hits = search(box.value);
    found.replaceChildren(...hits.map(({ section }, n) => {
      const link = document.createElement("a");
      link.href = root + section.p + (section.a ? "#" + section.a : "");
      link.setAttribute("aria-selected", n === 0);
      link.append(section.t && section.t !== section.c ? section.c + " › " + section.t : section.c, excerpt(section.x, box.value));
      link.onclick = close;
      return link;
    }));
    if (!hits.length && box.value.trim()) found.textContent = "–";
    found.hidden = !box.value.trim();
  }
  function close() { found.hidden = true; box.blur(); }
  function select(step) {
    const links = [...found.querySelectorAll("a")];
    const at = links.findIndex(link => link.getAttribute("aria-selected") === "true");
    const next = links[Math.max(0, Math.min(links.length - 1, at + step))];
    links.forEach(link => link.setAttribute("aria-selected", link === next));
    if (next) next.scrollIntoView({ block: "nearest" });
  }
  box.oninput = () => load(show);
  box.onkeydown = event => {
    if (event.key === "Escape") { box.value = ""; close(); }
    else if (event.key === "ArrowDown") { select(1); event.preventDefault(); }
    else if (event.key === "ArrowUp") { select(-1); event.preventDefault(); }
    else if (event.key === "Enter") found.querySelector("[aria-selected=true]")?.click();
  };
  document.addEventListener("keydown", event => {
    if (event.target === box || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
    if (event.key === "/") { box.focus(); event.preventDefault(); }
    else if (event.key === "Escape") { document.body.classList.remove("menu"); found.hidden = true; }
    else if (event.key === "ArrowLeft" && by("before")) by("before").click();
    else if (event.key === "ArrowRight" && by("after")) by("after").click();
  });
  // A question in the address, as in index.html?q=bell, is asked at once.
  const asked = new URLSearchParams(location.search).get("q");
  if (asked) { box.value = asked; load(show); }
})();
