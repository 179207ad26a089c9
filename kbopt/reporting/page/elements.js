// Building blocks. Every text of a kernel, a model or a machine becomes a text node here, never markup.

const STATUSES = {
  measured: { label: "correct, measured", symbol: "circle", mark: "●", light: "#0a8f63", dark: "#4cc38a" },
  wrong_answer: { label: "wrong answer", symbol: "square", mark: "■", light: "#c98500", dark: "#f0b429" },
  compile_failed: { label: "compile failed", symbol: "diamond", mark: "◆", light: "#b5509c", dark: "#e79bd0" },
  crashed: { label: "crashed", symbol: "x", mark: "✖", light: "#d5480b", dark: "#ff8f5e" },
  timed_out: { label: "timed out", symbol: "triangle-up", mark: "▲", light: "#1f6fb8", dark: "#6cb6ff" },
  rejected: { label: "rejected by an audit", symbol: "star", mark: "★", light: "#b3001e", dark: "#ff6b81" },
  dropped: { label: "dropped by the epsilon-net", symbol: "circle-open", mark: "○", light: "#77828f", dark: "#93a1b0" },
  pending: { label: "not evaluated yet", symbol: "line-ns-open", mark: "┃", light: "#77828f", dark: "#93a1b0" },
};

function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const theme = () => document.documentElement.dataset.theme;
const color = (status) => STATUSES[status][theme()];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const figure = (value) =>
  value >= 100 ? Math.round(value).toLocaleString("en") : value >= 0.1 ? value.toFixed(2) : value.toPrecision(3);
const times = (value) => (value === null || value === undefined ? "–" : `${figure(value)}×`);
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
const count = (value) => value.toLocaleString("en");
const plural = (value, one) => `${count(value)} ${one}${value === 1 ? "" : "s"}`;
// Some money is never written as none: below a cent two significant digits.
const usd = (value) => (value <= 0 ? "$0" : value >= 0.01 ? `$${value.toFixed(2)}` : `$${Number(value.toPrecision(2)).toFixed(12).replace(/0+$/, "")}`);
const interval = (ci) => (ci ? `${figure(ci[0])} to ${figure(ci[1])}` : "–");
const ms = (value) => `${value.toPrecision(4)} ms`;

