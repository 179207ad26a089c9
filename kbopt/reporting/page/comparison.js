// Several runs: fast_p curves and tables by algorithm and task, with the spread over seeds.

const PALETTES = {
  light: ["#0a6cbd", "#d55e00", "#0a8f63", "#b5509c", "#c98500", "#56a4d8", "#77828f", "#b3001e"],
  dark: ["#6cb6ff", "#ff8f5e", "#4cc38a", "#e79bd0", "#f0b429", "#a5d3f5", "#93a1b0", "#ff6b81"],
};
const tintOf = (i) => PALETTES[theme()][i % PALETTES.light.length];

const spread = (value, format) =>
  value.high > value.low ? `${format(value.mean)} (${format(value.low)} to ${format(value.high)})` : format(value.mean);

function comparisonSections(page, showRun) {
  const { algorithms, cells } = page.comparison;
  const ranked = [...algorithms].sort((a, b) => b.fast_1.mean - a.fast_1.mean || (b.geomean?.mean ?? 0) - (a.geomean?.mean ?? 0));
  const runs = page.runs.map((run, index) => ({ run, index }));
  return [
    el("section", { class: "bare", id: "overview" },
      el("h1", {}, `${count(page.runs.length)} runs`),
      el("p", { class: "dim" }, `${plural(algorithms.length, "algorithm")} on ${plural(new Set(cells.map((cell) => cell.task)).size, "task")}. In brackets: the lowest and the highest seed.`)),
    section("comparison", "Algorithms",
      table([
        ["algorithm", (row) => row.algorithm],
        ["geometric mean", (row) => (row.geomean ? spread(row.geomean, times) : "–"), true],
        ["fast₀.₅", (row) => spread(row.fast_05, percent), true],
        ["fast₁", (row) => spread(row.fast_1, percent), true],
        ["fast₁.₀₅", (row) => spread(row.fast_105, percent), true],
        ["with a correct kernel", (row) => `${count(row.solved)} of ${plural(row.num_runs, "run")}`, true],
        ["evaluations", (row) => count(row.evaluations), true],
        ["spent", (row) => usd(row.usd), true],
      ], ranked),
      el("p", { class: "dim small" }, "fast_p: the share of tasks whose best kernel is correct and more than p times as fast as eager PyTorch. The geometric mean leaves out tasks without a correct kernel.")),
    el("div", { class: "pair" },
      section("fastp", "fast_p",
        chart("fastp-chart", "fast_p over p by algorithm", 360, () => fastPFigure(page.comparison))),
      section("efficiency", "Best so far, by evaluations",
        chart("efficiency-chart", "Best speedup over evaluations, one line per run", 360, () => efficiencyFigure(page)))),
    section("tasks", "By task",
      table([
        ["task", (row) => row.task],
        ["algorithm", (row) => row.algorithm],
        ["best speedup", (row) => spread(row.speedup, times), true],
        ["seeds", (row) => count(row.speedup.num_seeds), true],
        ["correct", (row) => count(row.solved), true],
        ["evaluations", (row) => count(Math.round(row.evaluations)), true],
        ["spent", (row) => usd(row.usd), true],
      ], [...cells].sort((a, b) => a.task.localeCompare(b.task) || b.speedup.mean - a.speedup.mean))),
    section("runs", "Runs",
      table([
        ["run", ({ run, index }) => el("button", { type: "button", class: "link", onclick: () => showRun(index) }, run.name)],
        ["best speedup", ({ run }) => [claim(run.summary.best?.state), " ", times(run.summary.best?.speedup)], true],
        ["95 % CI", ({ run }) => interval(run.summary.best?.speedup_ci), true],
        ["task", ({ run }) => run.summary.task],
        ["algorithm", ({ run }) => run.summary.algorithm],
        ["seed", ({ run }) => String(run.summary.seed), true],
        ["evaluations", ({ run }) => count(run.summary.evaluations), true],
        ["state", ({ run }) => run.summary.ended ?? "not ended"],
      ], runs)),
  ];
}

function fastPFigure({ curves, thresholds }) {
  const traces = curves.flatMap((curve, i) => {
    const tint = tintOf(i);
    const edge = (end) => ({ type: "scatter", mode: "lines", x: thresholds, y: curve.points.map((point) => point[end]),
      line: { width: 0, shape: "hv" }, hoverinfo: "skip", showlegend: false });
    return [
      edge("low"), { ...edge("high"), fill: "tonexty", fillcolor: `${tint}22` },
      { type: "scatter", mode: "lines", name: safe(curve.algorithm), x: thresholds, y: curve.points.map((point) => point.mean), line: { color: tint, width: 2, shape: "hv" } },
    ];
  });
  return [traces, { xaxis: { title: { text: "p: times as fast as eager PyTorch" } }, yaxis: { title: { text: "share of tasks" }, tickformat: ".0%", range: [-0.02, 1.04] }, hovermode: "x unified" }];
}

function efficiencyFigure(page) {
  const names = [...new Set(page.runs.map((run) => run.summary.algorithm))];
  const first = new Set();
  const traces = page.runs.map((run) => {
    const { algorithm, progress, evaluations } = run.summary;
    const isFirst = !first.has(algorithm) && first.add(algorithm);
    const points = [...progress.map((point) => [point.evaluations, point.speedup]), ...(progress.length ? [[evaluations, progress.at(-1).speedup]] : [])];
    return { type: "scatter", mode: "lines", name: safe(algorithm), legendgroup: algorithm, showlegend: Boolean(isFirst),
      x: points.map(([x]) => x), y: points.map(([, y]) => y), opacity: 0.8,
      line: { shape: "hv", width: 1.6, color: tintOf(names.indexOf(algorithm)) },
      text: points.map(() => safe(run.name)), hovertemplate: "%{text}<br>%{y:.2f}× after %{x}<extra></extra>" };
  });
  return [traces, { xaxis: { title: { text: "evaluations" } }, yaxis: { title: { text: "best speedup" }, ...SPEEDUP_AXIS }, hovermode: "closest" }];
}
