// Several runs: fast_p curves and tables by group and task. A group is an algorithm and whatever else tells runs apart.

const PALETTES = {
  light: ["#0a6cbd", "#d55e00", "#0a8f63", "#b5509c", "#c98500", "#56a4d8", "#77828f", "#b3001e"],
  dark: ["#6cb6ff", "#ff8f5e", "#4cc38a", "#e79bd0", "#f0b429", "#a5d3f5", "#93a1b0", "#ff6b81"],
};
const tintOf = (i) => PALETTES[theme()][i % PALETTES.light.length];

const spread = (value, format) =>
  value.high > value.low ? `${format(value.mean)} (${format(value.low)} to ${format(value.high)})` : format(value.mean);

const PANELS = 24;
const LINES = 3; // so many runs of a group are drawn one by one; more of them as their median and their range

function comparisonSections(page, showRun) {
  const { algorithms, cells, groups, warnings } = page.comparison;
  const ranked = [...algorithms].sort((a, b) => b.fast_1.mean - a.fast_1.mean || (b.geomean?.mean ?? 0) - (a.geomean?.mean ?? 0));
  const runs = page.runs.map((run, index) => ({ run, index, group: groups[index] }));
  const tasks = [...new Set(cells.map((cell) => cell.task))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  return [
    el("section", { class: "bare", id: "overview" },
      el("h1", {}, `${count(page.runs.length)} runs`),
      el("p", { class: "dim" }, `${plural(algorithms.length, "group")} on ${plural(tasks.length, "task")}. In brackets: the lowest and the highest run.`),
      warnings.map((text) => el("p", { class: "notice" }, el("bdi", {}, ...shown(text))))),
    section("comparison", "Groups",
      table([
        ["algorithm, and what else differs", (row) => el("bdi", {}, ...shown(row.algorithm))],
        ["geometric mean", (row) => (row.geomean ? spread(row.geomean, times) : "–"), true],
        ["over", (row) => plural(row.num_tasks, "task"), true],
        ["fast₀.₅", (row) => spread(row.fast_05, percent), true],
        ["fast₁", (row) => spread(row.fast_1, percent), true],
        ["fast₁.₀₅", (row) => spread(row.fast_105, percent), true],
        ["with a correct kernel", (row) => `${count(row.solved)} of ${plural(row.num_runs, "run")}`, true],
        ["faster with confidence", (row) => `${count(row.faster)} of ${plural(row.num_runs, "run")}`, true],
        ["evaluations", (row) => count(row.evaluations), true],
        ["spent", (row) => usd(row.usd), true],
      ], ranked),
      el("p", { class: "dim small" }, "fast_p: the share of tasks whose best kernel is correct and more than p times as fast as eager PyTorch. The geometric mean leaves out tasks without a correct kernel. Both are over the tasks that every seed of the group has run.")),
    section("efficiency", "Best so far, by evaluations",
      tasks.length > PANELS ? el("p", { class: "notice" }, `The first ${PANELS} of ${count(tasks.length)} tasks are drawn.`) : null,
      el("div", { class: tasks.length > 1 ? "panels" : "" }, tasks.slice(0, PANELS).map((task, i) => el("div", {},
        el("h3", {}, task),
        chart(`efficiency-chart-${i}`, `Best speedup over evaluations on ${task}`, 300, () => efficiencyFigure(runs.filter(({ run }) => run.summary.task === task), algorithms))))),
      el("p", { class: "dim small" }, `Up to ${LINES} runs of a group are drawn each; more of them as their median, in the range from the worst to the best. A run without a correct kernel counts as 0 there.`)),
    section("fastp", "fast_p",
      chart("fastp-chart", "fast_p over p by group", 360, () => fastPFigure(page.comparison))),
    section("tasks", "By task",
      table([
        ["task", (row) => row.task],
        ["group", (row) => el("bdi", {}, ...shown(row.algorithm))],
        ["best speedup", (row) => spread(row.speedup, times), true],
        ["runs", (row) => count(row.speedup.num_seeds), true],
        ["correct", (row) => count(row.solved), true],
        ["faster with confidence", (row) => count(row.faster), true],
        ["evaluations", (row) => count(Math.round(row.evaluations)), true],
        ["spent", (row) => usd(row.usd), true],
      ], [...cells].sort((a, b) => a.task.localeCompare(b.task) || b.speedup.mean - a.speedup.mean))),
    section("runs", "Runs",
      table([
        ["run", ({ run, index }) => el("button", { type: "button", class: "link", onclick: () => showRun(index) }, run.name)],
        ["best speedup", ({ run }) => [claim(run.summary.best?.state), " ", times(run.summary.best?.speedup)], true],
        ["95 % CI", ({ run }) => interval(run.summary.best?.speedup_ci), true],
        ["task", ({ run }) => run.summary.task],
        ["group", ({ group }) => el("bdi", {}, ...shown(group))],
        ["seed", ({ run }) => String(run.summary.seed), true],
        ["evaluations", ({ run }) => count(run.summary.evaluations), true],
        ["state", ({ run }) => [run.summary.ended ?? "not ended", ...run.summary.raised.map((one) => `raised: ${raiseText(one)}`)].join("; ")],
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

// What the run's best was after so many evaluations; 0 before the first correct kernel.
const bestAfter = ({ progress }, evaluations) => progress.findLast((point) => point.evaluations <= evaluations)?.speedup ?? 0;

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function efficiencyFigure(runs, algorithms) {
  const traces = algorithms.flatMap(({ algorithm: name }, i) => {
    const members = runs.filter(({ group }) => group === name);
    const summaries = members.map(({ run }) => run.summary);
    const steps = [...new Set(summaries.flatMap((one) => [...one.progress.map((point) => point.evaluations), one.evaluations]))].sort((a, b) => a - b);
    const style = { type: "scatter", mode: "lines", name: safe(name), legendgroup: name };
    const line = (shape) => ({ shape: "hv", color: tintOf(i), ...shape });
    if (members.length <= LINES) {
      return members.map(({ run }, n) => {
        const x = steps.filter((step) => step <= run.summary.evaluations && bestAfter(run.summary, step) > 0);
        return { ...style, showlegend: n === 0, x, y: x.map((step) => bestAfter(run.summary, step)), line: line({ width: 1.8 }),
          text: x.map(() => safe(run.name)), hovertemplate: "%{text}<br>%{y:.2f}× after %{x}<extra></extra>" };
      });
    }
    const y = (of) => steps.map((step) => of(summaries.map((one) => bestAfter(one, step))));
    const edge = (of) => ({ ...style, x: steps, y: y(of), showlegend: false, hoverinfo: "skip", line: line({ width: 0 }) });
    return [edge((all) => Math.min(...all)), { ...edge((all) => Math.max(...all)), fill: "tonexty", fillcolor: `${tintOf(i)}22` },
      { ...style, x: steps, y: y(median), line: line({ width: 2.2 }), hovertemplate: `median of ${members.length}<br>%{y:.2f}× after %{x}<extra></extra>` }];
  });
  return [traces, { xaxis: { title: { text: "evaluations" }, rangemode: "tozero" }, yaxis: { title: { text: "best speedup" }, rangemode: "tozero" }, hovermode: "closest",
    shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: css("--dim"), width: 1, dash: "dot" } }] }];
}
