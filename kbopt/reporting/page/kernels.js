// What pages of many kernels share: cards, and a dialog for each of `page.rows` with its source, feedback and command.

const text = (words) => el("bdi", {}, ...shown(words ?? ""));

function card(name, value, more, kind = "") {
  return el("div", { class: `card ${kind}` }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: "more" }, more));
}

function byKernelbench(row) {
  if (row.kernelbench === null) return "–";
  return row.kernelbench ? `correct${row.kernelbench_speedup ? `, ${times(row.kernelbench_speedup)}` : ""}` : "not correct";
}

const measured = (row) => (row.speedup === null ? "–" : el("span", {}, `${times(row.speedup)} `, el("span", { class: "ends" }, `[${interval(row.ci)}]`)));

// Why a kernel is not correct, below its row: in a column of its own it is squeezed.
const whyUnder = (reason) => (reason ? text(reason.split("\n")[0].slice(0, 200)) : null);

const nameButton = (page, index) => {
  const { name } = page.rows[index];
  // The label keeps the name in one word for who hears the page.
  return el("button", { type: "button", class: "link", "aria-label": name, onclick: () => openKernel(page, index) }, breakable(name));
};

function openKernel(page, index) {
  const dialog = document.getElementById("candidate");
  const row = page.rows[index];
  const step = (offset) => {
    const next = page.rows[index + offset];
    return el("button", { type: "button", disabled: !next, onclick: () => openKernel(page, next.index) }, offset < 0 ? "← previous" : "next →");
  };
  dialog.replaceChildren(
    el("header", {}, el("h2", { id: "candidate-title" }, text(row.name)), step(-1), step(1),
      el("button", { type: "button", onclick: () => dialog.close() }, "close")),
    factTable(page.facts(row)),
    el("div", { style: "height: .8rem" }),
    tabs("Parts of the kernel", [
      ["Source", () => (row.source.some(([, part]) => part) ? code(row.source) : el("p", { class: "dim" }, "There is none."))],
      ["Feedback", () => plain(row.feedback || row.reason || "None.")],
      ["Reproduce", () => (row.command ? plain(row.command) : el("p", { class: "dim" }, "It was not judged."))],
    ]));
  dialog.onkeydown = (event) => {
    const next = page.rows[index + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN)];
    if (next && event.target.tagName !== "PRE") openKernel(page, next.index);
  };
  if (!dialog.open) dialog.showModal();
}

// `sections` makes the page's content of its data, `facts` the lines of a row's dialog.
async function startPage(nav, sections, facts) {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => { setTheme(theme() === "dark" ? "light" : "dark"); show(); });
  const page = JSON.parse(await unpack("packed-data"));
  page.rows.forEach((row, index) => { row.index = index; });
  page.facts = (row) => facts(page, row);
  const show = () => { document.getElementById("main").replaceChildren(...sections(page)); redraw(); };
  fillNav(nav);
  show();
  document.documentElement.dataset.ready = "data";
  await loadPlotly();
  document.documentElement.dataset.ready = "charts";
}
