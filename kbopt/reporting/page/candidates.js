// The candidates of one run: filters, the tree, the table, and the window of one candidate.

const PAGE = 100;

function candidatesSection(run) {
  const state = { hidden: new Set(), hiddenStates: new Set(), query: "", view: "speedup", sort: "speedup", shown: PAGE };
  const filters = el("div", { class: "row", role: "group", "aria-label": "Filter by outcome" });
  const tableHolder = el("div", {});
  const matches = (row) =>
    !state.hidden.has(row.status) && !state.hiddenStates.has(row.state) &&
    (state.query === "" || `${row.id} ${row.proposer} ${row.strategy} ${row.note}`.toLowerCase().includes(state.query));
  const tree = chart("tree", "Candidates; the table below lists the same", 430,
    () => treeFigure(run, run.rows.filter(matches), state.view), { onclick: (id) => openCandidate(run, id) });

  const fillTable = () => {
    const orders = {
      speedup: (a, b) => (b.speedup ?? -1) - (a.speedup ?? -1) || a.index - b.index,
      newest: (a, b) => b.index - a.index,
      oldest: (a, b) => a.index - b.index,
    };
    const rows = run.rows.filter(matches).sort(orders[state.sort]);
    const more = rows.length > state.shown
      ? el("button", { type: "button", onclick: () => { state.shown += 5 * PAGE; fillTable(); } }, "show more")
      : null;
    tableHolder.replaceChildren(
      candidateTable(run, rows.slice(0, state.shown)),
      el("p", { class: "dim small", id: "candidate-count" },
        `${count(Math.min(rows.length, state.shown))} of ${count(rows.length)} that match; ${count(run.rows.length)} on this page. `, more),
    );
  };
  const fillFilters = () => {
    const counts = Map.groupBy ? Map.groupBy(run.rows, (row) => row.status) : groupByStatus(run.rows);
    filters.replaceChildren(...Object.keys(STATUSES).filter((status) => counts.has(status)).map((status) =>
      el("label", { class: "filter" },
        el("input", { type: "checkbox", name: status, checked: !state.hidden.has(status), onchange: (event) => {
          state.hidden[event.target.checked ? "delete" : "add"](status);
          fillTable();
          draw(tree);
        } }),
        badge(status), el("span", { class: "dim" }, count(counts.get(status).length)))),
      ...Object.keys(STATE_CLASSES).filter((name) => run.rows.some((row) => row.state === name) && STATE_CLASSES[name]).map((name) =>
        el("label", { class: "filter" },
          el("input", { type: "checkbox", name, checked: !state.hiddenStates.has(name), onchange: (event) => {
            state.hiddenStates[event.target.checked ? "delete" : "add"](name);
            fillTable();
            draw(tree);
          } }),
          claim(name), el("span", { class: "dim" }, count(run.rows.filter((row) => row.state === name).length)))));
  };
  const search = el("input", { type: "search", placeholder: "id, proposer or note", "aria-label": "Search", oninput: (event) => {
    state.query = event.target.value.toLowerCase();
    fillTable();
    draw(tree);
  } });
  run.refreshers.push(() => {
    const restore = readersPlace(tableHolder);
    fillFilters();
    fillTable();
    restore(tableHolder);
  });
  fillFilters();
  fillTable();
  const left = run.left_out.candidates;
  return section("candidates", "Candidates",
    left ? el("p", { class: "notice" }, `${count(left)} of ${count(left + run.rows.length)} candidates are left out of this page: it keeps the fastest, the best one's ancestors and the newest. The figures above count all of them; the journal holds all of them.`) : null,
    filters,
    el("div", { class: "row" },
      choice("chart:", [["speedup", "speedup by proposal"], ["generation", "family tree"]], state.view, (view) => { state.view = view; draw(tree); }),
      choice("table:", [["speedup", "fastest first"], ["newest", "newest first"], ["oldest", "oldest first"]], state.sort, (sort) => { state.sort = sort; fillTable(); }),
      search),
    tree,
    el("p", { class: "dim small" }, "Lines lead from parent to child; the heavy line is the best kernel's ancestry. Click a point, or an id in the table, for its source, diff, feedback and log."),
    tableHolder);
}

function groupByStatus(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(row.status, [...(groups.get(row.status) ?? []), row]);
  return groups;
}

