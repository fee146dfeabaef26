// Every face: decoded landmarks, thumbnails, order and filters, the large view.
const STEPS = 16, SIDE = 320, NOWHERE = -32768;
const RUN_COLORS = ["--predicted", "--second", "--third"];
const decode = (text) => {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  return new DataView(bytes.buffer);
};
const LANDMARKS = { annotated: decode(DATA.faces.annotated), predicted: DATA.faces.predicted.map(decode) };

function pointsOf(view, face) {
  const points = [], k = DATA.scheme.points;
  for (let i = 0; i < k; i++) {
    const at = 4 * (face * k + i), x = view.getInt16(at, true), y = view.getInt16(at + 2, true);
    points.push(x === NOWHERE || y === NOWHERE ? null : [x / STEPS, y / STEPS]);
  }
  return points;
}

function svg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function drawPointsOf(layer, points, stroke, width, hidden = []) {
  const place = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  const lines = DATA.scheme.contours.flatMap((line) => line.slice(1).map((to, i) => [points[line[i]], points[to]]));
  const contours = lines.filter(([a, b]) => a && b).map(([a, b]) => `M${place(a)}L${place(b)}`).join("");
  const shown = points.filter((one, i) => one && !hidden.includes(i));
  const dots = shown.map((one) => `M${place(one)}h0`).join("");
  const common = { fill: "none", "stroke-linecap": "round" };
  layer.append(svg("path", { ...common, d: contours, stroke, "stroke-width": width, opacity: 0.75 }));
  layer.append(svg("path", { ...common, d: dots, stroke: "#000", "stroke-width": 4.4 * width, opacity: 0.55 }));
  layer.append(svg("path", { ...common, d: dots, stroke, "stroke-width": 3.2 * width }));
  for (const i of hidden) if (points[i]) layer.append(svg("circle", { cx: points[i][0], cy: points[i][1], r: 2.6 * width, fill: "none", stroke, "stroke-width": width }));
}

const HEAT = DATA.faces.heatmaps ?? { files: {} };

// The heatmap of a point: a tile of the face's grey sheet says where a colour lies on the thumbnail.
function drawHeatmap(layer, face, point) {
  const { tile, columns, files } = HEAT, rows = Math.ceil(DATA.scheme.points / columns);
  const place = { x: -0.5, y: -0.5, width: SIDE, height: SIDE };
  const mask = svg("mask", { id: "heat", maskUnits: "userSpaceOnUse", ...place });
  const cut = svg("svg", { ...place, viewBox: `${tile * (point % columns)} ${tile * Math.floor(point / columns)} ${tile} ${tile}` });
  cut.append(svg("image", { href: files[face], width: tile * columns, height: tile * rows }));
  mask.append(cut);
  layer.append(mask, svg("rect", { ...place, class: "heat", fill: css("--heat"), mask: "url(#heat)" }));
}

function picture(face, run, options = {}) {
  const { annotated = true, predicted = true, numbers = false, width = 1.1, point = null } = options;
  const box = make("span", { className: "picture" });
  if (DATA.faces.files[face]) box.append(make("img", { src: DATA.faces.files[face], alt: "", loading: options.now ? "eager" : "lazy", decoding: "async" }));
  const layer = svg("svg", { viewBox: `-0.5 -0.5 ${SIDE} ${SIDE}`, "aria-hidden": "true" });  // pixel i is centred on i
  if (point !== null && HEAT.files[face]) drawHeatmap(layer, face, point);
  if (annotated) drawPointsOf(layer, pointsOf(LANDMARKS.annotated, face), css("--annotated"), width, DATA.faces.hidden[face]);
  if (predicted) drawPointsOf(layer, pointsOf(LANDMARKS.predicted[run], face), css(RUN_COLORS[run % 3]), width);
  const chosen = point === null ? null : pointsOf(LANDMARKS.predicted[run], face)[point];
  if (chosen) layer.append(svg("circle", { cx: chosen[0], cy: chosen[1], r: 4, fill: "none", stroke: "#fff", "stroke-width": 0.8 }));
  if (numbers) {
    const where = predicted ? LANDMARKS.predicted[run] : LANDMARKS.annotated;
    pointsOf(where, face).forEach((one, i) => {
      if (!one) return;
      const text = svg("text", { x: one[0] + 2, y: one[1] - 2, fill: "#fff" });
      text.textContent = i;
      layer.append(text);
    });
  }
  box.append(layer);
  if (DATA.runs.length > 1) box.append(make("b", { textContent: DATA.runs[run] }));
  return box;
}

const runsShown = () => DATA.runs.map((_, run) => run);

function tile(face) {
  const pictures = make("span", { className: "pictures" }, ...runsShown().slice(0, 2).map((run) => picture(face, run)));
  const { facets } = DATA.faces, key = state.sort in facets ? state.sort : "error";
  const main = DATA.kind === "comparison" ? "change" : "error";
  const value = facets[main].values[face], change = main === "change";
  const said = key === main || key === "changed by" ? "" : `${facets[key].label} ${shown(facets[key].values[face], facets[key].digits)}`;
  const words = make("span", { className: "words" },
    make("strong", { textContent: `${change && value > 0 ? "+" : ""}${shown(value)} ${change ? "points" : "%"}`, className: !change || !value ? "" : value > 0 ? "worse" : "better" }),
    said, make("i", { textContent: `\u200e${DATA.faces.names[face]}`, title: DATA.faces.names[face] }));
  const button = make("button", { className: "tile", type: "button", data: { face } }, pictures, words);
  button.addEventListener("click", () => openLarge(face));
  return button;
}

