// A method's page: best and worst clips with a picture each, the table of clips, and the panel of one clip.
(() => {
  "use strict";

  const { data, element, Panel } = TalkForge;
  const clips = new Map(data.clips.map((clip) => [String(clip.k), clip]));
  const panel = new Panel(document.getElementById("panel"), data.fps);
  const table = document.getElementById("clips");
  let opener = null;
  // Without scripts an address leads to its row. Here the browser would scroll there, and take the focus off the panel.
  for (const row of table.tBodies[0].rows) row.removeAttribute("id");

  const values = (clip) => {
    const list = element("dl", "clip-values");
    data.metrics.forEach((metric, k) => {
      const [text, reason] = clip.values[k];
      const pair = element("div");
      const number = element("dd", "", text);
      if (reason) number.append(" ", element("span", "reason", reason));
      pair.append(element("dt", "", `${metric.title} ${metric.arrow ?? ""}`.trim()), number);
      list.append(pair);
    });
    return list;
  };

  const view = (clip) => ({
    title: clip.n,
    about: clip.e ? [`labelled ${clip.e}`] : [],
    sides: data.screens,
    files: clip.files,
    strips: clip.strips,
    curves: clip.curves,
    values: values(clip),
    notes: clip.notes,
  });

  // A link to a clip opens its panel and hands the keyboard over to it.
  const reveal = () => {
    const found = location.hash.startsWith("#clip-") && clips.get(location.hash.slice(6));
    if (!found) return;
    panel.show(view(found));
    panel.focus();
    for (const link of document.querySelectorAll("a[aria-current]")) link.removeAttribute("aria-current");
    for (const link of document.querySelectorAll(`a[data-clip="${found.k}"]`)) link.setAttribute("aria-current", "true");
  };
  window.addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-clip]");
    if (!link) return;
    opener = link;
    if (link.hash === location.hash) {
      event.preventDefault();
      reveal();
    }
  });

  const neighbours = () => {
    const list = opener && opener.isConnected ? opener.closest("ol, ul, tbody") : table.tBodies[0];
    return [...list.querySelectorAll("a[data-clip]")].filter((link) => link.offsetParent !== null);
  };
  const move = (step) => {
    const links = neighbours();
    const here = links.findIndex((link) => link.hash === location.hash);
    const next = links[here + step];
    if (next) {
      opener = next;
      location.hash = next.hash;
    }
  };
  const close = () => {
    panel.close();
    history.replaceState(null, "", "#all");
    for (const link of document.querySelectorAll("a[aria-current]")) link.removeAttribute("aria-current");
    (opener && opener.offsetParent !== null ? opener : table.querySelector("a")).focus();
  };
  const acts = { previous: () => move(-1), next: () => move(1), close };
  for (const [name, act] of Object.entries(acts)) panel.find(`[data-do=${name}]`).addEventListener("click", act);
  panel.root.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });

  // Each card shows the middle frame of its clip, cut out of the strip when its list is first shown.
  const middle = (picture, count) => {
    const tile = picture.naturalWidth / count / picture.naturalHeight;
    const place = Math.floor(count / 2) * tile + (tile - 1) / 2;
    picture.style.objectPosition = `${100 * place / (count * tile - 1)}% 0`;
  };
  const illustrate = (section) => {
    if (![...section.querySelectorAll("a.card")].some((card) => clips.get(card.dataset.clip).strips[1].file[0])) return;
    for (const card of section.querySelectorAll("a.card:not(.seen)")) {
      card.classList.add("seen");
      const clip = clips.get(card.dataset.clip);
      const box = element("span", "card-picture");
      const strip = clip.strips[1];
      if (strip.file[0]) {
        const picture = element("img");
        picture.alt = "";
        picture.loading = "lazy";
        picture.addEventListener("load", () => middle(picture, strip.at.length));
        picture.src = strip.file[0];
        box.append(picture);
      }
      card.prepend(box);
    }
  };
  const sections = [...document.querySelectorAll("section.extremes")];
  const chosen = document.getElementById("extremes-metric");
  const choose = () => {
    sections.forEach((section, k) => { section.hidden = k !== Number(chosen.value); });
    if (sections[chosen.value]) illustrate(sections[chosen.value]);
  };
  document.getElementById("extremes-tools").hidden = sections.length < 2;
  chosen.addEventListener("change", choose);
  if (sections.length) choose();

  // The table sorts by any column, missing values last in both directions, and narrows to rows with a text.
  const key = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
  const sort = (column, numeric, descending) => {
    const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = numeric ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
      return descending ? -order : order;
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  const heads = [...table.tHead.rows[0].cells].slice(0, -1); // the last one holds links
  heads.forEach((head, column) => {
    const button = element("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(column, head.classList.contains("num"), descending);
    });
  });
  const filter = document.getElementById("filter");
  filter.closest("[hidden]").hidden = false;
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    document.getElementById("filter-count").textContent = wanted ? `${shown} of ${clips.size}` : "";
  });

  reveal();
})();
