"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");

  // Figures name their colours; the scheme says what the names are.
  const coloured = (value, palette) => {
    if (typeof value === "string") return value[0] === "@" ? palette[value.slice(1)] ?? value : value;
    if (Array.isArray(value)) return value.map((item) => coloured(item, palette));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, coloured(v, palette)]));
    }
    return value;
  };
  const draw = (scheme) => {
    for (const [id, figure] of Object.entries(data.figures)) {
      const place = document.getElementById(id);
      if (!place) continue;
      const painted = coloured(figure, data.palette[scheme]);
      painted.layout.font.family = getComputedStyle(document.body).fontFamily;
      // A drag on a touch screen scrolls the page.
      if (coarse.matches) painted.layout.dragmode = false;
      Plotly.react(place, painted.data, painted.layout, { responsive: true, displayModeBar: false });
      if (!place.dataset.wired) {
        place.dataset.wired = "yes";
        place.on("plotly_click", (event) => {
          const target = event.points[0].customdata;
          if (target) show(target);
        });
      }
    }
  };
  const redraw = () => draw(dark.matches ? "dark" : "light");
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => draw("light"));
  addEventListener("afterprint", redraw);

  // The sample browser.
  const cards = [...document.querySelectorAll(".card")];
  const holder = document.getElementById("cards");
  const control = (name) => document.getElementById("sample-" + name);
  const wanted = (name) => control(name)?.value ?? "";
  const texts = new Map();
  const textOf = (card) => {
    if (!texts.has(card)) texts.set(card, card.textContent.toLowerCase());
    return texts.get(card);
  };
  const numeric = (card, key) => (card.dataset[key] === "" ? null : Number(card.dataset[key]));
  const orders = {
    order: (card) => numeric(card, "order"),
    distance: (card) => -numeric(card, "distance"),
    change: (card) => -Math.abs(numeric(card, "change") ?? 0),
    fell: (card) => numeric(card, "change") ?? Infinity,
    rose: (card) => -(numeric(card, "change") ?? -Infinity),
  };
  const apply = () => {
    const words = wanted("search").toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const card of cards) {
      const fits =
        (!wanted("task") || card.dataset.task === wanted("task")) &&
        (!wanted("mark") || card.dataset.marks.split("|").includes(wanted("mark"))) &&
        words.every((word) => textOf(card).includes(word));
      card.hidden = !fits;
      shown += fits;
    }
    const key = orders[wanted("sort")] ?? orders.order;
    const sorted = [...cards].sort((a, b) => key(a) - key(b) || numeric(a, "order") - numeric(b, "order"));
    holder.append(...sorted);
    control("count").textContent = `${shown.toLocaleString("en")} of ${cards.length.toLocaleString("en")} shown`;
    control("none").hidden = shown > 0;
  };
  const show = (id) => {
    const card = document.getElementById(id);
    if (!card) return;
    if (card.hidden) set({ task: "", mark: "", search: "" });
    card.open = true;
    history.replaceState(null, "", "#" + id);
    card.scrollIntoView({ block: "start" });
    card.querySelector("summary").focus({ preventScroll: true });
  };
  const set = (values) => {
    for (const [name, value] of Object.entries(values)) {
      const field = control(name);
      if (!field) continue;
      field.value = value;
      if (field.selectedIndex === -1) field.selectedIndex = 0;
    }
    apply();
  };
  if (holder) {
    let timer = 0;
    control("tools").addEventListener("submit", (event) => event.preventDefault());
    control("tools").addEventListener("change", apply);
    control("search").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(apply, 150);
    });
    // A number in a table leads to the samples it was computed from.
    document.addEventListener("click", (event) => {
      const link = event.target.closest('a[href="#samples"][data-task]');
      if (link) set({ search: "", task: link.dataset.task, mark: link.dataset.mark ?? "", sort: link.dataset.sort ?? "order" });
    });
    apply();
  }
  const opened = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", opened);
  opened();

  // The section in view is marked in the table of contents.
  const links = new Map([...document.querySelectorAll(".toc a")].map((a) => [a.hash.slice(1), a]));
  const watcher = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) links.get(entry.target.id)?.classList.toggle("here", entry.isIntersecting);
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  for (const id of links.keys()) watcher.observe(document.getElementById(id));
  redraw();
})();
