// The page: which section holds what, and what is drawn again when something is chosen.
const choice = (label, options, value, changed) => {
  const select = make("select", { onchange: () => changed(select.value) }, ...options.map(([key, text]) => make("option", { value: key, textContent: text, selected: key === value })));
  return make("label", {}, label, select);
};
const facetNames = () => Object.entries(DATA.faces.facets).map(([key, one]) => [key, one.label]);
const comparison = DATA.kind === "comparison";
const view = { ced: Object.keys(DATA.ced)[0], regions: Object.keys(DATA.regions)[0], points: Object.keys(DATA.points)[0], thresholds: [8],
  run: DATA.runs[1] ?? "", x: comparison ? `error, ${DATA.runs[0]}` : "yaw" in DATA.faces.facets ? "yaw" : Object.keys(DATA.faces.facets).at(-1), y: comparison ? `error, ${DATA.runs[1]}` : "error" };

function setUpTable() {
  const { header, rows, captions, own } = DATA.table;
  const main = header.indexOf(comparison ? "difference" : "NME");
  const kind = (cells, i) => (i !== main ? "" : !comparison ? "main" : cells.at(-1) === "better" ? "better" : cells.at(-1) === "worse" ? "worse" : "main");
  part("table", "table").append(
    make("thead", {}, make("tr", {}, ...header.map((text) => make("th", { textContent: text, scope: "col" })))),
    make("tbody", {}, ...rows.map((cells, i) => make("tr", { className: i < own ? "" : "faint" }, ...cells.map((text, j) => make("td", { textContent: text, className: kind(cells, j) }))))));
  part("table", ".captions").append(...captions.map((text) => make("p", { textContent: text })));
}

function setUpFaces() {
  const way = (sort, direction, median = false) => () => { Object.assign(state, { sort, way: direction, median }); again(); };
  const presets = comparison
    ? [["Changed most", "changed by", -1], ["Got worse", "change", -1], ["Got better", "change", 1]]
    : [["Worst", "error", -1], ["Median", "error", 1, true], ["Best", "error", 1]];
  part("faces", ".presets").append(...presets.map(([text, sort, direction, median]) =>
    make("button", { type: "button", textContent: text, onclick: way(sort, direction, median), data: { sort, way: direction, median: Boolean(median) } })),
    choice("subset", [["", "all"], ...DATA.subsets.map((name) => [name, name])], "", (value) => { state.subset = value; again(); }));
  const number = (name, side) => make("input", { type: "number", step: "any", placeholder: side ? "to" : "from", ariaLabel: `${name} ${side ? "to" : "from"}`, oninput: (event) => {
    state.range[name] ??= [null, null];
    state.range[name][side] = event.target.value === "" ? null : Number(event.target.value);
    again();
  } });
  const sort = choice("sort by", facetNames(), state.sort, (value) => { Object.assign(state, { sort: value, median: false }); again(); });
  sort.querySelector("select").id = "sort";
  part("faces", ".filters").append(
    sort, choice("order", [["-1", "largest first"], ["1", "smallest first"]], "-1", (value) => { Object.assign(state, { way: Number(value), median: false }); again(); }),
    make("label", {}, "name has", make("input", { type: "search", id: "named", oninput: (event) => { state.text = event.target.value; again(); } })),
    ...facetNames().map(([name, label]) => make("label", {}, label, make("span", {}, number(name, 0), number(name, 1)))));
  byId("more").onclick = () => { state.size += 120; drawGrid(); };
  const { names, of } = DATA.faces, files = DATA.faces.files.filter(Boolean).length;
  const some = names.length < of ? `${names.length.toLocaleString("en")} of the ${of.toLocaleString("en")} faces are on this page: ${comparison ? "those that changed most" : "the worst, the best"} and a sample of the others. Tables and the other charts count all. ` : "";
  byId("which").textContent = `${some}Cyan is predicted${DATA.runs.length > 1 ? ` (${DATA.runs[0]}; pink ${DATA.runs[1]})` : ""}, amber annotated.${files ? "" : " There are no pictures: the photographs were not at hand."}`;
}

function again() {
  state.size = FIRST;
  state.order = ordered();
  for (const button of part("faces", ".presets").querySelectorAll("button")) {
    button.ariaPressed = String(button.dataset.sort === state.sort && Number(button.dataset.way) === state.way && (button.dataset.median === "true") === state.median);
  }
  byId("sort").value = state.sort;
  drawGrid();
  if (DATA.charts) drawScatter(part("scatter", ".chart"), state.order, view.x, view.y, openLarge);
}

