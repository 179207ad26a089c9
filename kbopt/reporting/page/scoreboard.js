// The page of a benchmark: its tables, what each task came to, and every search's kernel.

const BOARD_NAV = [["overview", "overview"], ["results", "results"], ["speedups", "speedups"], ["searches", "searches"], ["how", "how"]];

// An estimate with the 95 % interval of its mean over the seeds below it, where there is one.
function estimate(found, format) {
  if (!found) return "–";
  const end = (value) => format(value).replaceAll(" ", "\u00a0");
  return el("span", {}, format(found.mean),
    found.high > found.low ? el("span", { class: "dim small range" }, ` ${end(found.low)} to ${end(found.high)}`) : null);
}

const lineOf = (board, over) => board.lines.find((line) => line.over === over);

function fateOf(page, row) {
  if (row.fate !== "correct") return el("span", { class: "dim" }, row.fate);
  const state = !row.own_kernel ? "no custom kernel" : row.speedup !== null && row.ci && row.ci[0] <= 1 ? "not faster" : "faster";
  return el("span", {}, "correct", claim(state) ? [" ", claim(state)] : null);
}

function boardCards(board) {
  const eager = lineOf(board, "eager");
  const theirs = lineOf(board, "eager (KernelBench)");
  const mean = (over) => estimate(lineOf(board, over).geomean, times);
  return el("div", { class: "cards", style: "--columns: 6" },
    card("fast₁ over eager PyTorch", estimate(eager.fast["1"], percent), "of the tasks: correct, and more than 1× as fast as it was measured, which is KernelBench's definition; it does not ask how sure that is", "hero"),
    card("surely faster", estimate(board.faster, percent), "of the tasks: the whole 95 % interval lies above 1×, with a kernel of its own"),
    card("correct", estimate(eager.solved, percent), "of the tasks, by the strict verdict"),
    card("over eager", mean("eager"), "geometric mean of the correct kernels"),
    card("over torch.compile", mean("compile"), "geometric mean"),
    card("over max-autotune", mean("max-autotune"), "geometric mean"),
    card("by KernelBench", estimate(theirs.fast["1"], percent), "fast₁ over eager by its own verdict"),
    card("roofline", estimate(board.roofline, percent), "the floor by bytes over the kernel's time"),
    card("dollars", estimate(board.usd, usd), "a task with one seed"),
    card("tokens", estimate(board.tokens, (value) => count(Math.round(value))), "a task with one seed"),
    card("minutes", estimate(board.minutes, (value) => duration(60 * value)), el("span", {}, "a task with one seed; of the device ", estimate(board.device_minutes, (value) => duration(60 * value)))));
}

function boardTable(board) {
  const measures = [
    ["correct", (line) => estimate(line.solved, percent)],
    ...Object.keys(board.lines[0].fast).sort((a, b) => a - b).map((p) => [`fast ${p}`, (line) => estimate(line.fast[p], percent)]),
    ["surely faster", (line) => (line.over === "eager" ? estimate(board.faster, percent) : "–")],
    ["geometric mean", (line) => estimate(line.geomean, times)],
    board.lines.some((line) => line.missing) ? ["solved, not measured", (line) => count(line.missing)] : null,
  ].filter((measure) => measure);
  const name = (over) => (over === "eager (KernelBench)" ? "eager, by KernelBench" : `over ${over}`);
  const columns = board.lines.map((line) => [name(line.over), ([, cell]) => cell(line), true]);
  return [
    el("h3", {}, board.name),
    el("p", { class: "dim small" }, board.extent),
    table([["", ([name]) => name], ...columns], measures),
    el("p", { class: "dim small" }, board.spent),
  ];
}

function boardSections(page) {
  const whole = page.boards[page.boards.length - 1];
  const solved = page.rows.filter((row) => row.speedup !== null);
  return [
    el("section", { class: "bare", id: "overview" },
      el("h1", {}, text(page.title)),
      el("p", { class: "dim" }, text(whole.extent)),
      page.notes.map((note) => el("p", { class: "notice" }, text(note))),
      boardCards(whole)),
    section("results", "Results", page.boards.map(boardTable),
      el("p", { class: "dim small" }, "fast p: the share of the tasks with a correct kernel that is more than p times as fast; a task without one counts as 0 there, and in no mean. surely faster: the share of the tasks whose kernel is one of its own and lies above 1× with its whole 95 % interval. Small figures: the 95 % interval of the mean over the seeds.")),
    solved.length ? section("speedups", "Speedup of each search",
      chart("speedups-chart", "Speedup over eager PyTorch of each search, sorted, with its 95 % interval", 380, () => speedupsFigure(solved), {
        onclick: (index) => openKernel(page, index) }),
      el("p", { class: "dim small" }, "Sorted by the speedup over eager PyTorch; bars are 95 % intervals. On the line a kernel is as fast as what it is compared with."))
      : none("speedups", "Speedup of each search", "No search found a correct kernel."),
    searchSection(page),
    section("how", "How it was measured",
      el("p", {}, "All figures but those by KernelBench are of the strict verdict: answers right on fresh inputs, and one clock for the kernel and for what it is compared with. KernelBench's own verdict and times are of the same kernels and decide nothing. The share of the roofline is the time to move each byte once, over the kernel's time."),
      factTable(page.about.map(([name, value]) => [name, text(value)]))),
  ];
}

