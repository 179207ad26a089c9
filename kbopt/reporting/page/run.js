// The sections of one run.

function runSections(run) {
  run.refreshers = [];
  // A section that is made anew when a live run moves on.
  const fresh = (make) => {
    let node = make();
    run.refreshers.push(() => {
      const [next, restore] = [make(), readersPlace(node)];
      node.replaceWith(next);
      restore(next);
      node = next;
    });
    return node;
  };
  return [
    fresh(() => overview(run)),
    bestSection(run),
    progressSection(run),
    candidatesSection(run),
    timelineSection(run),
    el("div", { class: "pair" },
      el("div", { class: "stack" },
        outcomesSection(run), fresh(() => tunablesSection(run)), stalenessSection(run), fresh(() => failuresSection(run))),
      el("div", { class: "stack" },
        fresh(() => errorsSection(run)), fresh(() => costSection(run)), fresh(() => recommendationsSection(run)), fresh(() => rejectionsSection(run)))),
    configurationSection(run),
  ];
}

function stateOf(run) {
  const { ended, best } = run.summary;
  if (ended) return `ended: ${ended}${best?.faster ? `; ${best.faster}` : ""}`;
  return run.live ? "running" : "not ended: it was running when this page was made, or was cut off";
}

function overview(run) {
  const s = run.summary;
  const best = s.best;
  const card = (name, value, more = "", kind = "") =>
    el("div", { class: `card ${kind}` }, el("div", { class: "name" }, name), el("div", { class: "value" }, value), el("div", { class: "more" }, more));
  return el("section", { class: "bare", id: "overview" },
    el("h1", {}, s.task, " ", el("span", { class: "dim" }, s.algorithm)),
    el("p", { class: "dim" }, el("bdi", {}, run.name), ` · seed ${s.seed} · ${s.devices.join(", ") || "no device yet"} · ${moment(s.started)} · `, el("bdi", {}, ...shown(stateOf(run)))),
    s.raised.map((one) => el("p", { class: "notice" }, `Its limits were raised: ${raiseText(one)}. The figures are of both parts.`)),
    el("div", { class: "cards", style: "--columns: 8" },
      card(`best speedup over ${best?.ranked_over ?? "eager PyTorch"}`, best ? [times(best.speedup), claim(best.state)] : "none correct", best ? headlineFigures(best) : "no kernel was correct", `hero ${STATE_CLASSES[best?.state] ?? ""}`),
      card("evaluations", count(s.evaluations), `${count(s.cached)} more from the cache`),
      card("proposals", count(s.proposals), `${count(s.num_dropped)} dropped as known`),
      card("correct", s.candidates ? percent(s.correct / s.candidates) : "–", `${count(s.correct)} of ${count(s.candidates)} candidates`),
      card("device busy", percent(s.busy_fraction), `lease held ${percent(s.lease_fraction)}`),
      card("time", duration(s.seconds), `${plural(s.cold_starts, "cold start")}, ${plural(s.sessions, "session")}`),
      card("spent", usd(s.usd), [`${count(s.tokens)} tokens`, ...s.containers.map((rent) => `${rent.gpu} ${duration(rent.seconds)}`)].join(", "))));
}

// How sure the speedup is, what it is over the strongest baseline beside the one that ranks, and the times.
function headlineFigures(best) {
  const beside = best.strongest;
  return [`95 % CI ${interval(best.speedup_ci)}`,
    beside ? `${times(beside.speedup)} over ${BASELINES[beside.baseline] ?? beside.baseline} [${interval(beside.interval)}]` : "",
    `${ms(best.kernel_ms)} instead of ${ms(best.reference_ms)}`].filter(Boolean).join(" · ");
}

const BASELINES = { eager: "eager", compile: "torch.compile", "max-autotune": "torch.compile max-autotune", "cuda-graph": "a CUDA graph" };

