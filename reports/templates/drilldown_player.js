// What both drill-down pages share beside the playing: strips and curves with a cursor, the panel that holds them.
// Text reaches the page as text nodes alone.
const TalkForge = (() => {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";

  const element = (tag, className, text) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  };

  const drawn = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const data = JSON.parse(document.getElementById("data").textContent);
  const letters = new Map([...data.alphabet].map((letter, place) => [letter, place / (data.alphabet.length - 1)]));
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

  // A chart: real and generated lines over time, a cursor that a style variable moves.
  const path = (line, seconds) => {
    const parts = [];
    let open = false;
    [...line.data].forEach((letter, k) => {
      if (letter === " ") {
        if (open && line.kind === "area") parts.push(`V100Z`);
        open = false;
        return;
      }
      const x = (1000 * k / line.fps / seconds).toFixed(1);
      const y = (100 - 100 * letters.get(letter)).toFixed(1);
      if (!open) parts.push(line.kind === "area" ? `M${x} 100L${x} ${y}` : `M${x} ${y}h0`);
      else parts.push(`L${x} ${y}`);
      open = true;
    });
    if (open && line.kind === "area") parts.push("V100Z");
    return parts.join("");
  };

  const ticks = (seconds) => {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300].find((each) => seconds / each <= 8) ?? 600;
    return Array.from({ length: Math.floor(seconds / step + 1e-6) + 1 }, (_, k) => {
      const label = element("span", "time-tick", `${Number((k * step).toFixed(1))} s`);
      label.style.left = `${100 * k * step / seconds}%`;
      if (k * step / seconds > 0.96) label.classList.add("last");
      return label;
    });
  };

  const chart = (group, seconds, seek) => {
    const figure = element("figure", `curve curve-${group.kind}`);
    const caption = element("figcaption", "", "");
    caption.append(element("span", "curve-title", group.title));
    const box = element("div", "curve-box");
    const picture = drawn("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img" });
    const legend = element("ul", "legend");
    const counts = { area: 0, line: 0 };
    const ordered = [...group.lines].sort((a, b) => (b.kind === "area") - (a.kind === "area"));
    for (const line of ordered) {
      const style = `${line.kind}${counts[line.kind]++}`;
      picture.append(drawn("path", { class: style, d: path(line, seconds), "vector-effect": "non-scaling-stroke" }));
      const item = element("li");
      const key = drawn("svg", { class: "key", width: 22, height: 10, "aria-hidden": "true" });
      key.append(line.kind === "area" ? drawn("rect", { class: style, width: 22, height: 10 }) : drawn("line", { class: style, x1: 0, x2: 22, y1: 5, y2: 5 }));
      item.append(key, " ", element("span", "", line.name), " ", element("span", "muted", line.range));
      legend.append(item);
    }
    const said = ordered.map((line) => `${line.name} ${line.range}`).join("; ");
    picture.setAttribute("aria-label", `${group.title} over ${seconds.toFixed(1)} s: ${said}`);
    box.append(picture, element("span", "cursor"));
    if (group.kind === "sync") box.append(...ticks(seconds));
    box.addEventListener("pointerdown", (event) => {
      const place = box.getBoundingClientRect();
      seek(seconds * (event.clientX - place.left) / place.width);
    });
    caption.append(legend);
    figure.append(caption, box);
    return figure;
  };

  const length = (groups) => Math.max(0.04, ...groups.flatMap((group) => group.lines.map((line) => line.data.length / line.fps)));

  const apart = (group) => {
    if (group.lines.length < 2) return 0;
    const [a, b] = group.lines;
    let sum = 0;
    const count = Math.min(a.data.length, b.data.length);
    for (let k = 0; k < count; k++) sum += Math.abs((letters.get(a.data[k]) ?? 0) - (letters.get(b.data[k]) ?? 0));
    return sum / Math.max(1, count);
  };

  // The panel. `show(clip)`: {title, about, sides, files, strips, curves, values, notes}, `values` a finished element.
  class Panel {
    constructor(root, fps) {
      this.root = root;
      this.find = (selector) => root.querySelector(selector);
      this.screens = [...root.querySelectorAll(".screen")];
      this.videos = this.screens.map((screen) => screen.querySelector("video"));
      this.range = this.find("input[type=range]");
      this.transport = new TalkForgeTransport(this.videos, fps, () => this.moved());
      this.seconds = 1;
      this.tiles = [];
      this.bind();
    }

    bind() {
      const transport = this.transport;
      const acts = {
        play: () => (transport.playing ? transport.halt() : transport.play()),
        back: () => this.step(-1),
        forth: () => this.step(1),
      };
      for (const button of this.root.querySelectorAll("[data-do]")) {
        const act = acts[button.dataset.do];
        if (act) button.addEventListener("click", act);
      }
      this.range.addEventListener("input", () => { transport.seek(Number(this.range.value)); });
      this.find("[data-set=speed]").addEventListener("change", (event) => transport.pace(Number(event.target.value)));
      this.find("[data-set=sound]").addEventListener("change", (event) => transport.hear(Number(event.target.value)));
      this.find("[data-set=loop]").addEventListener("change", (event) => { transport.repeat = event.target.checked; });
      this.root.addEventListener("keydown", (event) => this.key(event));
      this.videos.forEach((video, k) => {
        video.addEventListener("click", acts.play);
        video.addEventListener("unplayable", () => this.refuse(k, "this browser cannot play the file, or it is no longer there"));
      });
    }

    key(event) {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.target.closest("select, input[type=search]")) return;
      const steps = { ArrowLeft: -1, ArrowRight: 1 };
      if (event.key in steps) this.step(steps[event.key] * (event.shiftKey ? 10 : 1));
      else if (event.key === "Home") this.transport.seek(0);
      else if (event.key === "End") this.transport.seek(this.transport.frames - 1);
      else if (event.key === " " && !event.target.closest("button, a, input[type=checkbox], summary")) {
        if (this.transport.playing) this.transport.halt();
        else this.transport.play();
      } else return;
      event.preventDefault();
    }

    step(frames) { this.transport.seek(this.transport.frame + frames); }

    refuse(k, reason) {
      this.videos[k].hidden = true;
      this.screens[k].querySelector(".screen-reason").textContent = reason;
    }

    moved() {
      const transport = this.transport;
      const { frame, frames, at, playing } = transport;
      this.range.max = frames - 1;
      this.range.value = frame;
      const words = `${at.toFixed(2)} s, frame ${frame + 1} of ${frames}`;
      this.range.setAttribute("aria-valuetext", words);
      this.find(".clock").textContent = `${at.toFixed(2)} of ${transport.duration.toFixed(2)} s · frame ${frame + 1}/${frames}`;
      const play = this.find(".play");
      if (play.textContent !== (playing ? "Pause" : "Play")) play.textContent = playing ? "Pause" : "Play";
      if (!playing) this.find("output").textContent = words;
      this.root.style.setProperty("--at", clamp(at / this.seconds, 0, 1));
      for (const { seconds, mark } of this.tiles) {
        let now = 0;
        while (now + 1 < seconds.length && seconds[now + 1] <= at + 1e-6) now++;
        mark.style.left = `${100 * now / seconds.length}%`;
      }
    }

    show(clip) {
      this.find("#panel-title").textContent = clip.title;
      this.find("#panel-about").replaceChildren(...clip.about);
      this.screens.forEach((screen, k) => {
        const [href, reason, name] = clip.files[k];
        screen.querySelector(".side").textContent = clip.sides[k];
        screen.querySelector(".screen-name").textContent = name;
        screen.querySelector(".screen-reason").textContent = href ? "" : reason;
        this.videos[k].setAttribute("aria-label", `${clip.sides[k]}: ${name || clip.title}`);
      });
      [...this.find("[data-set=sound]").options].forEach((option, k) => { if (k < clip.sides.length) option.textContent = clip.sides[k]; });
      this.seconds = length(clip.curves);
      this.strips(clip);
      this.curves(clip.curves);
      this.find(".panel-values").replaceChildren(clip.values);
      this.find(".panel-notes").replaceChildren(...clip.notes.map((note) => element("li", "", note)));
      this.root.hidden = false;
      this.transport.load(clip.files.map(([href]) => href));
    }

    strips(clip) {
      this.tiles = [];
      const figures = clip.strips.map((strip, k) => {
        const figure = element("figure", "strip");
        figure.append(element("figcaption", "", clip.sides[k]));
        const [href, reason, name] = strip.file;
        if (href) figure.append(this.strip(href, strip.at, `Frames of ${clip.sides[k]} ${name}, left to right in time`));
        else figure.append(element("p", "note", `no frames: ${reason}`));
        return figure;
      });
      this.find(".panel-strips").replaceChildren(...figures);
    }

    strip(href, seconds, words) {
      const box = element("div", "strip-box");
      const picture = element("img");
      picture.src = href;
      picture.alt = words;
      const mark = element("span", "tile-mark");
      mark.style.width = `${100 / seconds.length}%`;
      box.append(picture, mark);
      box.addEventListener("pointerdown", (event) => {
        const place = box.getBoundingClientRect();
        const tile = clamp(Math.floor(seconds.length * (event.clientX - place.left) / place.width), 0, seconds.length - 1);
        this.transport.seek(Math.round(seconds[tile] * this.transport.fps));
      });
      this.tiles.push({ seconds, mark });
      return box;
    }

    curves(groups) {
      const seek = (second) => this.transport.seek(Math.floor(second * this.transport.fps));
      const build = (group) => chart(group, this.seconds, seek);
      const sync = groups.filter((group) => group.kind === "sync" && group.lines.length).map(build);
      const units = groups.filter((group) => group.kind === "unit" && group.lines.length);
      units.sort((a, b) => apart(b) - apart(a));
      const parts = [...sync];
      if (units.length) {
        const head = element("h3", "", "Action units");
        const first = element("div", "units");
        first.append(...units.slice(0, 6).map(build));
        parts.push(head, element("p", "note", "Those first in which both videos differ most."), first);
      }
      if (units.length > 6) {
        const more = element("details", "more");
        const rest = element("div", "units");
        more.append(element("summary", "", `${units.length - 6} more action units`), rest);
        more.addEventListener("toggle", () => { if (!rest.firstChild) rest.append(...units.slice(6).map(build)); });
        parts.push(more);
      }
      this.find(".panel-curves").replaceChildren(...parts);
    }

    focus() {
      const title = this.find("#panel-title");
      title.focus({ preventScroll: true });
      this.root.scrollIntoView({ block: "start" });
    }

    close() {
      this.transport.load(this.videos.map(() => null));
      this.root.hidden = true;
    }
  }

  return { data, element, drawn, clamp, Panel };
})();