function speedupsFigure(rows) {
  const sorted = [...rows].sort((a, b) => a.speedup - b.speedup);
  const x = sorted.map((_, place) => place + 1);
  const common = { type: "scatter", mode: "markers", x, customdata: sorted.map((row) => row.index) };
  const over = (name, field, status, symbol) => ({ ...common, name, y: sorted.map((row) => row[field]),
    text: sorted.map((row) => `${safe(row.name)}<br>${times(row[field])} ${name}`), hovertemplate: "%{text}<extra></extra>", marker: { color: color(status), size: symbol === "circle" ? 8 : 6, symbol } });
  return [[
    { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, x: [0.5, x.length + 0.5], y: [1, 1], line: { color: css("--dim"), width: 1, dash: "dot" } },
    over("over torch.compile", "compile", "wrong_answer", "diamond"),
    over("over max-autotune", "max_autotune", "compile_failed", "triangle-up"),
    { ...over("over eager PyTorch", "speedup", "measured", "circle"), error_y: { type: "data", symmetric: false, thickness: 1,
      array: sorted.map((row) => (row.ci ? row.ci[1] - row.speedup : 0)), arrayminus: sorted.map((row) => (row.ci ? row.speedup - row.ci[0] : 0)) } },
  ].filter((trace) => trace.y.some((value) => value !== null)), {
    xaxis: { title: { text: "searches with a correct kernel" }, showticklabels: false, showgrid: false, range: [0.5, x.length + 0.5] },
    yaxis: { title: { text: "speedup" }, ...speedupAxis(sorted.flatMap((row) => [...(row.ci ?? []), row.speedup, row.compile, row.max_autotune]).filter((value) => value > 0)) }, hovermode: "closest" }];
}

function searchSection(page) {
  const holder = el("div", {});
  const number = (fate) => page.rows.filter((row) => row.fate === fate).length;
  const fates = Object.keys(page.fates).filter(number);
  const columns = [
    ["task", (row) => nameButton(page, row.index)],
    ["strict verdict", (row) => fateOf(page, row)],
    ["over eager", measured, true],
    ["KernelBench", byKernelbench],
    ["over torch.compile", (row) => times(row.compile), true, true],
    ["over max-autotune", (row) => times(row.max_autotune), true, true],
    ["roofline", (row) => (row.roofline === null ? "–" : percent(row.roofline)), true, true],
    ["spent", (row) => usd(row.usd), true, true],
    ["tokens", (row) => count(row.tokens), true, true],
    ["time", (row) => duration(60 * row.minutes), true, true],
  ];
  const fill = (fate) => holder.replaceChildren(table(columns, page.rows.filter((row) => fate === "all" || row.fate === fate), { under: (row) => whyUnder(row.reason) }));
  fill("all");
  return section("searches", "Searches",
    choice("show", [["all", "all"], ...fates.map((fate) => [fate, `${fate} (${number(fate)})`])], "all", fill), holder);
}

function searchFacts(page, row) {
  return [
    ["task", text(row.task)], ["seed", String(row.seed)], ["strict verdict", fateOf(page, row)],
    ["over eager PyTorch", measured(row)], ["over torch.compile", times(row.compile)], ["over max-autotune", times(row.max_autotune)],
    ["KernelBench's own", byKernelbench(row)], ["share of the roofline", row.roofline === null ? "–" : percent(row.roofline)],
    ["took", `${usd(row.usd)}, ${count(row.tokens)} tokens, ${plural(row.evaluations, "evaluation")}, ${duration(60 * row.minutes)}, of the device ${duration(60 * row.device_minutes)}`],
    ["the whole search", row.page ? el("a", { href: row.page }, text(row.page)) : "–"],
    row.reason ? ["why", text(row.reason)] : null,
  ].filter((fact) => fact);
}

startPage(BOARD_NAV, boardSections, searchFacts);
