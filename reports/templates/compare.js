// The page of two methods: a picture of all clips, their differences in order, and the panel with both methods' videos.
(() => {
  "use strict";

  const { data, element, drawn, clamp, Panel } = TalkForge;
  const panel = new Panel(document.getElementById("panel"), data.fps);
  const at = (id) => document.getElementById(id);
  const [pickA, pickB, pickMetric] = [at("pick-a"), at("pick-b"), at("pick-metric")];
  const EQUAL = 1e-12;
  let state = { a: 0, b: Math.min(1, data.methods.length - 1), metric: 0, clip: null };
  let pairs = [];
  let opener = null;

  // Why the two are not compared by a metric, "" where they are.
  const trouble = (which = state.metric) => {
    const found = data.metrics[which];
    if (!found) return "";
    const [a, b] = [found.groups[state.a], found.groups[state.b]];
    if (a < 0 || b < 0) return `${data.methods[a < 0 ? state.a : state.b].name} was not measured by ${found.title} clip by clip.`;
    return a === b ? "" : `${found.title} was measured differently for the two (protocol or weights): their numbers are not compared.`;
  };

  const options = (select, names) => {
    select.replaceChildren(...names.map((name, k) => {
      const option = element("option", "", name);
      option.value = k;
      return option;
    }));
  };
  options(pickA, data.methods.map((method) => method.name));
  options(pickB, data.methods.map((method) => method.name));
  options(pickMetric, data.metrics.map((metric) => `${metric.title} ${metric.arrow ?? ""}`));

  // The choice stands in the address, so that a comparison can be linked to.
  const read = () => {
    const given = new URLSearchParams(location.hash.slice(1));
    const place = (list, name, old) => {
      const found = given.has(name) ? list.indexOf(given.get(name)) : -1;
      return found < 0 ? old : found;
    };
    const names = data.methods.map((method) => method.name);
    state.a = place(names, "a", state.a);
    state.b = place(names, "b", state.b);
    state.metric = place(data.metrics.map((metric) => metric.id), "metric", state.metric);
    // Without a wish, the first metric that both have by clip.
    if (!given.has("metric") && trouble()) state.metric = Math.max(0, data.metrics.findIndex((_, k) => !trouble(k)));
    const clip = place(data.clips.map(([, name]) => name), "clip", -1);
    state.clip = clip < 0 ? null : clip;
  };
  const address = (changes) => {
    const wanted = { ...state, ...changes };
    const parts = { a: data.methods[wanted.a].name, b: data.methods[wanted.b].name, metric: data.metrics[wanted.metric]?.id ?? "" };
    if (wanted.clip !== null) parts.clip = data.clips[wanted.clip][1];
    return `#${new URLSearchParams(parts)}`;
  };

  const metric = () => data.metrics[state.metric];
  // All numbers of a metric with the same decimals, by how far apart they lie.
  const decimals = data.metrics.map((_, k) => {
    const values = data.methods.flatMap((method) => method.values[k].filter((value) => value !== null));
    const wide = values.reduce((most, value) => Math.max(most, value), -Infinity) - values.reduce((least, value) => Math.min(least, value), Infinity);
    return wide > 0 ? clamp(2 - Math.floor(Math.log10(wide)), 0, 8) : 3;
  });
  const number = (value, k = state.metric) => (value === null ? "—" : value.toFixed(decimals[k]).replace("-", "\u2212"));
  const gap = (value) => {
    const { aim, target } = metric();
    return aim === "high" ? -value : aim === "near" ? Math.abs(value - target) : value;
  };
  const reason = (method, clip, metric) => {
    const found = method.missing[metric][clip];
    return found === undefined ? "not a clip of this method" : method.why[found];
  };

  // `better`: by how much B is nearer to the best than A; without a direction, the plain difference.
  const measure = () => {
    const [a, b] = [data.methods[state.a], data.methods[state.b]];
    const all = data.clips.map((clip, k) => {
      const [x, y] = [a.values[state.metric][k], b.values[state.metric][k]];
      const better = x === null || y === null ? null : metric().aim ? gap(x) - gap(y) : y - x;
      return { k, name: clip[1], x, y, better };
    });
    pairs = all.filter((pair) => pair.better !== null);
    const missing = all.filter((pair) => pair.better === null);
    pairs.sort((p, q) => q.better - p.better || p.name.localeCompare(q.name));
    if (at("order").value === "a") pairs.reverse();
    return missing;
  };

  const verdict = (missing) => {
    const [a, b] = [data.methods[state.a].name, data.methods[state.b].name];
    const [up, down] = [1, -1].map((sign) => pairs.filter((pair) => sign * pair.better > EQUAL).length);
    const equal = pairs.length - up - down;
    const others = new Set([...data.methods[state.a].other, ...data.methods[state.b].other]);
    const apart = pairs.filter((pair) => others.has(pair.k)).length;
    const note = apart ? ` Of ${apart} the two had different real files.` : "";
    const rest = `${equal} equal, ${missing.length} without both values.${note}`;
    if (!metric().aim) return `Of ${pairs.length} clips ${up} have more with ${b}, ${down} with ${a}, ${rest} Which is better is not known.`;
    return `Of ${pairs.length} clips ${b} (B) is better on ${up}, ${a} (A) on ${down}, ${rest}`;
  };

  // Scatter: one stop of the Tab key; arrow keys go through the clips in the order of the list.
  const SIDE = 400;
  const MARGIN = 40;
  const scatter = () => {
    const values = pairs.flatMap((pair) => [pair.x, pair.y]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (high - low) * 0.06 || Math.abs(low) * 0.1 || 1;
    const place = (value) => (SIDE - MARGIN) * (value - low + pad) / (high - low + 2 * pad);
    const [x, y] = [(value) => MARGIN + place(value), (value) => SIDE - MARGIN - place(value)];
    const picture = drawn("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "group", "aria-label": `A against B, ${pairs.length} clips` });
    const [start, end] = [low - pad, high + pad];
    const corner = metric().aim === "high" ? [start, end] : [end, start];
    const sided = metric().aim === "high" || metric().aim === "low";
    document.getElementById("shaded-side").hidden = !sided;
    if (sided) {
      picture.append(drawn("path", { class: "side-b", d: `M${x(start)} ${y(start)}L${x(end)} ${y(end)}L${x(corner[0])} ${y(corner[1])}Z` }));
    }
    picture.append(drawn("path", { class: "base", d: `M${x(start)} ${y(end)}V${y(start)}H${x(end)}` }));
    picture.append(drawn("line", { class: "reference", x1: x(start), y1: y(start), x2: x(end), y2: y(end) }));
    const label = (words, place) => {
      const made = drawn("text", { class: "tick", ...place });
      made.textContent = words;
      picture.append(made);
    };
    for (const value of [low, high]) {
      label(number(value), { x: x(value), y: SIDE - MARGIN + 14 });
      label(number(value), { x: MARGIN - 4, y: y(value) + 4, "text-anchor": "end", class: "tick end" });
    }
    const short = (name) => (name.length > 28 ? `${name.slice(0, 27)}…` : name);
    label(`A · ${short(data.methods[state.a].name)}`, { x: SIDE / 2, y: SIDE - 8 });
    label(`B · ${short(data.methods[state.b].name)}`, { transform: `translate(${MARGIN - 14} ${SIDE / 2}) rotate(-90)` });
    const points = pairs.map((pair) => {
      const link = drawn("a", { href: address({ clip: pair.k }), tabindex: -1, "aria-label": `${pair.name}: A ${number(pair.x)}, B ${number(pair.y)}` });
      link.append(drawn("circle", { class: pair.better > EQUAL ? "for-b" : pair.better < -EQUAL ? "for-a" : "for-none", cx: x(pair.x), cy: y(pair.y), r: 5 }));
      link.addEventListener("focus", () => { at("scatter-said").textContent = `${pair.name}: A ${number(pair.x)}, B ${number(pair.y)}`; });
      link.addEventListener("pointerenter", () => { at("scatter-said").textContent = `${pair.name}: A ${number(pair.x)}, B ${number(pair.y)}`; });
      picture.append(link);
      return link;
    });
    if (points.length) points[0].setAttribute("tabindex", 0);
    picture.addEventListener("keydown", (event) => {
      const here = points.indexOf(document.activeElement);
      const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0, End: points.length - 1 }[event.key];
      if (here < 0 || to === undefined) return;
      event.preventDefault();
      const next = points[clamp(to, 0, points.length - 1)];
      points[here].setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
    at("scatter").replaceChildren(picture);
    at("scatter-said").textContent = "";
  };

  const bars = () => {
    const most = Math.max(EQUAL, ...pairs.map((pair) => Math.abs(pair.better)));
    const rows = pairs.map((pair) => {
      const row = element("li");
      const link = element("a", "bar-name", pair.name);
      link.href = address({ clip: pair.k });
      link.dataset.clip = pair.k;
      const track = element("span", "bar-track");
      const bar = element("span", pair.better >= 0 ? "bar for-b" : "bar for-a");
      bar.style.width = `${50 * Math.abs(pair.better) / most}%`;
      track.append(bar);
      const difference = pair.y - pair.x;
      row.append(link, element("span", "bar-values", `${number(pair.x)} → ${number(pair.y)}`), track, element("span", "bar-difference", `${difference > 0 ? "+" : ""}${number(difference)}`));
      return row;
    });
    at("bars").replaceChildren(...rows);
  };

  const without = (missing) => {
    const [a, b] = [data.methods[state.a], data.methods[state.b]];
    at("without").hidden = !missing.length;
    at("without").querySelector("summary").textContent = `${missing.length} clips without both values`;
    at("without").querySelector("ul").replaceChildren(...missing.map((pair) => {
      const item = element("li");
      const link = element("a", "", pair.name);
      link.href = address({ clip: pair.k });
      const why = [[a, pair.x, "A"], [b, pair.y, "B"]].filter(([, value]) => value === null).map(([method, , side]) => `${side}: ${reason(method, pair.k, state.metric)}`);
      item.append(link, " ", element("span", "reason", why.join("; ")));
      return item;
    }));
  };

  const narrow = () => {
    const wanted = at("filter").value.trim().toLowerCase();
    let shown = 0;
    for (const row of at("bars").children) {
      row.hidden = !row.firstChild.textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    at("filter-count").textContent = wanted ? `${shown} of ${pairs.length}` : "";
  };

  let drawnFor = "";
  const draw = () => {
    pickA.value = state.a;
    pickB.value = state.b;
    pickMetric.value = state.metric;
    if (!data.metrics.length) {
      at("verdict").textContent = "No metric of these runs has values of single clips.";
      return;
    }
    const key = [state.a, state.b, state.metric, at("order").value].join();
    if (key === drawnFor) return;
    drawnFor = key;
    const why = trouble();
    const missing = measure();
    document.querySelector(".compared").hidden = Boolean(why) || !pairs.length;
    at("verdict").textContent = why || (pairs.length ? verdict(missing) : "No clip has a value of both methods.");
    if (why || !pairs.length) return;
    scatter();
    bars();
    without(missing);
    narrow();
  };

  const values = (a, b) => {
    const table = element("table", "pair-values");
    const head = element("tr");
    for (const words of ["Metric", `A · ${a.name}`, `B · ${b.name}`]) {
      const cell = element("th", words === "Metric" ? "" : "num", words);
      cell.scope = "col";
      head.append(cell);
    }
    table.createTHead().append(head);
    const body = table.createTBody();
    data.metrics.forEach((one, k) => {
      const row = element("tr");
      const name = element("th", "", `${one.title} ${one.arrow ?? ""}`.trim());
      name.scope = "row";
      row.append(name);
      for (const method of [a, b]) {
        const value = method.values[k][state.clip];
        const cell = element("td", "num", number(value, k));
        if (value === null) cell.append(" ", element("span", "reason", reason(method, state.clip, k)));
        row.append(cell);
      }
      body.append(row);
    });
    return table;
  };

  const open = () => {
    if (state.clip === null) {
      if (!panel.root.hidden) panel.close();
      return;
    }
    const [a, b] = [data.methods[state.a], data.methods[state.b]];
    const [key, name, real] = data.clips[state.clip];
    const link = (method, side) => {
      const made = element("a", "", `all of ${side} (${method.name})`);
      made.href = `${method.href}#clip-${key}`;
      return made;
    };
    panel.show({
      title: name,
      about: [link(a, "A"), " ", link(b, "B")],
      sides: ["real", `A · ${a.name}`, `B · ${b.name}`],
      files: [real, a.files[state.clip], b.files[state.clip]],
      strips: [],
      curves: [],
      values: values(a, b),
      notes: [],
    });
    panel.focus();
  };

  const change = (changes) => { location.hash = address(changes); };
  window.addEventListener("hashchange", () => { read(); draw(); open(); });
  pickA.addEventListener("change", () => change({ a: Number(pickA.value) }));
  pickB.addEventListener("change", () => change({ b: Number(pickB.value) }));
  pickMetric.addEventListener("change", () => change({ metric: Number(pickMetric.value) }));
  at("swap").addEventListener("click", () => change({ a: state.b, b: state.a }));
  at("order").addEventListener("change", draw);
  at("filter").addEventListener("input", narrow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".compared a");
    if (!link) return;
    opener = link;
    const hash = link.getAttribute("href");
    if (hash === location.hash) open();
  });
  const close = () => {
    change({ clip: null });
    if (opener && opener.isConnected) opener.focus();
    else pickMetric.focus();
  };
  const step = (by) => {
    const shown = pairs.filter((pair, k) => !at("bars").children[k].hidden);
    const here = shown.findIndex((pair) => pair.k === state.clip);
    const next = shown[here + by];
    if (next) change({ clip: next.k });
  };
  const acts = { previous: () => step(-1), next: () => step(1), close };
  for (const [name, act] of Object.entries(acts)) panel.find(`[data-do=${name}]`).addEventListener("click", act);
  panel.root.addEventListener("keydown", (event) => { if (event.key === "Escape") close(); });

  document.querySelector(".pickers").hidden = false;
  read();
  draw();
  open();
})();