function candidateTable(run, rows) {
  const best = run.summary.best?.candidate;
  return table([
    ["candidate", (row) => idButton(run, row.id)],
    ["outcome", (row) => badge(row.status)],
    ["speedup", (row) => [claim(row.state), " ", times(row.speedup)], true],
    ["95 % CI", (row) => interval(row.ci), true, true],
    ["parent", (row) => (row.parent ? idButton(run, row.parent) : "–"), false, true],
    ["proposer", (row) => row.proposer, false, true],
    ["stale", (row) => (row.staleness === null ? "–" : count(row.staleness)), true, true],
    ["note", (row) => noteText(row.note)],
  ], rows, { rowClass: (row) => (row.id === best ? "best" : "") });
}

const idButton = (run, id) => el("button", { type: "button", class: "link", onclick: () => openCandidate(run, id) }, id);

const ancestry = (run, byId) => {
  const line = [];
  for (let row = byId.get(run.summary.best?.candidate); row && !line.includes(row); row = byId.get(row.parent)) line.push(row);
  return line;
};

function treeFigure(run, rows, view) {
  const byId = new Map(rows.map((row) => [row.id, row]));
  const place = view === "speedup"
    ? (row) => [row.index + 1, row.speedup]
    : (row) => [run.tree[row.id][0], -run.tree[row.id][1]];
  const placed = (row) => view !== "speedup" || row.speedup !== null;
  const edges = { x: [], y: [] };
  for (const row of rows) {
    const parent = byId.get(row.parent);
    if (!parent || !placed(row) || !placed(parent)) continue;
    const [[x0, y0], [x1, y1]] = [place(parent), place(row)];
    edges.x.push(x0, x1, null);
    edges.y.push(y0, y1, null);
  }
  const line = ancestry(run, byId).filter(placed).map(place);
  const top = Math.max(1e-9, ...rows.map((row) => row.speedup ?? 0));
  const traces = [
    { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, opacity: 0.35, line: { color: css("--dim"), width: 1 }, ...edges },
    { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { color: css("--accent"), width: 2.5 },
      x: line.map(([x]) => x), y: line.map(([, y]) => y) },
  ];
  for (const [status, group] of groupByStatus(rows)) {
    for (const inStrip of view === "speedup" ? [false, true] : [false]) {
      const members = view === "speedup" ? group.filter((row) => (row.speedup === null) === inStrip) : group;
      if (!members.length) continue;
      traces.push({
        type: "scatter", mode: "markers", name: STATUSES[status].label, showlegend: false,
        x: members.map((row) => place(row)[0]),
        y: inStrip ? members.map(() => STATUSES[status][innerWidth < 520 ? "mark" : "label"]) : members.map((row) => place(row)[1]),
        yaxis: inStrip ? "y2" : "y",
        customdata: members.map((row) => row.id),
        text: members.map((row) => `${safe(row.id)} · ${STATUSES[status].label}<br>${row.speedup === null ? "" : `${times(row.speedup)} [${interval(row.ci)}]<br>`}${safe(row.proposer)}`),
        hovertemplate: "%{text}<extra></extra>",
        marker: { color: color(status), symbol: STATUSES[status].symbol, line: { width: inStrip || status === "dropped" ? 1 : 0.5, color: css("--card") },
          size: members.map((row) => (row.speedup === null ? 7 : 6 + 9 * Math.sqrt(row.speedup / top))) },
      });
    }
  }
  const strip = rows.some((row) => row.speedup === null);
  const layout = view === "speedup"
    ? { xaxis: { title: { text: "proposal" }, anchor: strip ? "y2" : "y" },
        yaxis: { title: { text: "speedup" }, ...SPEEDUP_AXIS, domain: [strip ? 0.3 : 0, 1] },
        yaxis2: { domain: [0, 0.24], type: "category", showgrid: false, tickfont: { size: 10 } },
        shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: css("--dim"), width: 1, dash: "dot" } }] }
    : { xaxis: { visible: false }, yaxis: { title: { text: "generation" }, tickmode: "array", zeroline: false,
          tickvals: generations(run), ticktext: generations(run).map((value) => String(-value)) } };
  return [traces, { ...layout, showlegend: false, hovermode: "closest", uirevision: view }];
}

function generations(run) {
  const deepest = Math.max(0, ...Object.values(run.tree).map(([, depth]) => depth));
  const step = Math.max(1, Math.ceil(deepest / 12));
  return Array.from({ length: Math.floor(deepest / step) + 1 }, (_, i) => -i * step);
}

async function detailOf(run, id) {
  if (run.details?.[id]) return run.details[id];
  if (!run.live) return null;
  const answer = await fetch(`candidate/${encodeURIComponent(id)}`);
  return answer.ok ? answer.json() : null;
}

