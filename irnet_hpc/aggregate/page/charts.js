"use strict";
// Charts of predictions, drawn by Bokeh once they come into view. A task's boxes choose the models, its periodic table the
// materials. No text of a table becomes markup: it is set as text, and Bokeh escapes what its tooltips show.
(() => {
  const read = (id) => document.getElementById(id);
  const { figure, tasks } = JSON.parse(read("points").textContent);
  const COLOURS = ["blue", "red", "green", "pink", "orange", "sky", "wine", "olive", "indigo", "teal"];
  const MARKERS = ["circle", "triangle", "square", "diamond", "inverted_triangle", "plus", "x", "star"];
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const floats = (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), view = new DataView(bytes.buffer);
    return Float32Array.from({ length: bytes.length / 4 }, (_, place) => view.getFloat32(4 * place, true));
  };
  const digits = (value) => String(Number(value.toPrecision(4)));
  // Bokeh's script is text until a chart needs it, so it does not delay the page.
  const library = () => {
    if (!window.Bokeh) {
      const script = document.createElement("script");
      script.textContent = read("bokeh").textContent;
      document.head.append(script);
      window.Bokeh?.logger.set_level("error");  // set_log_level of 3.9.2 logs a line itself
    }
    return window.Bokeh;
  };

  const chart = async (box) => {
    const task = tasks[box.dataset.task], fold = box.closest(".task");
    task.target = floats(task.target);
    for (const model of task.models) {
      model.prediction = floats(model.prediction);
      model.error = model.error ? floats(model.error) : model.prediction.map((value, row) => Math.abs(value - task.target[row]));
    }
    task.drawn = new Set(task.ids.keys());
    for (const row of task.worst) task.drawn.delete(row);
    task.symbols = task.elements.map((text) => new Set(text.split(" ")));
    const Bokeh = library();
    await Bokeh.embed.embed_item(structuredClone(figure), box.querySelector(".plot"));
    const drawing = Bokeh.documents.at(-1), part = (name) => drawing.get_model_by_name(name);
    const [plot, source, points, line, xs, ys] = ["plot", "source", "points", "line", "x", "y"].map(part);
    const boxes = Array.from(box.querySelectorAll("input[name=model]"));
    const tiles = Array.from(fold.querySelectorAll(".elements button"));
    const one = (selector) => box.querySelector(selector);

    const style = () => {
      const [ink, muted, grid, page] = ["ink", "muted", "grid", "page"].map(colour);
      // The border hides what the diagonal leaves outside of the frame.
      plot.setv({ outline_line_color: null, border_fill_color: page });
      for (const axis of [...plot.below, ...plot.left]) {
        axis.setv({ axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: muted, major_tick_line_color: muted,
          minor_tick_line_color: null });
      }
      for (const lines of plot.center.filter((other) => other.type === "Grid")) lines.setv({ grid_line_color: grid });
      line.line_color = muted;
      boxes.forEach((input, number) => {
        input.parentElement.style.setProperty("--own", `var(--${COLOURS[number % COLOURS.length]})`);
      });
    };
    const show = () => {
      const residuals = one("[value=residual]").checked, whole = one("[name=whole]").checked;
      const chosen = boxes.flatMap((input, number) => input.checked ? [number] : []);
      const wanted = tiles.filter((tile) => tile.getAttribute("aria-pressed") === "true").map((tile) => tile.dataset.element);
      const rows = Array.from(task.ids.keys()).filter((row) => wanted.every((symbol) => task.symbols[row].has(symbol)));
      const data = { x: [], y: [], colour: [], marker: [], model: [], formula: [], id: [], target: [], predicted: [], error: [] };
      const maes = [];
      for (const number of chosen) {
        const model = task.models[number], own = colour(COLOURS[number % COLOURS.length]);
        let sum = 0, n = 0;
        for (const row of rows) {
          const target = task.target[row], predicted = model.prediction[row];
          if (!Number.isFinite(predicted)) continue;
          data.x.push(target); data.y.push(residuals ? predicted - target : predicted); data.colour.push(own);
          data.marker.push(MARKERS[number % MARKERS.length]); data.model.push(model.name); data.formula.push(task.formulas[row]);
          data.id.push(task.ids[row]); data.target.push(`${digits(target)} ${task.unit}`);
          data.predicted.push(`${digits(predicted)} ${task.unit}`); data.error.push(`${digits(model.error[row])} ${task.unit}`);
          if (!task.drawn.has(row)) continue;  // there because its error is large
          sum += model.error[row]; n += 1;
        }
        maes.push(n ? `${model.name}: MAE ${(sum / n).toPrecision(3)} ${task.unit} (${n.toLocaleString("en")} rows)` : `${model.name}: no rows`);
      }
      source.selected.indices = [];
      source.data = data;
      const models = chosen.map((number) => task.models[number]);
      const span = (pairs, values) => {
        const ends = whole ? [values] : pairs;
        const low = ends.reduce((least, pair) => pair.reduce((a, b) => Math.min(a, b), least), Infinity);
        const high = ends.reduce((most, pair) => pair.reduce((a, b) => Math.max(a, b), most), -Infinity);
        if (!Number.isFinite(low)) return { start: 0, end: 1, reset_start: 0, reset_end: 1 };
        const margin = whole ? 0.03 * (high - low) || 0.5 : 0;
        return { start: low - margin, end: high + margin, reset_start: low - margin, reset_end: high + margin };
      };
      if (residuals) {
        xs.setv(span(models.map((model) => model.targets), data.x));
        ys.setv(span(models.map((model) => [-model.edge, model.edge]), data.y.concat(data.y.map((value) => -value))));
      } else {
        const both = span(models.map((model) => model.parity), data.x.concat(data.y));
        xs.setv(both); ys.setv(both);
      }
      line.gradient = residuals ? 0 : 1;
      points.glyph.size = { value: data.x.length > 3000 ? 4 : 7 };
      plot.below[0].axis_label = `${task.property} (${task.unit})`;
      plot.left[0].axis_label = residuals ? `predicted minus target (${task.unit})` : `predicted (${task.unit})`;
      const beyond = data.x.filter((x, place) => x < xs.start || x > xs.end || data.y[place] < ys.start || data.y[place] > ys.end).length;
      one(".beyond").textContent = beyond ? `Beyond the axes and not shown: ${beyond.toLocaleString("en")} of ${data.x.length.toLocaleString("en")} points.` : "";
      const which = wanted.length ? `Only materials with ${wanted.join(" and ")}. ` : "";
      one(".shown").textContent = `${which}${maes.join("; ") || "No model is chosen."}`;
      one(".picked").textContent = "";
    };
    const pick = () => {
      const texts = source.selected.indices.slice(0, 5).map((place) =>
        `${source.data.formula[place]} (${source.data.id[place]}): target ${source.data.target[place]}, predicted ${source.data.predicted[place]} by ${source.data.model[place]}`);
      one(".picked").textContent = texts.join("; ");
    };
    source.selected.properties.indices.change.connect(pick);
    box.addEventListener("change", show);
    for (const tile of tiles) {
      tile.addEventListener("click", () => {
        tile.setAttribute("aria-pressed", String(tile.getAttribute("aria-pressed") !== "true"));
        show();
      });
    }
    dark.addEventListener("change", () => { style(); show(); });
    style();
    show();
    fold.classList.add("live");
    box.dataset.drawn = "";
  };

  let queue = Promise.resolve();  // one after the other, since each takes the newest of Bokeh's documents
  const watcher = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      watcher.unobserve(target);
      queue = queue.then(() => chart(target)).catch((error) => {
        target.hidden = true;  // the plain figures stay
        console.error(error);
      });
    }
  }, { rootMargin: "400px" });
  for (const box of document.querySelectorAll(".interactive")) { box.hidden = false; watcher.observe(box); }
})();