function bestSection(run) {
  const holder = section("best", "Best kernel");
  const heading = holder.firstChild;
  let shownKey = null;
  const fill = async () => {
    const { best } = run.summary;
    const key = best ? `${best.candidate} ${best.measurements} ${best.speedups.length}` : "";
    if (key === shownKey) return;
    shownKey = key;
    if (!best) {
      holder.replaceChildren(heading, el("p", {}, run.live ? "No kernel was correct yet." : "No kernel was correct. The outcomes and the commonest errors below say why."),
        el("details", {}, el("summary", {}, "The task's reference"), code(run.task.source)));
      return;
    }
    const detail = await detailOf(run, best.candidate);
    const missing = () => el("p", { class: "dim" }, "Its source is left out of this page.");
    const texts = detail ? tabs("The best kernel", [
      ["Source", () => code(detail.source)],
      ["Diff to parent", () => (detail.diff === null ? el("p", { class: "dim" }, "It has no parent on this page.") : diffBlock(detail.diff))],
      ["Diff to reference", () => (detail.reference_diff === null ? missing() : diffBlock(detail.reference_diff))],
      ["Reference", () => code(run.task.source)],
    ]) : missing();
    holder.replaceChildren(heading, el("div", { class: "split" },
      el("div", { class: "filled" }, el("p", {}, idButton(run, best.candidate), ` on ${best.device}`), texts),
      el("div", {}, el("h3", {}, "Why believe it"), beliefs(detail), sampleChart(run, detail),
        el("h3", {}, "Reproduce it"), reproduce(run, detail))));
    redraw(holder);
  };
  run.refreshers.push(fill);
  fill();
  return holder;
}

function measuredResults(detail) {
  return (detail?.results ?? []).filter((result) => result.outcome.type === "Measured");
}

function beliefs(detail) {
  const sign = (good) => el("span", { class: good === null ? "dim" : good ? "yes" : "no", "aria-hidden": "true" }, good === null ? "·" : good ? "✓" : "!");
  return el("ul", { class: "checks" }, (detail?.evidence ?? []).map(({ good, text }) =>
    el("li", {}, sign(good), el("bdi", {}, ...shown(text)))));
}

function sampleChart(run, detail) {
  const results = measuredResults(detail);
  if (!results.some((result) => result.outcome.kernel_ms.length)) return null;
  return chart("samples-chart", "Samples of the kernel's and the reference's time", 190, () => {
    const box = (name, samples, tint) => ({ type: "box", orientation: "h", name, x: samples, boxpoints: "outliers", marker: { color: tint, size: 3 }, line: { width: 1.5 } });
    return [[
      box("kernel", results.flatMap((result) => result.outcome.kernel_ms), color("measured")),
      box("reference", results.flatMap((result) => result.outcome.reference_ms), css("--dim")),
    ], { showlegend: false, xaxis: { title: { text: "milliseconds for one call" }, rangemode: "tozero" }, yaxis: { autorange: "reversed" } }];
  });
}

function reproduce(run, detail) {
  const source = detail?.source.map(([, text]) => text).join("") ?? "";
  const saved = el("a", { download: "best.py" }, "best.py");
  saved.href = `data:text/x-python;charset=utf-8,${encodeURIComponent(source)}`;
  const [command, elsewhere] = run.reproduce;
  return el("div", {}, plain(command),
    el("details", {}, el("summary", {}, "without the run's folder"), el("p", { class: "small" }, "Save ", saved, ", then:"), plain(elsewhere)));
}

const AXES = { evaluations: "evaluations", minutes: "time", usd: "dollars" };

// A short search is drawn in seconds: the unit's name, and how many of it are a minute.
const unitOf = (run) => (run.summary.seconds < 180 ? ["seconds", 60] : ["minutes", 1]);

function progressSection(run) {
  let axis = "evaluations";
  const node = chart("progress-chart", "Best speedup so far", 340, () => progressFigure(run, axis), { onclick: (id) => id && openCandidate(run, id) });
  const axes = Object.entries(AXES).filter(([name]) => name !== "usd" || run.live || run.summary.usd > 0);
  return section("progress", "Best so far",
    choice("over", axes, axis, (value) => { axis = value; draw(node); }), node);
}

