(() => {
  "use strict";

  // Sortable tables. Missing values stay last in both directions.
  const sortKey = (row, column, numeric) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent.trim();
    return numeric && text !== "" ? Number(text) : text;
  };

  const sortRows = (table, column, numeric, descending) => {
    const keyed = [...table.tBodies[0].rows].map((row) => [sortKey(row, column, numeric), row]);
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = numeric ? a - b : a.localeCompare(b, undefined, { numeric: true });
      return descending ? -order : order;
    });
    for (const [, row] of keyed) {
      row.parentNode.append(row);
      const detail = row.dataset.detail && document.getElementById(row.dataset.detail);
      if (detail) detail.parentNode.append(detail);
    }
  };

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const descending = header.getAttribute("aria-sort") === "ascending";
        for (const other of headers) other.setAttribute("aria-sort", "none");
        header.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sortRows(table, column, header.dataset.type === "number", descending);
      });
    });
  }

  // Filter by any visible text of a row; its drill-down follows.
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
    const output = document.querySelector(`output[data-count="${input.dataset.filter}"]`);
    const apply = () => {
      const wanted = input.value.trim().toLowerCase();
      let shown = 0;
      for (const row of rows) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
        document.getElementById(row.dataset.detail).hidden = row.hidden;
        shown += row.hidden ? 0 : 1;
      }
      output.textContent = wanted ? `${shown} of ${rows.length}` : "";
    };
    input.closest("[hidden]").hidden = false;
    input.addEventListener("input", apply);
  }

  // A link to a clip opens its drill-down and hands the keyboard over to it.
  const reveal = (hash) => {
    const target = document.getElementById(hash.slice(1));
    const details = target && target.closest("details.clip");
    if (!details) return;
    details.open = true;
    details.querySelector("summary").focus({ preventScroll: true });
    details.scrollIntoView({ block: "start" });
  };
  for (const link of document.querySelectorAll('a[href^="#clip-"]')) {
    link.addEventListener("click", () => setTimeout(() => reveal(link.hash)));
  }
  if (location.hash.startsWith("#clip-")) reveal(location.hash);

  // A text goes to the clipboard; where the page may not write there, it is left selected.
  const copyButton = (label, text, place, selected) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = label;
    button.addEventListener("click", () => {
      const say = (word) => {
        button.textContent = word;
        setTimeout(() => { button.textContent = label; }, 1500);
      };
      const select = () => {
        for (let outer = selected.closest("details"); outer; outer = outer.parentElement.closest("details")) outer.open = true;
        getSelection().selectAllChildren(selected);
        say("selected");
      };
      if (navigator.clipboard) navigator.clipboard.writeText(text).then(() => say("copied"), select);
      else select();
    });
    place.after(button);
    return button;
  };

  for (const code of document.querySelectorAll("code[data-copy]")) {
    copyButton("copy", code.dataset.copy, code, code).setAttribute("aria-label", `copy ${code.dataset.copy}`);
  }
  for (const pre of document.querySelectorAll("pre[data-copy-text]")) {
    const button = copyButton("copy as LaTeX", pre.textContent, pre.closest("details"), pre);
    button.setAttribute("aria-label", `copy ${pre.dataset.copyText} as LaTeX`);
  }

  // Methods by name, metrics by family: what is not asked for leaves all tables.
  for (const input of document.querySelectorAll("input[data-filter-methods]")) {
    const rows = [...document.querySelectorAll("tr[data-method]")];
    const output = document.querySelector("output[data-count-methods]");
    const name = (row) => row.cells[0].textContent.trim();
    const apply = () => {
      const wanted = input.value.trim().toLowerCase();
      for (const row of rows) row.hidden = !name(row).toLowerCase().includes(wanted);
      // Between two rows stands what is known of their difference: it needs both.
      for (const step of document.querySelectorAll("tr.step")) {
        step.hidden = step.previousElementSibling.hidden || step.nextElementSibling.hidden;
      }
      const shown = new Set(rows.filter((row) => !row.hidden).map(name));
      output.textContent = wanted ? `${shown.size} of ${new Set(rows.map(name)).size}` : "";
    };
    input.closest("[hidden]").hidden = false;
    input.addEventListener("input", apply);
  }
  for (const box of document.querySelectorAll("input[data-choose]")) {
    box.addEventListener("change", () => {
      for (const part of document.querySelectorAll("[data-family]")) {
        if (part.dataset.family === box.dataset.choose) part.hidden = !box.checked;
      }
    });
  }

  // Dark or light against the system's choice, kept for the next page where the browser keeps anything. The rules for
  // dark systems are told to hold always or never.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const darkRules = [...document.styleSheets]
    .flatMap((sheet) => [...sheet.cssRules])
    .filter((rule) => rule instanceof CSSMediaRule && rule.media.mediaText === dark.media);
  const kept = (write) => {
    try { return write ? localStorage.setItem("colours", write) : localStorage.getItem("colours"); } catch { return null; }
  };
  let colours = dark.matches ? "dark" : "light";
  const paint = (wanted) => {
    colours = wanted;
    for (const rule of darkRules) rule.media.mediaText = wanted === "dark" ? "all" : "not all";
    document.documentElement.style.colorScheme = wanted;
  };
  if (["dark", "light"].includes(kept())) paint(kept());
  for (const header of document.querySelectorAll("header[data-colour-choice]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "theme";
    const tell = () => { button.textContent = colours === "dark" ? "light colours" : "dark colours"; };
    button.addEventListener("click", () => {
      paint(colours === "dark" ? "light" : "dark");
      kept(colours);
      tell();
    });
    tell();
    header.prepend(button);
  }
})();
