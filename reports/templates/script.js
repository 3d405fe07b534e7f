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

  // Copy buttons for abbreviated digests.
  for (const code of document.querySelectorAll("code[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "copy";
    button.setAttribute("aria-label", `copy ${code.dataset.copy}`);
    button.addEventListener("click", () => {
      const done = () => {
        button.textContent = "copied";
        setTimeout(() => { button.textContent = "copy"; }, 1500);
      };
      // Where the page may not write to the clipboard, the digest is left selected.
      const select = () => getSelection().selectAllChildren(code);
      if (navigator.clipboard) navigator.clipboard.writeText(code.dataset.copy).then(done, select);
      else select();
    });
    code.after(button);
  }
})();