const moment = (unix) => `${new Date(unix * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;

// What was raised, when, and after how much of the search's own time.
const raiseText = (one) => `${one.text}, on ${moment(one.time)}, after ${duration(one.minutes * 60)}`;

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const whole = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

// Characters that would reorder or hide the text around them are shown by their number.
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/;

function shown(text) {
  return text.split(new RegExp(`(${CONTROLS.source})`)).filter((part) => part).map((part) => {
    if (!CONTROLS.test(part)) return document.createTextNode(part);
    const code = part.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
    return el("span", { class: "control", title: "a control character, shown by its number" }, `U+${code}`);
  });
}

// A name that may be parted after its underscores and slashes, where the page is narrow.
const breakable = (name) => name.split(/(?<=[_/])/).flatMap((part, i) => [i ? el("wbr") : null, ...shown(part)]);

// What a reader did inside a node, to be done again to the one that replaces it: opened, scrolled, focused.
function readersPlace(node) {
  const opened = new Set([...node.querySelectorAll("details[open]:not([data-newest])")].map((one) => one.firstChild.textContent));
  const scrolled = [...node.querySelectorAll(".scroll")].map((one) => one.scrollTop);
  const focused = node.contains(document.activeElement) ? document.activeElement.textContent : null;
  return (next) => {
    for (const one of next.querySelectorAll("details")) one.open ||= opened.has(one.firstChild.textContent);
    next.querySelectorAll(".scroll").forEach((one, i) => { one.scrollTop = scrolled[i] ?? 0; });
    if (focused) [...next.querySelectorAll("button")].find((one) => one.textContent === focused)?.focus({ preventScroll: true });
  };
}

// What may be claimed of a correct kernel; nothing is added to one that is faster.
const STATE_CLASSES = { "faster": "", "not faster": "not-faster", "no custom kernel": "no-kernel" };
const claim = (state) => (STATE_CLASSES[state] ? el("span", { class: `claim ${STATE_CLASSES[state]}` }, state) : null);

const badge = (status) => {
  const mark = el("span", { class: "mark", "aria-hidden": "true" }, STATUSES[status].mark);
  mark.style.color = color(status);
  return el("span", { class: "badge" }, mark, el("span", { class: "label" }, ` ${STATUSES[status].label}`));
};

function code(tokens) {
  const spans = tokens.map(([name, text]) => (name ? el("span", { class: name }, ...shown(text)) : shown(text)));
  return el("pre", { class: "code", tabindex: "0" }, el("code", {}, ...spans.flat()));
}

function plain(text) {
  return el("pre", { class: "wrap", tabindex: "0" }, ...shown(text));
}

function diffBlock(diff) {
  if (diff === "") return el("p", { class: "dim" }, "The same source.");
  const kinds = { "+": "line add", "-": "line del", "@": "line hunk" };
  const lines = diff.split("\n").map((line) => el("span", { class: kinds[line[0]] ?? "line" }, ...shown(line)));
  return el("pre", { class: "diff", tabindex: "0" }, ...lines);
}

// columns: [heading, cell of a row, is a number, only where the page is wide]; `under` makes what stands below a row in
// its whole width, null where there is nothing
function table(columns, rows, { caption, rowClass, under } = {}) {
  const kind = (number, wide) => [number ? "number" : "", wide ? "wide-only" : ""].join(" ").trim();
  const head = el("tr", {}, columns.map(([name, , number, wide]) => el("th", { scope: "col", class: kind(number, wide) }, name)));
  const body = rows.map((row) => {
    const below = under?.(row) ?? null;
    return [
      el("tr", { class: [rowClass?.(row) ?? "", below === null ? "" : "over"].join(" ").trim() },
        columns.map(([, cell, number, wide]) => el("td", { class: kind(number, wide) }, cell(row) ?? "–"))),
      below === null ? null : el("tr", { class: "under" }, el("td", { colspan: columns.length }, below)),
    ];
  });
  return el("div", { class: "scroll", tabindex: "0" },
    el("table", {}, caption ? el("caption", {}, caption) : null, el("thead", {}, head), el("tbody", {}, body)));
}

// facts: [name, value]
const factTable = (facts) =>
  el("table", { class: "facts" }, el("tbody", {}, facts.map(([name, cell]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, cell)))));

// entries: [name, function that makes the content]; content is made when its tab is first opened
function tabs(label, entries) {
  const panel = el("div", { role: "tabpanel" });
  const buttons = entries.map(([name, make], index) =>
    el("button", { type: "button", role: "tab", onclick: () => open(index) }, name));
  const open = (index) => {
    buttons.forEach((button, i) => {
      button.setAttribute("aria-selected", String(i === index));
      button.tabIndex = i === index ? 0 : -1;
    });
    panel.replaceChildren(entries[index][1]());
  };
  const list = el("div", { class: "tablist", role: "tablist", "aria-label": label, onkeydown: (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.stopPropagation();
    const next = (buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length;
    open(next);
    buttons[next].focus();
  } }, buttons);
  open(0);
  return el("div", {}, list, panel);
}

function choice(label, options, chosen, onchoose) {
  const buttons = options.map(([value, name]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => {
      buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === value)));
      onchoose(value);
    } }, name));
  return el("div", { class: "row", role: "group", "aria-label": label }, el("span", { class: "dim small" }, label), buttons);
}

function section(id, heading, ...children) {
  return el("section", { id, "aria-labelledby": `${id}-heading` }, el("h2", { id: `${id}-heading` }, heading), children);
}

// A section that has nothing to say, in one line.
function none(id, heading, text) {
  const node = section(id, heading, el("p", { class: "dim" }, text));
  node.classList.add("none");
  return node;
}

// An arrow of two characters could be parted at the end of a line.
const noteText = (note) => el("bdi", {}, ...shown(note.replaceAll("->", "→")));
