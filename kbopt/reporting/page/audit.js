// The page of an audit: what a set of published kernels claims, and what of it was confirmed.

const AUDIT_NAV = [["overview", "overview"], ["claims", "claims"], ["families", "rejections"], ["kernels", "kernels"], ["how", "how"]];

const UNJUDGED = ["refused", "lost", "waiting", "broken", "empty"];

const numberOf = (page, standing) => page.sums.standings[standing] ?? 0;

function standingOf(page, row) {
  const meaning = page.standings[row.standing];
  const status = row.outcome ?? null;
  if (status === null) return el("span", { class: "dim" }, meaning);
  if (row.standing === "packages") return el("span", {}, badge(status), el("span", { class: "dim small" }, ` no package ${row.package}`));
  return el("span", {}, badge(status), row.family ? el("span", { class: "small" }, ": ", breakable(row.family)) : null,
    row.standing === "not faster" ? [" ", claim("not faster")] : null,
    row.standing === "confirmed" && row.custom_kernel === false ? [" ", claim("no custom kernel")] : null);
}

const taskOf = (row) => el("span", {}, text(row.task), row.own_reference ? el("span", { class: "dim small" }, ", the set's own reference") : null);
const claimed = (row) => (row.claim === null ? "–" : times(row.claim));

function auditSections(page) {
  const { header, sums } = page;
  const judged = page.rows.filter((row) => row.outcome !== null);
  return [
    el("section", { class: "bare", id: "overview" },
      el("h1", {}, text(`Audit of ${header.name}`)),
      el("p", { class: "dim" }, text(`${count(sums.entries)} ${sums.entries === 1 ? "entry" : "entries"} in the format ${header.form}, judged on ${header.device || "no device"}.`)),
      el("div", { class: "cards", style: "--columns: 5" },
        card("confirmed", `${numberOf(page, "confirmed")} of ${sums.entries}`,
          `correct, and faster than eager PyTorch with 95 % confidence; ${sums.only_pytorch} with PyTorch's own operators alone`, "hero"),
        card("geometric means", sums.compared ? `${times(sums.claimed_mean)} → ${times(sums.measured_mean)}` : "–",
          sums.compared ? `claimed and measured, of the same ${plural(sums.compared, "kernel")}` : "no kernel has a claim and a measured speedup"),
        card("claims reached", sums.claims ? `${sums.claims_reached} of ${sums.claims}` : "–", "by the upper end of the interval"),
        card("not faster", count(numberOf(page, "not faster")), page.standings["not faster"]),
        card("wrong", count(numberOf(page, "wrong")), `${sums.wrong_to_us_alone} of them correct to KernelBench`),
        card("rejected", count(numberOf(page, "rejected")), `${sums.rejected_to_us_alone} of them correct to KernelBench`),
        card("did not run", count(numberOf(page, "failed")), page.standings.failed),
        card("without a package", count(numberOf(page, "packages")),
          Object.entries(sums.packages).map(([name, number]) => `${name} (${number})`).join(", ") || "none"),
        card("not judged", count(UNJUDGED.reduce((sum, one) => sum + numberOf(page, one), 0)),
          UNJUDGED.map((one) => `${numberOf(page, one)} ${one}`).join(", ")))),
    claimSection(page),
    page.families.length ? section("families", "Why kernels were rejected",
      table([
        ["family", (row) => row.name],
        ["kernels", (row) => count(row.count), true],
        ["what they did", (row) => row.sentence],
      ], page.families, { under: (row) => el("span", {}, "for example ", nameButton(page, row.example), " ", text(row.reason)) })) : none("families", "Rejections", "No kernel was rejected."),
    kernelSection(page),
    section("how", "How it was judged",
      el("p", {}, "A kernel is confirmed where the strict verdict finds its answers right on fresh inputs and the whole 95 % interval of its speedup over eager PyTorch lies above 1. KernelBench's own verdict is told beside it and decides nothing. A claim was measured by the set's authors, often on another device: a difference in speed is no proof of a fault, wrong answers and rejections are."),
      factTable([
        ["set", header.path], ["format", header.form], ["device", header.device || "–"], ["torch", header.torch ?? "of another machine"],
        ["protocol", header.protocol], ["command", header.command], ["judged", count(judged.length)]].map(([name, value]) => [name, text(value)]))),
  ];
}