function below() {
  const ced = DATA.ced[view.ced], at = view.thresholds[0];
  const i = Math.min(ced.x.length - 2, Math.max(0, ced.x.findIndex((x) => x > at) - 1)), share = (at - ced.x[i]) / (ced.x[i + 1] - ced.x[i]);
  const rows = Object.entries(ced.series).map(([name, y]) => { const v = y[i] + share * (y[i + 1] - y[i]); return [name, `${v.toFixed(1)} %`, `${(100 - v).toFixed(1)} %`]; });
  const table = part("ced", "table");
  table.replaceChildren(make("tr", {}, ...["", `at most ${at.toFixed(2)} %`, "above"].map((text) => make("th", { textContent: text }))),
    ...rows.map((cells) => make("tr", {}, ...cells.map((text) => make("td", { textContent: text })))));
}

function drawCharts() {
  const missing = `Charts need Bokeh: ${DATA.install}, then facelm report FOLDER (or facelm compare) makes this page again.`;
  if (!DATA.charts) {
    for (const place of document.querySelectorAll(".chart, .charts")) { place.style.height = "auto"; place.replaceChildren(make("p", { className: "hint", textContent: missing })); }
    return;
  }
  const slider = byId("threshold");
  view.thresholds.spans = [];
  drawCed(part("ced", ".chart"), DATA.ced[view.ced], view.thresholds, (i, location) => { view.thresholds[i] = location; slider.value = location; below(); });
  drawRegions(part("regions", ".chart"), DATA.regions[view.regions]);
  const points = DATA.points[view.points];
  drawPoints(part("points", ".chart"), points[comparison ? DATA.runs[0] : ""], comparison ? points[view.run] : null);
  if (DATA.curves.best || Object.keys(DATA.curves).length) {
    const { best, ...curves } = DATA.curves;
    part("curves", ".charts").replaceChildren(...Object.values(curves).map((curve) => { const place = make("div"); requestAnimationFrame(() => drawCurve(place, curve, best?.step)); return place; }));
    part("curves", ".best").textContent = best ? `Best epoch: ${best.epoch ?? "?"}, step ${best.step}, val NME ${shown(best.nme)} %.` : "";
  }
}

function setUpControls() {
  const redraw = (name) => (value) => { view[name] = value; below(); drawCharts(); };
  const slider = make("input", { type: "range", id: "threshold", min: 0, max: DATA.ced[view.ced].x.at(-1), step: 0.05, value: 8, oninput: () => {
    view.thresholds[0] = Number(slider.value);
    for (const span of view.thresholds.spans ?? []) span.location = view.thresholds[0];
    below();
  } });
  const several = (section, name) => { const keys = Object.keys(DATA[name]); return keys.length > 1 ? [choice("subset", keys.map((key) => [key, key]), view[name], redraw(name))] : []; };
  part("ced", ".controls").append(...several("ced", "ced"), make("label", {}, "threshold", slider));
  part("regions", ".controls").append(...several("regions", "regions"));
  const runs = DATA.runs.length > 2 ? [choice("run", DATA.runs.slice(1).map((name) => [name, name]), view.run, redraw("run"))] : [];
  part("points", ".controls").append(...several("points", "points"), ...runs);
  const axis = (label, name) => choice(label, facetNames(), view[name], (value) => { view[name] = value; if (DATA.charts) drawScatter(part("scatter", ".chart"), state.order, view.x, view.y, openLarge); });
  part("scatter", ".controls").append(axis("across", "x"), axis("up", "y"));
  part("points", ".hint").textContent = comparison
    ? `Radius: how much the error of a point changes from ${DATA.runs[0]} to ${view.run}; green is better, red worse. Not to the face's scale.`
    : "Radius: the mean error of a point at the scale of the face. Arrow: its bias, ten times as large. Hover for numbers along and across the contour.";
}

function setUpAbout() {
  for (const [name, value] of DATA.about) {
    const long = value.length > 300 || value.includes("\n");
    part("about", "dl").append(make("dt", { textContent: name }), make("dd", {}, long ? make("details", {}, make("summary", { textContent: "show" }), make("pre", { textContent: value })) : value));
  }
  part("about", "dl").append(make("dt", { textContent: "page by" }), make("dd", { textContent: `facelm ${DATA.version}` }));
}

function start() {
  setUpTable();
  setUpFaces();
  setUpLarge();
  setUpControls();
  setUpAbout();
  if (comparison) part("scatter", "h2").textContent = "One run against the other";
  byId("curves").hidden = !Object.keys(DATA.curves).length;
  byId("lead").textContent = DATA.lead;
  byId("nav").append(...[...document.querySelectorAll("section")].filter((one) => !one.hidden).map((one) => make("a", { href: `#${one.id}`, textContent: one.querySelector("h2").textContent })));
  state.order = ordered();
  below();
  drawCharts();
  again();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { drawCharts(); again(); });
  document.body.dataset.ready = "yes";
}
start();
