"use strict";

// Without this script every candidate, text and row is shown; with it, what was chosen.
const AT_FIRST = 6;

function tabs(list, changed) {
  const buttons = [...list.querySelectorAll("[role=tab]")];
  const panels = buttons.map((button) => document.getElementById(button.getAttribute("aria-controls")));
  panels[0].parentElement.classList.add("tabbed");
  panels.forEach((panel, i) => {
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", buttons[i].id);
    panel.removeAttribute("aria-label");
  });
  function choose(chosen) {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === chosen));
      button.tabIndex = i === chosen ? 0 : -1;
      panels[i].hidden = i !== chosen;
    });
    changed();
  }
  list.addEventListener("click", (event) => {
    const chosen = buttons.indexOf(event.target.closest("[role=tab]"));
    if (chosen >= 0) choose(chosen);
  });
  list.addEventListener("keydown", (event) => {
    const now = buttons.indexOf(document.activeElement);
    const last = buttons.length - 1;
    const to = { ArrowRight: now === last ? 0 : now + 1, ArrowLeft: now === 0 ? last : now - 1, Home: 0, End: last };
    if (now < 0 || !(event.key in to)) return;
    event.preventDefault();
    choose(to[event.key]);
    buttons[to[event.key]].focus();
  });
  list.hidden = false;
  choose(0);
}

function texts(section) {
  const select = section.querySelector(".by-attribute");
  const count = section.querySelector(".count");
  const whole = new Set(); // lists shown in full
  function show() {
    const chosen = select ? select.value : "";
    for (const view of section.querySelectorAll(".view")) {
      const all = [...view.querySelectorAll(".pair")];
      const fits = all.filter((pair) => !chosen || pair.dataset.attributes.split(" ").includes(chosen));
      const most = whole.has(view) ? fits.length : AT_FIRST;
      const shown = new Set(fits.slice(0, most));
      for (const pair of all) {
        pair.hidden = !shown.has(pair);
        for (const chip of pair.querySelectorAll("[data-attribute]")) {
          chip.hidden = Boolean(chosen) && chip.dataset.attribute !== chosen;
        }
      }
      const more = view.querySelector(".more");
      more.hidden = fits.length <= most;
      more.textContent = `Show all ${fits.length}`;
      if (!view.hidden) {
        count.textContent = fits.length ? `${shown.size} of ${all.length} texts` : "none for this attribute";
      }
    }
  }
  for (const view of section.querySelectorAll(".view")) {
    view.querySelector(".more").addEventListener("click", () => {
      whole.add(view);
      show();
    });
  }
  if (select) select.addEventListener("change", show);
  section.querySelector(".controls").hidden = false;
  const list = section.querySelector("[role=tablist]");
  if (list) tabs(list, show);
  else show();
}

function labels(box) {
  const name = box.querySelector(".by-name");
  const role = box.querySelector(".by-role");
  const kind = box.querySelector(".by-kind");
  const rows = [...box.querySelectorAll("tbody tr")];
  const names = rows.map((row) => row.cells[0].textContent.toLowerCase());
  function show() {
    const part = name.value.trim().toLowerCase();
    let shown = 0;
    rows.forEach((row, i) => {
      const clear = row.dataset.kind === "better" || row.dataset.kind === "worse";
      row.hidden = !(names[i].includes(part) && (!role.value || row.dataset.role === role.value) && (!kind.checked || clear));
      shown += row.hidden ? 0 : 1;
    });
    box.querySelector(".count").textContent = `${shown} of ${rows.length} labels`;
  }
  for (const input of [name, role, kind]) input.addEventListener("input", show);
  box.querySelector(".controls").hidden = false;
  show();
}

for (const section of document.querySelectorAll(".texts")) texts(section);
for (const list of document.querySelectorAll(".tabs.candidates")) tabs(list, () => {});
for (const box of document.querySelectorAll(".filtered")) labels(box);
