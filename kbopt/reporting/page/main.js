// Puts the page together, switches between runs and themes, and follows a live run.

const NAV = [["overview", "overview"], ["best", "best kernel"], ["progress", "progress"], ["candidates", "candidates"], ["timeline", "time line"],
  ["outcomes", "outcomes"], ["tunables", "tunables"], ["cost", "cost"], ["rejections", "search"], ["configuration", "configuration"]];
const COMPARISON_NAV = [["comparison", "groups"], ["efficiency", "best so far"], ["fastp", "fast_p"], ["tasks", "tasks"], ["runs", "runs"]];

function showPage(page) {
  const main = document.getElementById("main");
  const picker = document.getElementById("run-picker");
  const show = (index) => {
    picker.value = String(index);
    if (index < 0) {
      fillNav(COMPARISON_NAV);
      main.replaceChildren(...comparisonSections(page, show));
    } else {
      fillNav(NAV);
      main.replaceChildren(...runSections(page.runs[index]));
    }
    redraw();
    window.scrollTo(0, 0);
  };
  if (page.runs.length > 1) {
    document.getElementById("picker").hidden = false;
    picker.append(el("option", { value: "-1" }, "all: comparison"));
    page.runs.forEach((run, index) => picker.append(el("option", { value: String(index) }, run.name)));
    picker.addEventListener("change", () => show(Number(picker.value)));
  }
  show(page.comparison ? -1 : 0);
}

// `work`, done soon after each call, but at most a twentieth of the time or every `longest` ms: the browser may run
// on the machine that is being measured. A page that nobody sees is not drawn.
function paced(work, longest) {
  let [due, notBefore] = [null, 0];
  const run = () => {
    const began = performance.now();
    work();
    due = null;
    notBefore = performance.now() + Math.min(longest, 20 * (performance.now() - began));
  };
  const soon = () => {
    if (due === null && !document.hidden) due = setTimeout(run, Math.max(0, notBefore - performance.now()));
  };
  document.addEventListener("visibilitychange", soon);
  return soon;
}

function follow(run) {
  const refreshSoon = paced(() => { for (const refresh of run.refreshers) refresh(); }, 1500);
  const redrawSoon = paced(redraw, 10000);
  const state = document.getElementById("live-state");
  const say = (good, text) => { state.className = good ? "live-on" : "live-off"; state.textContent = text; };
  const source = new EventSource(`events?after=${run.entries}`);
  source.addEventListener("open", () => say(true, "live"));
  source.addEventListener("error", () => say(false, "connection lost, trying again"));
  source.addEventListener("gone", () => { source.close(); say(false, "the run is gone"); });
  source.addEventListener("update", (event) => {
    const update = JSON.parse(event.data);
    const byId = new Map(run.rows.map((row) => [row.id, row]));
    for (const row of update.rows) {
      byId.set(row.id, row);
      delete run.details?.[row.id];
    }
    Object.assign(run, update, { rows: [...byId.values()].sort((a, b) => a.index - b.index) });
    refreshSoon();
    redrawSoon();
    say(true, run.summary.ended ? "ended" : `live, entry ${count(run.entries)}`);
  });
}

async function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.getElementById("theme").addEventListener("click", () => {
    setTheme(theme() === "dark" ? "light" : "dark");
    for (const refresh of page.runs.flatMap((run) => run.refreshers ?? [])) refresh();
    redraw();
  });
  const page = JSON.parse(await unpack("packed-data"));
  for (const run of page.runs) run.live = page.live;
  showPage(page);
  document.documentElement.dataset.ready = "data";
  performance.mark("data");
  if (page.live) follow(page.runs[0]);
  await loadPlotly();
  document.documentElement.dataset.ready = "charts";
  performance.mark("charts");
}

start();
