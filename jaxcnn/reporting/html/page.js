"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const narrow = matchMedia("(max-width: 600px)").matches;
  const touch = matchMedia("(pointer: coarse)").matches;

  // What the reader has chosen, kept while the page reloads itself.
  const place = "jaxcnn " + location.pathname;
  const state = {
    x: "epoch", y: "auto", training: true, live: true, hidden: [], sort: {}, only: {}, open: {},
    zoom: {}, scroll: null,
  };
  try {
    Object.assign(state, JSON.parse(sessionStorage.getItem(place)) || {});
  } catch (error) { /* a browser without storage */ }
  const save = () => {
    try {
      sessionStorage.setItem(place, JSON.stringify(state));
    } catch (error) { /* likewise */ }
  };

  // Plotly reads markup in its texts.
  const plain = (text) =>
    String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "…" : text);
  const visible = () => data.runs.filter((run) => !state.hidden.includes(run.name));
  const units = { epoch: "epoch", step: "step", hours: "hours" };
  const config = {
    responsive: true, displaylogo: false, displayModeBar: touch || "hover",
    modeBarButtons: narrow
      ? [["zoom2d", "pan2d", "resetScale2d"]]
      : [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  const font = { family: "system-ui, sans-serif", size: 12 };

  function traces(chart) {
    const found = [];
    for (const run of visible()) {
      for (const series of chart.series) {
        const rows = run[series.kind];
        const values = rows[series.column];
        const isTraining = series.column.startsWith("train_");
        if (!values || (isTraining && !state.training)) continue;
        found.push({
          x: rows[state.x],
          y: values.map((value) => (value === null ? null : value * chart.scale)),
          type: "scatter",
          mode: values.length > 60 ? "lines" : "lines+markers",
          connectgaps: true,
          line: { color: run.color, width: 1.6, dash: series.dash },
          marker: { size: 5, symbol: run.symbol },
          opacity: isTraining ? 0.7 : 1,
          hovertemplate:
            `<b>${plain(run.name)}</b><br>${series.label} %{y:.4~g}` +
            `${chart.axis.includes("%") ? " %" : ""}<br>${units[state.x]} %{x:,.4~g}<extra></extra>`,
        });
      }
    }
    return found;
  }

  function isLogarithmic(lines) {
    if (state.y !== "auto") return state.y === "log";
    const values = lines.flatMap((line) => line.y).filter((value) => value > 0);
    return values.length > 0 && Math.max(...values) > 20 * Math.min(...values);
  }

  function decades(lines) {
    const values = lines.flatMap((line) => line.y).filter((value) => value > 0);
    return values.length ? Math.log10(Math.max(...values) / Math.min(...values)) : 0;
  }

  function drawChart(chart) {
    const box = byId(chart.id);
    const lines = traces(chart);
    const isLog = isLogarithmic(lines);
    const zoom = state.zoom[chart.id] || {};
    const xaxis = { title: { text: units[state.x], standoff: 4 }, zeroline: false };
    const yaxis = { title: { text: chart.axis, standoff: 4 }, automargin: true, zeroline: false };
    yaxis.type = isLog ? "log" : "linear";
    if (isLog) yaxis.dtick = decades(lines) < 2.5 ? "D2" : 1;
    if (isLog) yaxis.exponentformat = decades(lines) < 2.5 ? "none" : "power";
    if (!isLog) yaxis.rangemode = "tozero";
    if (zoom.x) xaxis.range = zoom.x;
    if (zoom.y) yaxis.range = zoom.y;
    const layout = {
      title: { text: chart.title, x: 0.02, font: { size: 14 } },
      margin: { l: 56, r: 14, t: 38, b: 40 },
      showlegend: false, hovermode: "closest", font, xaxis, yaxis,
      dragmode: touch ? false : "zoom",
      uirevision: `${state.x} ${state.y}`,
    };
    Plotly.react(box, lines, layout, config);
    if (!box.listens) {
      box.listens = true;
      box.on("plotly_relayout", (change) => keepZoom(chart.id, change));
    }
  }

  function keepZoom(id, change) {
    const zoom = state.zoom[id] || (state.zoom[id] = {});
    for (const axis of ["x", "y"]) {
      const name = `${axis}axis`;
      if (`${name}.range[0]` in change) {
        zoom[axis] = [change[`${name}.range[0]`], change[`${name}.range[1]`]];
      }
      if (change[`${name}.range`]) zoom[axis] = change[`${name}.range`];
      if (change[`${name}.autorange`]) delete zoom[axis];
    }
    save();
  }

  function drawSeconds() {
    const box = byId("seconds");
    const runs = visible().filter((run) => run.seconds.some(([, value]) => value > 0));
    if (!box) return;
    box.hidden = !runs.length;
    if (!runs.length) return;
    const total = Math.max(...runs.map((run) => run.seconds.reduce((sum, [, v]) => sum + v, 0)));
    const [unit, size] = total > 7200 ? ["hours", 3600] : total > 180 ? ["minutes", 60] : ["s", 1];
    const colors = ["#0072B2", "#56B4E9", "#E69F00", "#009E73"];
    const bars = runs[0].seconds.map(([name], i) => ({
      type: "bar", orientation: "h", name,
      y: runs.map((_, place) => place),
      x: runs.map((run) => run.seconds[i][1] / size),
      marker: { color: colors[i] },
      hovertemplate: `${name} %{x:.3~g} ${unit}<extra></extra>`,
    }));
    box.style.height = `${Math.min(900, (narrow ? 180 : 120) + 24 * runs.length)}px`;
    const names = runs.map((run) => plain(shortened(run.name, narrow ? 14 : 40)));
    Plotly.react(box, bars, {
      barmode: "stack", margin: { l: 20, r: 14, t: narrow ? 96 : 34, b: 40 }, font, dragmode: false,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", traceorder: "normal" },
      xaxis: { title: { text: unit, standoff: 4 } },
      yaxis: {
        tickvals: names.map((_, i) => i), ticktext: names, automargin: true, autorange: "reversed",
      },
    }, { ...config, displayModeBar: false });
  }

  function drawMatrix(index) {
    const box = byId(`confusion${index}`);
    const matrix = data.runs[index].matrix;
    if (!box || !matrix || box.drawn) return;
    box.drawn = true;
    const names = matrix.names.map((name) => plain(shortened(String(name), narrow ? 10 : 20)));
    const places = names.map((_, i) => i);
    const size = Math.min(12, Math.max(7, (narrow ? 110 : 240) / names.length));
    const shares = matrix.counts.map((row) => {
      const all = row.reduce((sum, value) => sum + value, 0);
      return row.map((value) => (all ? value / all : 0));
    });
    const axis = { tickvals: places, ticktext: names, automargin: true, tickfont: { size }, showgrid: false, zeroline: false };
    Plotly.newPlot(box, [{
      type: "heatmap", x: places, y: places, z: shares, zmin: 0, zmax: 1, showscale: false,
      xgap: 1, ygap: 1, colorscale: [[0, "#f7fbff"], [0.5, "#6baed6"], [1, "#08306b"]],
      text: matrix.counts.map((row) => row.map((value) => value || "")),
      texttemplate: names.length <= 20 ? "%{text}" : "", textfont: { size },
      customdata: matrix.counts.map((row, i) =>
        row.map((value, j) => `${plain(matrix.names[i])} taken for ${plain(matrix.names[j])}: ${value}`)),
      hovertemplate: "%{customdata}<extra></extra>",
    }], {
      margin: { l: 30, r: 10, t: 30, b: 30 }, font, dragmode: touch ? false : "zoom",
      title: { text: "confusion matrix: rows are classes", x: 0.02, font: { size: 14 } },
      xaxis: { ...axis, title: { text: "prediction" }, tickangle: -90 },
      yaxis: { ...axis, title: { text: "class" }, autorange: "reversed" },
    }, config);
  }

  function drawAll() {
    data.charts.forEach(drawChart);
    drawSeconds();
    for (const run of data.runs) {
      for (const show of run.switches) show(!state.hidden.includes(run.name));
    }
  }

  function toggle(run, on) {
    state.hidden = state.hidden.filter((name) => name !== run.name);
    if (!on) state.hidden.push(run.name);
    save();
    drawAll();
  }

  function makeSwitches() {
    const chips = byId("chips");
    data.runs.forEach((run, i) => {
      run.switches = [];
      const box = document.querySelector(`input[data-run="${i}"]`);
      box.addEventListener("change", () => toggle(run, box.checked));
      run.switches.push((on) => { box.checked = on; });
      if (!chips || data.runs.length < 2) return;
      const chip = document.createElement("button");
      const dot = document.createElement("i");
      dot.style.background = run.color;
      chip.append(dot, run.name);
      chip.addEventListener("click", () => toggle(run, state.hidden.includes(run.name)));
      run.switches.push((on) => chip.setAttribute("aria-pressed", on));
      chips.append(chip);
    });
  }

  function makeControls() {
    for (const name of ["x", "y"]) {
      const choice = byId(name);
      if (!choice) return;
      choice.value = state[name];
      choice.addEventListener("change", () => {
        state[name] = choice.value;
        state.zoom = {};
        save();
        drawAll();
      });
    }
    const training = byId("training");
    training.checked = state.training;
    training.addEventListener("change", () => {
      state.training = training.checked;
      save();
      drawAll();
    });
    byId("reset").addEventListener("click", () => {
      state.zoom = {};
      save();
      for (const chart of data.charts) {
        Plotly.relayout(chart.id, { "xaxis.autorange": true, "yaxis.autorange": true });
      }
    });
  }

  function sortTable(table, column, descending) {
    const value = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
    };
    const compare = (a, b) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = typeof a === "number" && typeof b === "number"
        ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return descending ? -order : order;
    };
    const rows = [...table.tBodies[0].rows].sort((one, other) => compare(value(one), value(other)));
    table.tBodies[0].append(...rows);
    [...table.tHead.rows[0].cells].forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  function makeTables() {
    for (const table of document.querySelectorAll("table.sorts")) {
      [...table.tHead.rows[0].cells].forEach((head, column) => {
        head.firstChild.addEventListener("click", () => {
          const descending = head.getAttribute("aria-sort") === "ascending";
          state.sort[table.id] = [column, descending];
          save();
          sortTable(table, column, descending);
        });
      });
      if (state.sort[table.id]) sortTable(table, ...state.sort[table.id]);
    }
    for (const box of document.querySelectorAll("input[data-only]")) {
      const table = byId(box.dataset.only);
      const show = () => table.classList.toggle("only", box.checked);
      box.checked = state.only[table.id] ?? table.querySelector("tr.differs") !== null;
      box.addEventListener("change", () => {
        state.only[table.id] = box.checked;
        save();
        show();
      });
      show();
    }
  }

  function makeBoxes() {
    data.runs.forEach((run, i) => {
      const box = byId(`run${i}`);
      box.open = state.open[run.name] ?? box.open;
      box.addEventListener("toggle", () => {
        state.open[run.name] = box.open;
        save();
        if (box.open) drawMatrix(i);
      });
      if (box.open) drawMatrix(i);
    });
    for (const image of document.images) {
      image.addEventListener("click", () => image.classList.toggle("fits"));
    }
  }

  function makeLive() {
    const live = byId("live");
    if (!live) return;
    live.checked = state.live;
    live.addEventListener("change", () => {
      state.live = live.checked;
      save();
    });
    let pressed = false;
    addEventListener("pointerdown", () => { pressed = true; });
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => { pressed = false; });
    setInterval(() => {
      if (!live.checked || pressed || document.hidden) return;
      state.scroll = scrollY;
      save();
      location.reload();
    }, 1000 * data.reload);
  }

  makeSwitches();
  makeControls();
  makeTables();
  drawAll();
  makeBoxes();
  makeLive();
  if (state.scroll !== null) {
    history.scrollRestoration = "manual";
    scrollTo(0, state.scroll);
    state.scroll = null;
    save();
  }
})();
