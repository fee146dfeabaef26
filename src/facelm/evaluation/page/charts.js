"use strict";
// The charts, by Bokeh. Colours are those of page.css; all is drawn anew when light turns to dark.
const DATA = JSON.parse(document.getElementById("data").textContent);
const make = (tag, options = {}, ...children) => {
  const { data = {}, ...rest } = options, element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
};
const byId = (id) => document.getElementById(id);
const part = (id, what) => byId(id).querySelector(what);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const color = (place) => css(`--s${place % 6}`);
const shown = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const nan = (values) => values.map((value) => (value === null ? NaN : value));

function figure(options) {
  const plot = Bokeh.Plotting.figure({
    sizing_mode: "stretch_both", tools: "pan,box_zoom,reset,save", toolbar_location: "above", min_border: 4,
    background_fill_color: null, border_fill_color: null, outline_line_color: null, output_backend: "canvas", ...options,
  });
  plot.toolbar.logo = null;
  for (const axis of [...plot.below, ...plot.left].filter((one) => one instanceof Bokeh.Axis)) {
    axis.setv({
      axis_label_text_color: css("--soft"), major_label_text_color: css("--soft"), axis_line_color: css("--line"),
      major_tick_line_color: css("--line"), minor_tick_line_color: null, axis_label_text_font_style: "normal",
      axis_label_text_font_size: "13px", major_label_text_font_size: "12px",
    });
  }
  for (const grid of plot.center.filter((one) => one instanceof Bokeh.Grid)) grid.grid_line_color = css("--grid");
  return plot;
}

function show(plot, place) {
  for (const legend of plot.center.filter((one) => one instanceof Bokeh.Legend)) {
    legend.setv({
      background_fill_color: css("--card"), background_fill_alpha: 0.85, border_line_color: null,
      label_text_color: css("--text"), label_text_font_size: "13px", click_policy: "mute", padding: 6, spacing: 2,
    });
  }
  const inside = make("div", { className: "plot" });  // of its own: Bokeh adds the chart later, and another may come first
  place.replaceChildren(inside);
  return Bokeh.Plotting.show(plot, inside);
}

function drawCed(place, ced, thresholds, moved) {
  const plot = figure({ x_axis_label: `error, % of the ${DATA.scheme.unit}`, y_axis_label: "share of faces, %", x_range: [0, ced.x.at(-1)], y_range: [0, 102] });
  Object.entries(ced.series).forEach(([name, values], i) => {
    const source = new Bokeh.ColumnDataSource({ data: { x: ced.x, y: values, name: ced.x.map(() => name) } });
    const line = plot.line({ field: "x" }, { field: "y" }, { source, line_color: color(i), line_width: 2.5, legend_label: name, muted_line_alpha: 0.15 });
    plot.add_tools(new Bokeh.HoverTool({ renderers: [line], mode: "vline", tooltips: [["", "@name"], ["error", "@x{0.00} %"], ["faces", "@y{0.0} %"]], attachment: "right" }));
  });
  thresholds.forEach((location, i) => {
    const span = new Bokeh.Span({ location, dimension: "height", line_color: css("--soft"), line_dash: [5, 4], line_width: 2, editable: true });
    plot.add_layout(span);
    span.properties.location.change.connect(() => moved(i, span.location));
    thresholds.spans = [...(thresholds.spans ?? []), span];
  });
  show(plot, place);
  const legend = plot.center.find((one) => one instanceof Bokeh.Legend);
  if (legend) legend.location = "bottom_right";
}

function drawRegions(place, regions) {
  const series = Object.entries(regions.series), width = 0.8 / series.length;
  const top = 1.2 * Math.max(...series.flatMap(([, values]) => values.map((v) => v ?? 0)), 1e-9);  // room for the legend
  const plot = figure({ y_axis_label: `error, % of the ${DATA.scheme.unit}`, y_range: [0, top], x_range: new Bokeh.FactorRange({ factors: regions.names, range_padding: 0.05 }) });
  series.forEach(([name, values], i) => {
    const offset = (i - (series.length - 1) / 2) * width;
    const source = new Bokeh.ColumnDataSource({ data: { x: regions.names.map((one) => [one, offset]), region: regions.names, top: nan(values), name: values.map(() => name) } });
    const bars = plot.vbar({ x: { field: "x" }, top: { field: "top" }, bottom: 0, width: width * 0.92, source, fill_color: color(i), line_color: null, legend_label: name, muted_fill_alpha: 0.2 });
    plot.add_tools(new Bokeh.HoverTool({ renderers: [bars], tooltips: [["", "@name, @region"], ["error", "@top{0.00} %"]] }));
  });
  const legend = plot.center.find((one) => one instanceof Bokeh.Legend);
  if (legend) legend.setv({ location: "top_left", orientation: "horizontal" });
  show(plot, place);
}