function progressFigure(run, axis) {
  const { progress, evaluations, seconds, usd: dollars, best } = run.summary;
  const end = { evaluations, minutes: seconds / 60, usd: dollars }[axis];
  const points = best && progress.length ? [...progress, { ...progress.at(-1), [axis]: end }] : progress;
  const [unit, scale] = axis === "minutes" ? unitOf(run) : [AXES[axis], 1];
  const x = points.map((point) => scale * point[axis]);
  const stepped = (values) => ({ x, y: values, type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false });
  const traces = [
    { ...stepped(points.map((point) => point.ci[0])), line: { width: 0, shape: "hv" } },
    { ...stepped(points.map((point) => point.ci[1])), line: { width: 0, shape: "hv" }, fill: "tonexty", fillcolor: `${color("measured")}33` },
  ];
  if (axis !== "usd") {
    const tried = run.rows.filter((row) => row.speedup !== null);
    traces.push({ type: "scatter", mode: "markers", name: "every correct candidate", x: tried.map((row) => scale * row[axis]), y: tried.map((row) => row.speedup),
      customdata: tried.map((row) => row.id), marker: { size: 5, color: css("--dim"), opacity: 0.45 },
      text: tried.map((row) => safe(row.id)), hovertemplate: "%{text}: %{y:.2f}×<extra></extra>" });
  }
  traces.push({ ...stepped(points.map((point) => point.speedup)), mode: "lines+markers", showlegend: true, name: "best so far, with its 95 % interval", hoverinfo: "all",
    line: { shape: "hv", width: 2.5, color: color("measured") }, marker: { size: 6 }, customdata: points.map((point) => point.candidate),
    text: points.map((point) => `${safe(point.candidate)}: ${times(point.speedup)} [${interval(point.ci)}]`), hovertemplate: "%{text}<extra></extra>" });
  return [traces, { xaxis: { title: { text: unit }, rangemode: "tozero", ...(axis === "usd" ? { tickprefix: "$" } : {}) },
    yaxis: { title: { text: "speedup" }, rangemode: "tozero" }, hovermode: "closest", uirevision: axis,
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: css("--dim"), width: 1, dash: "dot" } }] }];
}

const STAGES = { propose: ["explorer: a proposal", "#7a8fd6"], failed: ["explorer: nothing to offer", "#9aa3ad"], compile: ["compile", "#c98500"], check: ["check", "#3fa7a0"], time: ["timing", "#0a8f63"] };

function timelineSection(run) {
  const lanes = () => [...new Set(run.bars.lane)].length;
  let range = null; // as the reader chose it; null follows the run
  const node = chart("timeline-chart", "Explorers, compile pool and device lease over time", Math.min(620, 130 + 26 * Math.max(3, lanes())),
    () => timelineFigure(run, range), { onrelayout: (layout) => { range = [...layout.xaxis.range]; draw(node); } });
  const move = (to) => { if (node._fullLayout) Plotly.relayout(node, { "xaxis.range": to(...node._fullLayout.xaxis.range) }); };
  const zoom = (factor) => move((from, to) => [(from + to) / 2 - (factor * (to - from)) / 2, (from + to) / 2 + (factor * (to - from)) / 2]);
  const shift = (share) => move((from, to) => [from + share * (to - from), to + share * (to - from)]);
  const button = (name, label, act) => el("button", { type: "button", "aria-label": label, onclick: act }, name);
  const s = run.summary;
  const total = Object.values(s.stage_seconds).reduce((sum, value) => sum + value, 0);
  const words = Object.entries(s.stage_seconds).map(([stage, seconds]) => `${stage} ${percent(total ? seconds / total : 0)}`).join(", ");
  return section("timeline", "Time line",
    el("p", {}, `The device ran kernels for ${percent(s.busy_fraction)} of the time; a candidate held it for ${percent(s.lease_fraction)}. `, el("span", { class: "dim" }, words ? `An evaluation's time: ${words}.` : "")),
    run.left_out.bars ? el("p", { class: "notice" }, `The last ${count(run.bars.lane.length)} pieces of work are drawn, ${count(run.left_out.bars)} earlier ones are left out.`) : null,
    el("div", { class: "row", role: "group", "aria-label": "Zoom the time line" },
      button("zoom in", "zoom in", () => zoom(0.5)), button("zoom out", "zoom out", () => zoom(2)),
      button("←", "earlier", () => shift(-0.4)), button("→", "later", () => shift(0.4)), button("all", "show all", () => move(() => [0, (unitOf(run)[1] * run.summary.seconds) / 60])),
      el("span", { class: "dim small wide-only" }, "or drag over a stretch of it")),
    node);
}

