// Plotly, drawn when a chart comes into view and drawn again when the theme or the data change.

const charts = new Map(); // element -> { makeFigure: () => [traces, layout], onclick, onrelayout, drawn, visible }
let plotlyReady = false;

const seen = new IntersectionObserver((changes) => {
  for (const change of changes) {
    const chart = charts.get(change.target);
    if (!chart) continue;
    chart.visible = change.isIntersecting;
    if (chart.visible && !chart.drawn) draw(change.target);
  }
}, { rootMargin: "300px" });

// onclick gets the `customdata` of a point, onrelayout the layout after the reader zoomed or moved the chart
function chart(id, label, height, makeFigure, { onclick, onrelayout } = {}) {
  const node = el("div", { id, class: "chart", role: "img", "aria-label": label });
  node.style.height = `${height}px`;
  charts.set(node, { makeFigure, onclick, onrelayout, drawn: false, visible: false });
  seen.observe(node);
  return node;
}

// `width` in pixels where it is not the element's, for a sheet of paper
function draw(node, width) {
  const entry = charts.get(node);
  if (!plotlyReady || !entry || !node.isConnected) return;
  const [traces, layout] = entry.makeFigure();
  const first = !node.classList.contains("js-plotly-plot");
  entry.drawn = true;
  Plotly.react(node, traces, { ...themed(layout), ...(width ? { width } : { autosize: true }) }, {
    displaylogo: false, responsive: !width, displayModeBar: "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
  });
  if (!first) return;
  if (entry.onclick) node.on("plotly_click", (event) => entry.onclick(event.points[0].customdata));
  if (entry.onrelayout) node.on("plotly_relayout", () => entry.onrelayout(node._fullLayout));
}

// `only` limits it to the charts inside an element
function redraw(only = document) {
  for (const [node, entry] of charts) {
    if (!node.isConnected) { charts.delete(node); seen.unobserve(node); continue; }
    if (!only.contains(node)) continue;
    if (entry.visible) draw(node);
    else entry.drawn = false;
  }
}

const PAPER = 680;

// A browser prints what is there: charts that nobody scrolled to are not, and those that are may be too wide.
function printable() {
  const name = theme();
  addEventListener("afterprint", () => { setTheme(name); redraw(); }, { once: true });
  setTheme("light");
  for (const [node] of charts) if (node.isConnected) draw(node, PAPER);
}
addEventListener("beforeprint", printable);

function themed(layout) {
  const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const themedLayout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: css("--text"), size: 12 },
    margin: { l: 50, r: 16, t: 12, b: 42 }, hoverlabel: { align: "left" }, uirevision: "kept",
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, ...layout,
  };
  for (const name of Object.keys(layout)) {
    if (/^[xy]axis\d*$/.test(name)) themedLayout[name] = { ...axis, ...layout[name] };
  }
  return themedLayout;
}

// Equal steps up and down look equal: 2× faster is as far from 1 as 2× slower.
const SPEEDUP_TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 7, 10, 20, 50, 100, 200, 500, 1000];
const POWERS = [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5].map((power) => Number(`1e${power}`));
const ladder = (...steps) => POWERS.flatMap((one) => steps.map((step) => Number((step * one).toPrecision(1))));
const LADDERS = [SPEEDUP_TICKS, ladder(1, 2, 3, 5, 7), ladder(1, 2, 5), POWERS];
const SPEEDUP_AXIS = speedupAxis([1]);

// The finest ladder whose labels do not touch between the smallest and the largest of `values`. With `ends` the axis
// reaches from a tick below the values to one above, so that the outermost can be read.
function speedupAxis(values, { ends = false } = {}) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = LADDERS.find((one) => one.filter((tick) => tick >= low && tick <= high).length <= (innerWidth < 520 ? 6 : 10)) ?? POWERS;
  const range = ends ? [ticks.findLast((tick) => tick <= low) ?? low, ticks.find((tick) => tick >= high) ?? high] : null;
  return { type: "log", tickmode: "array", tickvals: ticks, ticktext: ticks.map((value) => `${value}×`),
    ...(range ? { range: [Math.log10(range[0] / 1.1), Math.log10(range[1] * 1.1)] } : {}) };
}

// Plotly reads a little markup in texts: what others wrote must not be any.
const safe = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

async function loadPlotly() {
  const source = await unpack("packed-plotly");
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))); // the tables are on the screen first
  const script = document.createElement("script");
  script.textContent = source; // runs only because the policy names its hash
  document.head.append(script);
  plotlyReady = true;
  for (const [node, entry] of charts) {
    if (!entry.visible) continue;
    await turn(); // a click is answered between two charts
    draw(node);
  }
}

const turn = () => new Promise((resolve) => setTimeout(resolve));

async function unpack(id) {
  const holder = document.getElementById(id);
  const raw = atob(holder.textContent);
  holder.remove();
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i += 1) bytes[i] = raw.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