function drawPoints(place, points, other) {
  // Radius: the error, or for two runs the change, in true proportion to the face times `scale`; the arrow is the bias.
  const n = points.x.length, x = nan(points.x), y = nan(points.y);
  const change = other ? points.error.map((e, i) => (e === null || other.error[i] === null ? NaN : other.error[i] - e)) : null;
  const value = change ? change.map(Math.abs) : nan(points.error);
  const finite = value.filter((v) => !Number.isNaN(v)), largest = Math.max(...finite, 1e-9);
  const scale = change ? 0.045 / largest : 0.01, arrows = change ? 0 : 0.1;
  const span = (values) => { const known = values.filter((v) => !Number.isNaN(v)); return [Math.min(...known), Math.max(...known)]; };
  const [left, right] = span(x), [top, bottom] = span(y), pad = 0.12 * (right - left);
  const plot = figure({
    match_aspect: true, x_axis_type: null, y_axis_type: null, tools: "pan,box_zoom,reset,save",
    x_range: new Bokeh.Range1d({ start: left - pad, end: right + pad }), y_range: new Bokeh.Range1d({ start: bottom + pad, end: top - pad }),
  });
  for (const grid of plot.center.filter((one) => one instanceof Bokeh.Grid)) grid.grid_line_color = null;
  for (const line of DATA.scheme.contours) plot.line(line.map((i) => x[i]), line.map((i) => y[i]), { line_color: css("--line"), line_width: 2 });
  const names = DATA.scheme.names, number = [...Array(n).keys()];
  const source = new Bokeh.ColumnDataSource({ data: {
    x, y, radius: value.map((v) => (Number.isNaN(v) ? 0 : v * scale)), number, name: number.map((i) => names[i] ?? ""),
    error: points.error.map((v) => shown(v)), along: points.along.map((v) => shown(v)), across: points.across.map((v) => shown(v)),
    bias: points.bias_x.map((v, i) => `${shown(v)}, ${shown(points.bias_y[i])}`), other: number.map((i) => (other ? shown(other.error[i]) : "")),
    change: number.map((i) => (change && !Number.isNaN(change[i]) ? (change[i] > 0 ? "+" : "") + change[i].toFixed(3) : "")),
    fill: number.map((i) => (change ? (change[i] > 0 ? css("--worse") : css("--better")) : css("--s0"))),
  } });
  const dots = plot.circle({ x: { field: "x" }, y: { field: "y" }, radius: { field: "radius" }, source, fill_color: { field: "fill" }, fill_alpha: 0.45, line_color: { field: "fill" } });
  const said = other ? [["error", "@error to @other %"], ["change", "@change"]] : [["error", "@error %"], ["along the contour", "@along %"], ["across it", "@across %"], ["bias (right, down)", "@bias %"]];
  plot.add_tools(new Bokeh.HoverTool({ renderers: [dots], tooltips: [["point", "@number @name"], ...said] }));
  if (arrows) {
    const ends = { x0: x, y0: y, x1: x.map((v, i) => v + arrows * (points.bias_x[i] ?? 0)), y1: y.map((v, i) => v + arrows * (points.bias_y[i] ?? 0)) };
    plot.add_layout(new Bokeh.Arrow({ source: new Bokeh.ColumnDataSource({ data: ends }), x_start: { field: "x0" }, y_start: { field: "y0" }, x_end: { field: "x1" }, y_end: { field: "y1" },
      line_color: css("--s1"), line_width: 2, end: new Bokeh.VeeHead({ size: 5, fill_color: css("--s1"), line_color: css("--s1") }) }));
  }
  show(plot, place);
}

function drawScatter(place, faces, xName, yName, open) {
  const { facets } = DATA.faces, x = facets[xName], y = facets[yName];
  const known = faces.filter((i) => x.values[i] !== null && y.values[i] !== null);
  const plot = figure({ x_axis_label: x.label, y_axis_label: y.label, tools: "pan,box_zoom,wheel_zoom,reset,save,tap" });
  plot.toolbar.active_scroll = null;
  const xs = known.map((i) => x.values[i]), ys = known.map((i) => y.values[i]);
  const first = known.map((i) => DATA.faces.subsets[i][0] ?? 0);
  const source = new Bokeh.ColumnDataSource({ data: { x: xs, y: ys, name: known.map((i) => DATA.faces.names[i]), fill: first.map(color), subset: first.map((s) => DATA.subsets[s] ?? "") } });
  if (DATA.kind === "comparison" && xName.startsWith("error") && yName.startsWith("error")) {
    plot.line([0, Math.max(...xs, ...ys)], [0, Math.max(...xs, ...ys)], { line_color: css("--soft"), line_dash: [4, 4] });
  }
  const dots = plot.scatter({ field: "x" }, { field: "y" }, { source, size: 8, fill_color: { field: "fill" }, line_color: null, fill_alpha: 0.6, nonselection_fill_alpha: 0.6 });
  plot.add_tools(new Bokeh.HoverTool({ renderers: [dots], tooltips: [["", "@name"], ["subset", "@subset"], [x.label, "@x{0.00}"], [y.label, "@y{0.00}"]] }));
  source.selected.properties.indices.change.connect(() => { if (source.selected.indices.length) open(known[source.selected.indices[0]]); });
  show(plot, place);
}

function drawCurve(place, curve, best) {
  const plot = figure({ x_axis_label: "step", title: curve.title, toolbar_location: null, tools: "" });
  plot.title.setv({ text_color: css("--text"), text_font_size: "14px" });
  const source = new Bokeh.ColumnDataSource({ data: { x: curve.x, y: curve.y } });
  const line = plot.line({ field: "x" }, { field: "y" }, { source, line_color: css("--s0"), line_width: 2 });
  plot.scatter({ field: "x" }, { field: "y" }, { source, size: curve.x.length < 30 ? 5 : 0, fill_color: css("--s0"), line_color: null });
  plot.add_tools(new Bokeh.HoverTool({ renderers: [line], mode: "vline", tooltips: [["step", "@x"], ["", "@y{0.0000}"]] }));
  if (best) plot.add_layout(new Bokeh.Span({ location: best, dimension: "height", line_color: css("--s1"), line_dash: [4, 4] }));
  show(plot, place);
}