// Only the work in sight is drawn: thousands of bars take half a second.
function timelineFigure(run, chosen) {
  const { lane, stage, candidate, start, length } = run.bars;
  const rank = (name) => (name.startsWith("explorer") ? 0 : name.startsWith("compile") ? 1 : 2);
  const lanes = [...new Set(lane)].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, "en", { numeric: true }));
  const [unit, scale] = unitOf(run);
  const end = (scale * run.summary.seconds) / 60;
  const [from, to] = chosen ?? [lane.length > 600 && end > 4 * scale ? end - Math.max(2 * scale, end / 8) : 0, end];
  const traces = Object.entries(STAGES).map(([name, [label, tint]]) => {
    const picked = stage.flatMap((one, i) => (one === name && scale * start[i] <= to && scale * (start[i] + length[i]) >= from ? [i] : []));
    return { type: "bar", orientation: "h", name: label, marker: { color: tint, line: { width: 0.5, color: css("--card") } }, width: 0.8,
      y: picked.map((i) => lane[i]), base: picked.map((i) => scale * start[i]), x: picked.map((i) => scale * length[i]),
      text: picked.map((i) => `${safe(candidate[i])}: ${label}, ${(length[i] * 60).toFixed(2)} s`), textposition: "none", hovertemplate: "%{text}<extra></extra>" };
  }).filter((trace) => trace.y.length);
  return [traces, { barmode: "overlay", bargap: 0.15, xaxis: { title: { text: unit }, range: [from, to], autorange: false },
    yaxis: { fixedrange: true, categoryorder: "array", categoryarray: lanes, range: [-0.5, lanes.length - 0.5] }, dragmode: "zoom", hovermode: "closest", uirevision: `${from} ${to}` }];
}

function outcomesSection(run) {
  return section("outcomes", "Outcomes",
    chart("outcomes-chart", "Candidates by outcome", 250, () => {
      const names = Object.keys(run.summary.by_outcome).reverse();
      const values = names.map((name) => run.summary.by_outcome[name]);
      return [[{ type: "bar", orientation: "h", y: names.map((name) => STATUSES[name].label), x: values, text: values.map(count), textposition: "auto", insidetextfont: { color: css("--card") },
        marker: { color: names.map(color) }, hoverinfo: "skip" }], { xaxis: { title: { text: "candidates, by their first result" } }, yaxis: { fixedrange: true } }];
    }));
}

function errorsSection(run) {
  if (!run.summary.errors.length) return none("errors", "Commonest errors", "None.");
  return section("errors", "Commonest errors", table([
    ["times", (row) => count(row.count), true],
    ["what", (row) => [badge(row.outcome), el("div", { class: "small" }, el("bdi", {}, ...shown(row.text)))]],
    ["such as", (row) => idButton(run, row.example)],
  ], run.summary.errors));
}

function tunablesSection(run) {
  const { tunables } = run.summary;
  const top = Math.max(...tunables.flatMap((tunable) => tunable.values.map((value) => value.median_speedup ?? 0)), 1e-9);
  const bar = (value) => {
    const fill = el("i", {});
    fill.style.width = `${(100 * (value.median_speedup ?? 0)) / top}%`;
    return el("div", { class: "bartrack" }, fill);
  };
  const rows = tunables.flatMap((tunable) => tunable.values.map((value, i) => ({ tunable, value, first: i === 0 })));
  if (!rows.length) return none("tunables", "Tunables and what they were worth", "No candidate carries `tune:` comments.");
  return section("tunables", "Tunables and what they were worth", [
    table([
      ["tunable", ({ tunable, first }) => (first ? [el("code", {}, ...shown(tunable.name)), el("div", { class: "dim small" }, tunable.seed ? ["of ", ...shown(tunable.seed), ", "] : "", tunable.worth ? `worth ${times(tunable.worth)}` : "worth unknown")] : "")],
      ["value", ({ value }) => el("code", {}, ...shown(value.value))],
      ["median", ({ value }) => times(value.median_speedup), true],
      ["", ({ value }) => bar(value)],
      ["best", ({ value }) => times(value.best_speedup), true],
      ["sources, correct", ({ value }) => `${count(value.correct)} of ${count(value.sources)}`, true],
    ], rows),
    el("p", { class: "dim small" }, "Worth: the median speedup with the best value over that with the worst, over the different sources of one seed kernel. They differ in more than one value, so read it as a hint."),
  ]);
}