async function openCandidate(run, id) {
  const dialog = document.getElementById("candidate");
  const row = run.rows.find((one) => one.id === id);
  const detail = await detailOf(run, id);
  const position = run.rows.indexOf(row);
  const step = (offset) => {
    const next = run.rows[position + offset];
    return el("button", { type: "button", disabled: !next, onclick: () => openCandidate(run, next.id) }, offset < 0 ? "← previous" : "next →");
  };
  const header = el("header", {},
    el("h2", { id: "candidate-title" }, `Candidate ${id}`),
    row ? step(-1) : null, row ? step(1) : null,
    el("button", { type: "button", onclick: () => dialog.close() }, "close"));
  dialog.replaceChildren(header, ...(row && detail ? candidateBody(run, row, detail) : [
    el("p", {}, "This candidate is left out of this page; its source stands in the journal. `kbopt show` prints it.")]));
  dialog.onkeydown = (event) => {
    const next = run.rows[position + ({ ArrowRight: 1, ArrowLeft: -1 }[event.key] ?? NaN)];
    if (next && row && event.target.tagName !== "PRE") openCandidate(run, next.id);
  };
  if (!dialog.open) dialog.showModal();
}

function candidateBody(run, row, detail) {
  const children = run.rows.filter((one) => one.parent === row.id).slice(0, 40);
  const facts = [
    ["outcome", [badge(row.status), row.neighbour ? [" near ", idButton(run, row.neighbour)] : []].flat()],
    ["speedup", row.speedup === null ? ["–"] : [claim(row.state), ` ${times(row.speedup)}, 95 % CI ${interval(row.ci)}, ${plural(row.measurements, "measurement")}`]],
    ["parent", [row.parent ? idButton(run, row.parent) : "none: it starts a line"]],
    ["children", children.length ? children.flatMap((child) => [idButton(run, child.id), " "]) : ["–"]],
    ["written by", [`${row.proposer}, ${row.action === "refine" ? "refining tunables" : "a new proposal"}`]],
    ...(row.strategy ? [["strategy", [row.strategy]]] : []),
    ...(detail.profiles.length ? [["profiled", detail.profiles.flatMap((told) => [el("bdi", {}, ...shown(told)), el("br")])]] : []),
    ["note", detail.note ? [noteText(detail.note)] : ["–"]],
    ["tunables", [detail.tunables.map(([name, value]) => `${name} = ${value}`).join(", ") || "–"]],
  ];
  const pages = [
    ["Source", () => code(detail.source)],
    ["Diff to parent", () => (detail.diff === null ? el("p", { class: "dim" }, row.parent ? "The parent's source is left out of this page." : "It has no parent.") : diffBlock(detail.diff))],
    ["Feedback", () => (detail.feedback ? plain(detail.feedback) : el("p", { class: "dim" }, "None."))],
    ["Compiler log", () => (detail.log ? plain(detail.log) : el("p", { class: "dim" }, "Empty."))],
    ["Prompt and answer", () => (detail.transcript ? plain(detail.transcript)
      : el("p", { class: "dim" }, detail.transcript_left_out ? "Left out of this page to keep it small; it stands in the run's folder." : "No language model wrote this candidate, or its conversation was not kept."))],
    ["Measurements", () => measurementTable(detail.results)],
  ];
  return [
    el("table", {}, el("tbody", {}, facts.map(([name, cells]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, cells))))),
    el("div", { style: "height: .8rem" }),
    tabs("Parts of the candidate", pages),
  ];
}

function measurementTable(results) {
  return table([
    ["outcome", (result) => badge(OUTCOMES[result.outcome.type])],
    ["speedup", (result) => times(result.outcome.speedup), true],
    ["candidate's clock", (result) => (result.outcome.native_ms ? ms(result.outcome.native_ms) : "–"), true],
    ["referee's clock", (result) => (result.outcome.wall_ms ? ms(result.outcome.wall_ms) : "–"), true],
    ["reason", (result) => el("bdi", {}, ...shown(result.outcome.reason ?? ""))],
    ["queue, compile, check, time", (result) => ["queue", "compile", "check", "time"].map((stage) => `${result.seconds[stage].toFixed(2)} s`).join(", ")],
    ["device", (result) => result.device],
    ["protocol", (result) => result.protocol],
  ], results);
}

const OUTCOMES = { Measured: "measured", WrongAnswer: "wrong_answer", CompileFailed: "compile_failed", Crashed: "crashed", TimedOut: "timed_out", Rejected: "rejected" };
