"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("sample-tools");
  const holder = byId("cards");
  const cards = holder ? [...holder.children].map((card) => ({ card, ...JSON.parse(card.dataset.facts) })) : [];
  const PREFIX = "#samples?";

  // What the form wants, without the empty fields.
  const wanted = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value));

  // A run narrows filters and orders to itself; without one, any run of the card may fit.
  const runsOf = (item, want) => (want.run ? [item.runs[want.run]] : Object.values(item.runs)).filter(Boolean);
  const textOf = (item) => (item.text ??= item.card.textContent.toLowerCase());
  const fits = (item, want) => {
    const runs = runsOf(item, want);
    return (
      runs.length > 0 &&
      (!want.task || item.task === want.task) &&
      (!want.flag || runs.some((run) => run.flags.includes(want.flag))) &&
      Object.entries(want).every(([key, value]) => !key.startsWith("slice.") || item.slices[key.slice(6)] === value) &&
      (want.q ?? "").toLowerCase().split(/\s+/).every((word) => !word || textOf(item).includes(word))
    );
  };

  // Smaller comes first; what has no such number comes last.
  const least = (runs, key) => Math.min(...runs.filter((run) => key(run) !== null).map(key));
  const orders = {
    worst: (item, runs) => least(runs, (run) => run.score),
    fell: (item, runs) => least(runs, (run) => run.change),
    rose: (item, runs) => least(runs, (run) => run.change && -run.change),
    change: (item, runs) => least(runs, (run) => run.change && -Math.abs(run.change)),
    longest: (item, runs) => least(runs, (run) => run.length && -run.length),
    distance: (item) => -item.distance,
  };

  const apply = () => {
    const want = wanted();
    const key = orders[want.sort];
    const ranked = cards.map((item) => [key ? key(item, runsOf(item, want)) : 0, item]);
    ranked.sort(([a], [b]) => (a === b ? 0 : a < b ? -1 : 1));
    let shown = 0;
    for (const [, item] of ranked) {
      item.card.hidden = !fits(item, want);
      shown += !item.card.hidden;
    }
    holder.append(...ranked.map(([, item]) => item.card));
    byId("sample-count").textContent = `${shown.toLocaleString("en")} of ${cards.length.toLocaleString("en")} shown`;
    byId("sample-none").hidden = shown > 0;
  };

  // The address holds the filters, so that a view can be shared.
  const remember = () => {
    const query = new URLSearchParams(wanted()).toString();
    history.replaceState(null, "", query ? PREFIX + query : "#samples");
  };
  const fill = (query) => {
    const want = new URLSearchParams(query);
    for (const field of form.elements) {
      if (!field.name) continue;
      field.value = want.get(field.name) ?? "";
      if (field.selectedIndex === -1) field.selectedIndex = 0;
    }
    apply();
  };

  const follow = () => {
    const { hash } = location;
    if (form && hash.startsWith(PREFIX)) {
      fill(hash.slice(PREFIX.length));
      byId("samples").scrollIntoView();
      return;
    }
    const target = hash && byId(decodeURIComponent(hash.slice(1)));
    if (!target || target.tagName !== "DETAILS") return;
    if (target.hidden) fill("");
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus({ preventScroll: true });
  };

  if (form) {
    const change = () => {
      apply();
      remember();
    };
    let timer = 0;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(change));
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(change, 150);
    });
    apply();
  }
  addEventListener("hashchange", follow);
  follow();

  // The section in view is marked in the table of contents.
  const links = new Map([...document.querySelectorAll(".toc a")].map((a) => [a.hash.slice(1), a]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  for (const id of links.keys()) watcher.observe(byId(id));
})();
