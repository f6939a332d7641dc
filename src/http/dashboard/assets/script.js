// What the pages do beyond what the server wrote: local times, live counts, bulk selection, the theme.
// Everything can be read without it. No dependencies; nothing of what is shown is ever set as HTML from data.
"use strict";

(() => {
  const root = document.documentElement;
  root.classList.add("has-script");
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // ── theme ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const themes = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("feedmill-theme") || "auto"; } catch { return "auto"; } };
  const wear = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
    all("[data-theme-button]").forEach((button) => { button.textContent = `Theme: ${theme}`; });
  };

  // ── times ─────────────────────────────────────────────────────────────────────────────────────────────────────
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const localTimes = (within) => all("time[datetime]", within).forEach((time) => {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.valueOf())) return;
    const isToday = at.toDateString() === new Date().toDateString();
    const year = at.getFullYear() === new Date().getFullYear() ? "" : ` ${at.getFullYear()}`;
    time.textContent = isToday ? clock.format(at) : `${day.format(at)}${year} ${clock.format(at)}`;
  });

  // ── selection ─────────────────────────────────────────────────────────────────────────────────────────────────
  const selection = (form) => {
    const boxes = all('input[name="id"]', form);
    const chosen = boxes.filter((box) => box.checked).length;
    all("[data-chosen]", form).forEach((text) => { text.textContent = chosen ? `${chosen} selected` : "None selected"; });
    all("button[data-bulk]", form).forEach((button) => { button.disabled = chosen === 0; });
    all("[data-all]", form).forEach((box) => {
      box.checked = chosen > 0 && chosen === boxes.length;
      box.indeterminate = chosen > 0 && chosen < boxes.length;
    });
  };
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-select]");
    if (!form) return;
    if (event.target.matches("[data-all]")) {
      all('input[name="id"]', form).forEach((box) => { box.checked = event.target.checked; });
    }
    selection(form);
  });
  document.addEventListener("submit", (event) => {
    const question = event.submitter?.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });

  // ── news ──────────────────────────────────────────────────────────────────────────────────────────────────────
  const number = new Intl.NumberFormat("en-US");
  const shown = new Map();
  const status = (is, text) => all("[data-live]").forEach((dot) => {
    dot.dataset.is = is;
    dot.querySelector("span").textContent = text;
  });
  const snapshot = (news) => {
    if (news.away) { status("off", "Redis does not answer"); return; }
    status("on", "live");
    const changed = new Set();
    for (const queue of news.queues) {
      const counts = { ...queue.counts, parked: queue.parked, consumers: queue.consumersAlive };
      for (const [state, count] of Object.entries(counts)) {
        const key = `${queue.name}/${state}`;
        if (shown.get(key) !== count && shown.has(key)) changed.add(queue.name);
        shown.set(key, count);
        all(`[data-count="${CSS.escape(key)}"]`).forEach((cell) => { cell.textContent = number.format(count); });
      }
      const key = `${queue.name} totals`;
      const totals = JSON.stringify([queue.totals, queue.isPaused]);
      if (shown.has(key) && shown.get(key) !== totals) changed.add(queue.name);
      shown.set(key, totals);
    }
    for (const operation of news.operations) {
      all(`[data-operation="${CSS.escape(operation.id)}"]`).forEach((part) => {
        const bar = part.querySelector("progress");
        if (bar && operation.state === "running") {
          bar.max = Math.max(operation.total, operation.lookedAt, 1);
          bar.value = operation.lookedAt;
        }
        const text = part.querySelector("[data-progress]");
        if (text) text.textContent = `${number.format(operation.done)} done, ${number.format(operation.lookedAt)} looked at`;
        if (part.dataset.state !== operation.state) { part.dataset.state = operation.state; refresh("operations"); }
      });
    }
    changed.forEach((queue) => refresh(`queue ${queue}`));
  };
  const told = (event) => {
    all(`[data-events="${CSS.escape(event.queue)}"]`).forEach((list) => {
      const row = document.createElement("li");
      const time = document.createElement("time");
      time.dateTime = event.at;
      const detail = event.fields.failedReason || event.fields.reason || event.fields.returnvalue || "";
      const name = document.createElement("b");
      name.textContent = event.event;
      row.append(time, " ", name, " ", event.job ?? "", detail ? ` — ${detail}` : "");
      list.prepend(row);
      localTimes(row);
      while (list.children.length > 8) list.lastElementChild.remove();
    });
  };

  // Parts of the page that are read anew when something of theirs has changed, at most every three seconds.
  const waiting = new Map();
  const refresh = (about) => {
    const parts = all("[data-refresh]").filter((part) => part.dataset.refresh === about);
    if (parts.length === 0 || waiting.has(about)) return;
    waiting.set(about, setTimeout(async () => {
      waiting.delete(about);
      const isBusy = (part) => part.contains(document.activeElement) || part.querySelector("input:checked, details[open] form");
      if (document.hidden || parts.some(isBusy)) return;
      const answer = await fetch(location.href, { headers: { accept: "text/html" } }).catch(() => null);
      if (!answer?.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts) {
        const fresh = page.getElementById(part.id);
        if (fresh) { part.replaceWith(fresh); localTimes(fresh); }
      }
      all("form[data-select]").forEach(selection);
    }, 3000));
  };

  let source = null;
  const listen = () => {
    if (source || document.hidden || !document.body.dataset.news) return;
    source = new EventSource(document.body.dataset.news);
    source.addEventListener("snapshot", (event) => snapshot(JSON.parse(event.data)));
    source.addEventListener("event", (event) => told(JSON.parse(event.data)));
    source.addEventListener("error", () => {
      // It is not tried again when it was refused: the session has ended.
      const isRefused = source?.readyState === EventSource.CLOSED;
      status("off", isRefused ? "not live: load the page again" : "reconnecting");
    });
  };
  // A hidden tab listens to nothing: a browser has only six connections to a server.
  const hush = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => (document.hidden ? hush() : listen()));
  window.addEventListener("pagehide", hush);
  window.addEventListener("pageshow", listen);

  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input, textarea, select");
    if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = document.querySelector('input[type="search"]');
    if (field) { event.preventDefault(); field.focus(); }
  });

  wear(stored());
  document.addEventListener("DOMContentLoaded", () => {
    wear(stored());
    all("[data-theme-button]").forEach((button) => button.addEventListener("click", () => {
      const next = themes[(themes.indexOf(stored()) + 1) % themes.length];
      try { localStorage.setItem("feedmill-theme", next); } catch { /* a private window */ }
      wear(next);
    }));
    // On a phone the pages stand in a row that is wider than it.
    document.querySelector(".side nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" });
    localTimes(document);
    all("form[data-select]").forEach(selection);
    listen();
  });
})();