function costSection(run) {
  const s = run.summary;
  const unpriced = s.models.reduce((sum, model) => sum + model.unpriced_requests, 0);
  const rented = s.containers.length ? [
    table([
      ["container with", (row) => row.gpu],
      ["held for", (row) => duration(row.seconds), true],
      ["dollars", (row) => usd(row.usd), true],
    ], s.containers),
  ] : [];
  const asked = s.models.length ? [
    table([
      ["model", (row) => row.model],
      ["requests", (row) => count(row.requests), true],
      ["prompt tokens", (row) => count(row.prompt_tokens), true],
      ["answer tokens", (row) => count(row.completion_tokens), true],
      ["dollars", (row) => usd(row.usd), true],
      ["seconds", (row) => count(Math.round(row.seconds)), true],
    ], s.models),
  ] : [];
  const sum = s.models.length || s.containers.length ? [
    el("p", { class: "dim small" }, `${usd(s.usd)} and ${count(s.tokens)} tokens in all.`, unpriced ? ` ${count(unpriced)} requests have no known price and are not in the dollars.` : ""),
  ] : [];
  if (!sum.length) return none("cost", "Tokens and dollars", "No language model was asked, and no device was rented.");
  return section("cost", "Tokens and dollars", [...asked, ...rented, ...sum]);
}

function rejectionsSection(run) {
  const s = run.summary;
  if (!s.num_dropped) return none("rejections", "Dropped by the epsilon-net", "No proposal was dropped.");
  return section("rejections", "Dropped by the epsilon-net", [
    table([
      ["candidate", (row) => idButton(run, row.candidate)],
      ["nearest known", (row) => idButton(run, row.neighbour)],
      ["distance", (row) => row.distance.toFixed(4), true],
    ], [...s.dropped].reverse()),
    el("p", { class: "dim small" }, `${count(s.num_dropped)} proposals were within ${run.settings.epsilon} of a known candidate and were not evaluated${s.num_dropped > s.dropped.length ? `; the last ${count(s.dropped.length)} are listed` : ""}.`),
  ]);
}

function recommendationsSection(run) {
  const texts = [...run.summary.recommendations].reverse();
  if (!texts.length) return none("recommendations", "Summaries over time", "This search made no summaries.");
  return section("recommendations", "Summaries over time",
    el("div", { class: "scroll", tabindex: "0", style: "padding: .4rem .8rem" }, texts.map((one, i) =>
      el("details", { open: i === 0, "data-newest": i === 0 }, el("summary", {}, `after ${plural(one.memory_version, "result")}, minute ${one.minutes.toFixed(1)}`), plain(one.text)))));
}

function stalenessSection(run) {
  return section("staleness", "Staleness", chart("staleness-chart", "How many results came in between a brief and its candidate's result", 220, () => {
    const histogram = Object.entries(run.summary.staleness?.histogram ?? {});
    return [[{ type: "bar", x: histogram.map(([value]) => Number(value)), y: histogram.map(([, number]) => number), marker: { color: css("--accent") } }],
      { xaxis: { title: { text: "results told between brief and result" } }, yaxis: { title: { text: "candidates" } } }];
  }));
}

function failuresSection(run) {
  const s = run.summary;
  if (!s.num_failures) return none("failures", "Failures that were not a kernel's", "None.");
  return section("failures", "Failures that were not a kernel's", [
    table([
      ["minute", (row) => row.minutes.toFixed(1), true],
      ["what", (row) => row.what],
      ["reason", (row) => el("bdi", {}, ...shown(row.reason))],
    ], [...s.failures].reverse()),
    el("p", { class: "dim small" }, `${count(s.num_failures)} in all. None of them counts as a score.`),
  ]);
}

function configurationSection(run) {
  return section("configuration", "Configuration", el("details", {}, el("summary", {}, "the search's settings and the run's configuration"),
    el("div", { class: "pair" }, plain(JSON.stringify(run.settings, null, 2)), plain(JSON.stringify(run.config, null, 2)))));
}
