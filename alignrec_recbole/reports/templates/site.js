// Sorting, filters, rows that open on narrow screens, and copying of commands. Without this script
// every table is shown whole.
"use strict";
document.documentElement.classList.add("js");

const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

// A column's header sorts the rows of each group; rows without a value come last both ways.
const sortable = (table) => {
  const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
  heads.forEach((head, column) => {
    const button = make("button", "", { type: "button" });
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const bodies = [...table.tBodies];
      const numeric = bodies.some((body) => [...body.rows].some((row) => row.cells[column].dataset.value));
      const first = numeric ? "descending" : "ascending";
      const second = numeric ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const key = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        if (!numeric) return sign * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
        if (key(a) === undefined || key(b) === undefined) return (key(a) === undefined) - (key(b) === undefined);
        return sign * (Number(key(a)) - Number(key(b)));
      };
      bodies.forEach((body) => body.append(...[...body.rows].sort(compare)));
    });
  });
};

// On a narrow screen a row shows its name and main value; its button opens the rest.
const openable = (table) => {
  if (table.tHead.rows[0].cells.length < 3) return;
  for (const row of table.querySelectorAll("tbody tr")) {
    const name = row.cells[0].firstChild.textContent.trim();
    const button = make("button", "+", { type: "button", class: "more", "aria-expanded": "false", "aria-label": `All values of ${name}` });
    button.addEventListener("click", () => {
      const open = row.classList.toggle("open");
      button.textContent = open ? "−" : "+";
      button.setAttribute("aria-expanded", String(open));
    });
    const cell = [...row.cells].at(-1);
    (row.querySelector("td.main") ?? cell).after(button);
  }
};

// Text and chips choose rows; variants and controls are shown when asked for.
const filters = (main) => {
  const rows = [...main.querySelectorAll("tbody tr")];
  if (rows.length < 2) return;
  const chosen = { model: new Set(), features: new Set(), section: new Set() };
  const kinds = new Set();
  const box = make("details", "", { class: "filters" });
  box.open = innerWidth > 640;
  box.append(make("summary", "Filters"));
  const label = make("label", "Rows with the text ");
  const input = make("input", "", { type: "search" });
  const count = make("p", "", { class: "soft", role: "status" });
  label.append(input);
  box.append(label);
  const apply = () => {
    const text = input.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const { kind, model, features } = row.dataset;
      const optional = kind === "variant" || kind === "control";
      const hidden = (optional && !kinds.has(kind) && !chosen.features.has(features))
        || (chosen.model.size > 0 && !chosen.model.has(model))
        || (chosen.features.size > 0 && !chosen.features.has(features))
        || (text !== "" && !row.textContent.toLowerCase().includes(text));
      row.hidden = hidden;
      shown += !hidden;
    }
    for (const section of main.querySelectorAll("[data-section]")) {
      section.hidden = chosen.section.size > 0 && !chosen.section.has(section.dataset.section);
    }
    count.textContent = `${shown} of ${rows.length} rows`;
  };
  const chip = (parent, name, set, value) => {
    const button = make("button", name, { type: "button", "aria-pressed": "false" });
    button.addEventListener("click", () => {
      const on = !set.has(value);
      if (on) set.add(value); else set.delete(value);
      button.setAttribute("aria-pressed", String(on));
      apply();
    });
    parent.append(button);
  };
  const group = (name, values, set, folded) => {
    if (values.length < 2 || values.length > 150) return;
    const chips = make("div", "", { class: "chips", role: "group", "aria-label": name });
    for (const value of values) chip(chips, value, set, value);
    if (folded) {
      const details = make("details", "");
      details.append(make("summary", name), chips);
      box.append(details);
    } else {
      chips.prepend(make("span", `${name}:`));
      box.append(chips);
    }
  };
  const distinct = (key) => [...new Set(rows.map((row) => row.dataset[key]).filter(Boolean))].sort();
  group("Protocols", [...main.querySelectorAll("[data-section]")].map((s) => s.dataset.section), chosen.section, false);
  group("Features", distinct("features"), chosen.features, distinct("features").length > 6);
  group("Models", distinct("model"), chosen.model, true);
  const asked = ["variant", "control"].filter((kind) => rows.some((row) => row.dataset.kind === kind));
  if (asked.length) {
    const chips = make("div", "", { class: "chips", role: "group", "aria-label": "More rows" });
    chips.append(make("span", "Also show:"));
    for (const kind of asked) chip(chips, `${kind}s`, kinds, kind);
    box.append(chips);
  }
  box.append(count);
  input.addEventListener("input", apply);
  main.prepend(box);
  apply();
};

const copyable = (block) => {
  const button = make("button", "Copy", { type: "button", class: "button" });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(block.textContent);
      button.textContent = "Copied";
    } catch {  // not allowed here: the text is selected to be copied by hand
      getSelection().selectAllChildren(block);
      button.textContent = "Selected";
    }
  });
  block.nextElementSibling.prepend(button);
};

document.querySelectorAll("table").forEach((table) => { openable(table); sortable(table); });
document.querySelectorAll("main[data-filters]").forEach(filters);
document.querySelectorAll("pre.command").forEach(copyable);
