// What every page has around its content: the theme and the links to its sections.

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  document.getElementById("theme").textContent = name === "dark" ? "light" : "dark";
  document.getElementById("theme").setAttribute("aria-label", `switch to the ${name === "dark" ? "light" : "dark"} theme`);
}

function fillNav(items) {
  document.getElementById("nav").replaceChildren(...items.map(([id, name]) => el("a", { href: `#${id}` }, name)));
}