const FIRST = DATA.kind === "comparison" ? 12 : 28;  // faces before "More"
const state = { sort: DATA.kind === "comparison" ? "changed by" : "error", way: -1, subset: "", text: "", range: {}, size: FIRST, median: false, order: [] };

function ordered() {
  const { facets, names, subsets } = DATA.faces;
  const wanted = state.subset === "" ? null : DATA.subsets.indexOf(state.subset);
  const text = state.text.toLowerCase();
  const within = Object.entries(state.range).filter(([, [low, high]]) => low !== null || high !== null);
  const found = names.map((_, i) => i).filter((i) =>
    (wanted === null || subsets[i].includes(wanted)) && (!text || names[i].toLowerCase().includes(text)) &&
    within.every(([name, [low, high]]) => { const v = facets[name].values[i]; return v !== null && (low === null || v >= low) && (high === null || v <= high); }));
  const values = facets[state.sort].values;
  let key = (i) => (values[i] === null ? Infinity : state.way * values[i]);
  if (values.some((v) => v === null) && state.sort === "error") key = (i) => (values[i] === null ? state.way * 1e9 : state.way * values[i]);
  if (state.median) {
    const known = found.map((i) => values[i]).filter((v) => v !== null).sort((a, b) => a - b), middle = known[Math.floor(known.length / 2)] ?? 0;
    key = (i) => (values[i] === null ? Infinity : Math.abs(values[i] - middle));
  }
  return found.map((i) => [key(i), i]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, i]) => i);
}

function drawGrid() {
  const grid = part("faces", ".grid");
  grid.classList.toggle("pairs", DATA.runs.length > 1);
  grid.replaceChildren(...state.order.slice(0, state.size).map(tile));
  byId("more").hidden = state.order.length <= state.size;
  const all = DATA.faces.names.length;
  byId("count").textContent = `${state.order.length} of ${all} faces, ${state.median ? "median first" : state.way < 0 ? "largest first" : "smallest first"}: ${DATA.faces.facets[state.sort].label}`;
}

const large = { face: 0, annotated: true, predicted: true, numbers: false, point: null };

function openLarge(face) {
  large.face = face;
  drawLarge();
  if (!byId("large").open) byId("large").showModal();
}

function drawLarge() {
  const { facets, names, subsets } = DATA.faces, face = large.face;
  part("large", "h3").textContent = `${names[face]} · ${subsets[face].map((s) => DATA.subsets[s]).join(", ")}`;
  const views = part("large", ".views");
  views.classList.toggle("several", DATA.runs.length > 1);
  views.replaceChildren(...runsShown().map((run) => picture(face, run, { ...large, width: 0.6, now: true })));
  part("large", "output").textContent = large.point === null ? "" : !HEAT.files[face] ? "no heatmap is kept of this face" : `peak ${shown(HEAT.peaks[face][large.point], 2)}`;
  part("large", ".point").value = large.point ?? "";
  const rows = Object.values(facets).map((one) => [one.label, shown(one.values[face], one.digits)]);
  part("large", "table").replaceChildren(make("tbody", {}, ...rows.map(([name, value]) => make("tr", {}, make("td", { textContent: name }), make("td", { textContent: value })))));
}

function step(by) {
  const at = state.order.indexOf(large.face), to = state.order[at + by];
  if (to !== undefined) { large.face = to; drawLarge(); }
}

function choose(point) {
  large.point = point;
  drawLarge();
}

// The predicted point of the picture that is nearest to a click, at most 12 of its pixels away.
function pointAt(event, picture) {
  const { left, top, width } = picture.getBoundingClientRect();
  const x = ((event.clientX - left) / width) * SIDE - 0.5, y = ((event.clientY - top) / width) * SIDE - 0.5;
  const far = pointsOf(LANDMARKS.predicted[0], large.face).map((one) => (one ? Math.hypot(one[0] - x, one[1] - y) : Infinity));
  const nearest = Math.min(...far);
  return nearest > 12 ? null : far.indexOf(nearest);
}

function setUpLarge() {
  const box = (name, label, dot) => {
    const input = make("input", { type: "checkbox", checked: large[name], onchange: (event) => { large[name] = event.target.checked; drawLarge(); } });
    const whole = make("label", {}, input, make("span", { className: dot ? "key" : "", textContent: ` ${label}` }));
    whole.style.setProperty("--dot", dot ? `var(${dot})` : "none");
    return whole;
  };
  part("large", ".toggles").append(
    make("button", { type: "button", textContent: "← previous", onclick: () => step(-1) }),
    make("button", { type: "button", textContent: "next →", onclick: () => step(1) }),
    box("predicted", "predicted", "--predicted"), box("annotated", "annotated", "--annotated"), box("numbers", "numbers", ""));
  const points = Array.from({ length: DATA.scheme.points }, (_, i) => make("option", { value: i, textContent: [i, DATA.scheme.names[i]].join(" ") }));
  const select = make("select", { className: "point", onchange: () => choose(select.value === "" ? null : Number(select.value)) }, make("option", { value: "", textContent: "none" }), ...points);
  const heatmap = make("span", { className: "heatmap", hidden: !Object.values(HEAT.files).some(Boolean) }, make("label", {}, "heatmap of point", select), make("output"));
  part("large", ".toggles").append(heatmap);
  if (!heatmap.hidden) part("large", ".views").addEventListener("click", (event) => {
    const picture = event.target.closest(".picture");
    if (picture) choose(pointAt(event, picture));
  });
  byId("large").addEventListener("keydown", (event) => {
    if (event.target === select) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  byId("large").addEventListener("click", (event) => { if (event.target === byId("large")) byId("large").close(); });
}