function claimSection(page) {
  const both = page.rows.filter((row) => row.claim !== null && row.speedup !== null);
  const lost = page.rows.filter((row) => row.claim !== null && row.speedup === null && row.outcome !== null);
  if (!page.sums.claims) return none("claims", "Claims", "The set states no speedups.");
  const rows = [...page.ratios, ["no speedup: wrong, rejected or not run", lost.length]];
  const most = Math.max(1, ...rows.map(([, number]) => number));
  return section("claims", "Claimed against measured",
    el("div", { class: "split" },
      both.length ? chart("claims-chart", "Measured over claimed speedup of each kernel", 360, () => claimsFigure(both), {
        onclick: (index) => openKernel(page, index) }) : el("p", { class: "dim" }, "No claim is of a kernel whose speedup could be measured."),
      table([
        ["measured speedup", ([name]) => name],
        ["kernels", ([, number]) => count(number), true],
        ["", ([, number]) => { const bar = el("i", {}); bar.style.width = `${(100 * number) / most}%`; return el("div", { class: "bartrack" }, bar); }],
      ], rows)),
    el("p", { class: "dim small" }, "On the line a kernel is as fast as claimed, below it slower. Bars are 95 % intervals."));
}

function claimsFigure(rows) {
  const ends = rows.flatMap((row) => [row.claim, row.speedup, ...row.ci]);
  const line = [Math.min(...ends) / 2, Math.max(...ends) * 10];
  const axis = speedupAxis(ends, { ends: true });
  return [[
    { type: "scatter", mode: "lines", hoverinfo: "skip", x: line, y: line, line: { color: css("--dim"), width: 1, dash: "dot" } },
    { type: "scatter", mode: "markers", x: rows.map((row) => row.claim), y: rows.map((row) => row.speedup),
      customdata: rows.map((row) => row.index), text: rows.map((row) => `${safe(row.name)}<br>claimed ${times(row.claim)}, measured ${times(row.speedup)}`),
      error_y: { type: "data", symmetric: false, thickness: 1, color: css("--dim"), array: rows.map((row) => row.ci[1] - row.speedup), arrayminus: rows.map((row) => row.speedup - row.ci[0]) },
      hovertemplate: "%{text}<extra></extra>", marker: { color: rows.map((row) => color(row.standing === "confirmed" ? "measured" : "dropped")), size: 8 } },
  ], { xaxis: { title: { text: "claimed speedup" }, ...axis }, yaxis: { title: { text: "measured speedup" }, ...axis }, showlegend: false, hovermode: "closest" }];
}

function kernelSection(page) {
  const holder = el("div", {});
  const kinds = Object.keys(page.standings).filter((one) => numberOf(page, one));
  const columns = [
    ["kernel", (row) => nameButton(page, row.index)],
    ["task", taskOf, false, true],
    ["claimed", claimed, true],
    ["strict verdict", (row) => standingOf(page, row)],
    ["over eager", measured, true],
    ["KernelBench", byKernelbench],
    ["over torch.compile", (row) => times(row.compile), true, true],
    ["over max-autotune", (row) => times(row.max_autotune), true, true],
  ];
  const baselines = page.rows.some((row) => row.compile !== null || row.max_autotune !== null);
  const fill = (kind) => holder.replaceChildren(table(baselines ? columns : columns.filter(([name]) => !/compile|autotune/.test(name)),
    page.rows.filter((row) => kind === "all" || row.standing === kind), { under: (row) => whyUnder(row.reason) }));
  fill("all");
  return section("kernels", "Kernels",
    choice("show", [["all", "all"], ...kinds.map((one) => [one, `${one} (${numberOf(page, one)})`])], "all", fill), holder);
}

function auditFacts(page, row) {
  return [
    ["stands in", text(row.where)], ["task", taskOf(row)],
    ["claimed", row.claim === null ? "nothing" : text(`${times(row.claim)}${row.claimed_on ? ` on ${row.claimed_on}` : ""}`)],
    ["strict verdict", standingOf(page, row)], ["over eager PyTorch", measured(row)],
    ["over torch.compile", times(row.compile)], ["over max-autotune", times(row.max_autotune)],
    ["KernelBench's own", byKernelbench(row)], ["why", text(row.reason)],
  ];
}

startPage(AUDIT_NAV, auditSections, auditFacts);
