
"use strict";
// Draws the episode in #data, which build_page writes. Everything is a function of the step.
(async () => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const [HEIGHT, WIDTH] = data.size;
  const LAST = data.steps - 1;
  const { heads: LINES, target: OUTLINE } = data.colors;
  const WHITE = [255, 255, 255, 255];
  const HALO = "rgb(0 0 0 / 75%)";
  const MIN_SIDE = 480; // pixels of the drawing's shorter side, so that lines stay thin
  const id = (name) => document.getElementById(name);

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("--")) element.style.setProperty(name, value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };
  const draw = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const icon = (name) => {
    const svg = draw("svg", { "aria-hidden": "true", class: `kind-${name}` });
    svg.append(draw("use", { href: `#${name}` }));
    return svg;
  };

  // Undo base64 and zlib.
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const picture = async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    return image;
  };

  for (const frames of [data.frames, data.view]) {
    if (frames !== null) frames.pictures = await Promise.all(frames.sheets.map(picture));
  }
  const masks = data.masks === null ? null : await unpack(data.masks);
  const maps = data.attention;
  const heads = maps === null ? 0 : maps.heads;
  const things = data.things === null ? null : { ...data.things, mass: await unpack(data.things.mass) };
  const [levels, halves, usable] =
    maps === null ? [] : await Promise.all([maps.levels, maps.halves, maps.usable].map(unpack));

  // ---- Formatting ----

  const number = (value, digits = 2) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    if (size >= 1e5 || (size > 0 && size < 1e-3)) return value.toExponential(1);
    const text = value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : digits);
    return Number(text) === 0 ? text.replace("-", "") : text;
  };
  // Round values that cover the known ones, at most three steps apart. Zero is among them, unless all values are
  // far from it: then they show how the values change.
  const ticksOf = (values) => {
    const known = values.filter((value) => value !== null);
    let [low, high] = [Math.min(...known), Math.max(...known)];
    if (low > 0 && low < 0.6 * high) low = 0;
    if (high < 0 && high > 0.6 * low) high = 0;
    const least = 1e-3 * Math.max(Math.abs(low), Math.abs(high)); // less is noise
    if (low === high) [low, high] = low === 0 ? [0, 1] : [Math.min(0, low), Math.max(0, high)];
    else if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
    const power = 10 ** Math.floor(Math.log10((high - low) / 3));
    const ends = (step) => [Math.floor(low / step + 1e-6), Math.ceil(high / step - 1e-6)];
    const steps = [1, 2, 2.5, 5, 10, 20].map((times) => times * power);
    const step = steps.find((size) => ends(size)[1] - ends(size)[0] <= 3);
    const [first, last] = ends(step);
    const ticks = Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
    // As many decimals as the ticks need, and one more for the values; very large and small ones have powers.
    const digits = [0, 1, 2, 3, 4].find((count) => Math.abs(Math.round(step * 10 ** count) - step * 10 ** count) < 1e-6);
    const plain = digits !== undefined && Math.max(...ticks.map(Math.abs)) < 1e5;
    const format = (decimals) => (value) =>
      value === null || !plain ? number(value) : value.toFixed(decimals).replace(/^-(?=[0.]+$)/, "");
    return { ticks, label: format(digits), show: format(digits + 1) };
  };
  const SERIES = [
    { name: "Reward", spoken: "reward", values: data.rewards, color: "var(--good)" },
    { name: "Return so far", spoken: "return", values: data.returns, color: "var(--strong)" },
    { name: "Value estimate", spoken: "value estimate", values: data.values, color: "var(--head-4)" },
  ].filter(({ values }) => values !== null).map((series) => ({ ...series, ...ticksOf(series.values) }));
  const percent = (value) => (value === null ? "–" : `${(100 * value).toFixed(0 < value && value < 0.0995 ? 1 : 0)} %`);
  const seconds = (step) => `${(step * data.dt).toFixed(2)} s`;
  const focusOf = (step, head) => (data.focus === null ? null : data.focus[step][head]);
  const timesChance = (step, head) => {
    const ratio = focusOf(step, head) / data.chance[step];
    return `${ratio.toFixed(ratio < 9.95 ? 1 : 0)} ×`;
  };
  const hidden = (step) => data.visible !== null && !data.visible[step];
  // The name of a map that is no head's attention, or null.
  const computed = maps === null ? null : { attention: null, causal: "causal map", gradient: "gradient" }[maps.kind];
  const capitalised = (text) => text[0].toUpperCase() + text.slice(1);
  const headLabel = (head) => computed ?? `head ${head}`;
  const headName = (head) => capitalised(headLabel(head));

  // ---- Attention: from cells to pixels, as robot_attn.drawing.HeatScale does ----

  const between = (centers, pixels, size) =>
    Array.from({ length: size }, (_, place) => {
      const at = ((place + 0.5) * pixels) / size - 0.5;
      const above = centers.findIndex((center) => center > at);
      if (above === -1) return [centers.length - 1, centers.length - 1, 0];
      if (above === 0) return [0, 0, 0];
      const part = (at - centers[above - 1]) / (centers[above] - centers[above - 1]);
      return [above - 1, above, part * part * (3 - 2 * part)];
    });

  class Heat {
    constructor(height, width) {
      Object.assign(this, { height, width });
      this.down = between(maps.ys, HEIGHT, height);
      this.across = between(maps.xs, WIDTH, width);
      this.canvas = make("canvas", { width, height });
      this.context = this.canvas.getContext("2d");
      this.pixels = this.context.createImageData(width, height);
    }

    // Raise `field` [height x width] to the levels, 0 to 255, of one head.
    raise(field, step, head) {
      const [rows, columns] = [maps.ys.length, maps.xs.length];
      const start = (step * heads + head) * rows * columns;
      const line = new Float32Array(columns);
      for (let y = 0; y < this.height; y++) {
        const [top, bottom, share] = this.down[y];
        for (let x = 0; x < columns; x++) {
          const [a, b] = [levels[start + top * columns + x], levels[start + bottom * columns + x]];
          line[x] = a + (b - a) * share;
        }
        for (let x = 0; x < this.width; x++) {
          const [left, right, part] = this.across[x];
          const level = line[left] + (line[right] - line[left]) * part;
          const place = y * this.width + x;
          if (level > field[place]) field[place] = level;
        }
      }
      return field;
    }

    field(step, selected) {
      const field = new Float32Array(this.height * this.width);
      for (const head of selected) this.raise(field, step, head);
      return field;
    }

    // A canvas with the heat of the heads in `selected`: at each pixel, that of the strongest. As in
    // robot_attn.drawing.blend_heat, a white line runs along the edge of the levels from `maps.line` on.
    paint(step, selected) {
      const field = this.field(step, selected);
      const bytes = this.pixels.data;
      const { width } = this;
      const low = (place) => Math.round(field[place]) < maps.line; // not beyond the frame's edge: undefined
      for (let i = 0; i < field.length; i++) {
        const level = Math.round(field[i]);
        const x = i % width;
        const edge = level >= maps.line && (low(i - width) || low(i + width) || (x > 0 && low(i - 1)) || (x < width - 1 && low(i + 1)));
        bytes.set(edge ? WHITE : maps.palette[level], 4 * i);
      }
      this.context.putImageData(this.pixels, 0, 0);
      return this.canvas;
    }
  }

  // The contour of a field [h x w] at `level`, in its pixels (marching squares). The field is 0 outside, so
  // contours close along the frame's edge.
  const contour = (field, height, width, level) => {
    const path = new Path2D();
    const at = (y, x) => (y < 0 || x < 0 || y >= height || x >= width ? 0 : field[y * width + x]);
    const cross = (y0, x0, y1, x1) => {
      const [a, b] = [at(y0, x0), at(y1, x1)];
      const part = (level - a) / (b - a);
      const [y, x] = [y0 + (y1 - y0) * part + 0.5, x0 + (x1 - x0) * part + 0.5];
      return [Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height)];
    };
    for (let y = -1; y < height; y++) {
      for (let x = -1; x < width; x++) {
        const corners = [at(y, x), at(y, x + 1), at(y + 1, x + 1), at(y + 1, x)].map((v) => v >= level);
        const places = [[y, x], [y, x + 1], [y + 1, x + 1], [y + 1, x]];
        const cuts = [0, 1, 2, 3]
          .filter((side) => corners[side] !== corners[(side + 1) % 4])
          .map((side) => cross(...places[side], ...places[(side + 1) % 4]));
        // At a saddle, join the two cuts at the first corner.
        const pairs = cuts.length === 4 ? [[cuts[3], cuts[0]], [cuts[1], cuts[2]]] : [cuts];
        for (const [from, to] of pairs) {
          if (from === undefined) continue;
          path.moveTo(...from);
          path.lineTo(...to);
        }
      }
    }
    return path;
  };

  // The outline of the target's pixels, in pixels of the frame.
  const outline = (step) => {
    const path = new Path2D();
    const on = (y, x) => {
      if (y < 0 || x < 0 || y >= HEIGHT || x >= WIDTH) return false;
      const bit = (step * HEIGHT + y) * WIDTH + x;
      return (masks[bit >> 3] >> (7 - (bit & 7))) & 1;
    };
    const edge = (x0, y0, x1, y1) => {
      path.moveTo(x0, y0);
      path.lineTo(x1, y1);
    };
    for (let y = 0; y < HEIGHT; y++) {
      for (let x = 0; x < WIDTH; x++) {
        if (!on(y, x)) continue;
        if (!on(y - 1, x)) edge(x, y, x + 1, y);
        if (!on(y + 1, x)) edge(x, y + 1, x + 1, y + 1);
        if (!on(y, x - 1)) edge(x, y, x, y + 1);
        if (!on(y, x + 1)) edge(x + 1, y, x + 1, y + 1);
      }
    }
    return path;
  };

  // ---- The large frame ----

  const frame = id("frame");
  const scale = Math.max(1, Math.ceil(MIN_SIDE / Math.min(HEIGHT, WIDTH)));
  frame.width = WIDTH * scale;
  frame.height = HEIGHT * scale;
  const screen = frame.getContext("2d");
  const view = data.view === null ? null : id("view").getContext("2d");
  if (view !== null) {
    [id("view").height, id("view").width] = data.view.size;
    id("view").setAttribute("aria-label", `The same moment from the camera ${data.view.name}`);
    id("view-name").textContent = `Camera ${data.view.name}`;
    id("other").hidden = false;
    document.querySelector("main").classList.add("two-cameras");
  }
  const fine = maps === null ? null : new Heat(HEIGHT * Math.min(scale, 4), WIDTH * Math.min(scale, 4));
  const chosen = new Set(maps === null || maps.uniform ? [] : [maps.best]);
  const mode = () => document.querySelector("input[name=mode]:checked").value;
  let step = 0;

  const paintSheet = (context, { columns, rows, size, pictures }, width, height) => {
    const place = step % (columns * rows);
    const [high, wide] = size;
    const [x, y] = [(place % columns) * wide, Math.floor(place / columns) * high];
    context.imageSmoothingEnabled = false;
    context.drawImage(pictures[Math.floor(step / (columns * rows))], x, y, wide, high, 0, 0, width, height);
    context.imageSmoothingEnabled = true;
  };
  const paintFrame = (context, width, height) => paintSheet(context, data.frames, width, height);
  const stroke = (path, factor, color, width) => {
    const scaled = new Path2D();
    scaled.addPath(path, new DOMMatrix().scale(factor));
    screen.lineCap = screen.lineJoin = "round";
    for (const [style, extra] of [[HALO, 3], [color, 0]]) {
      screen.strokeStyle = style;
      screen.lineWidth = ((width + extra) * frame.width) / MIN_SIDE / Math.max(1, WIDTH / HEIGHT);
      screen.stroke(scaled);
    }
  };
  const paintContours = () => {
    for (const head of chosen) {
      const half = halves[step * heads + head];
      if (half === 0) continue;
      const field = fine.field(step, [head]);
      const color = LINES[head % LINES.length];
      stroke(contour(field, fine.height, fine.width, half - 0.5), frame.width / fine.width, color, 2.5);
      const peak = field.indexOf(field.reduce((most, level) => Math.max(most, level)));
      const unit = frame.width / fine.width;
      screen.font = `600 ${Math.round(frame.height / 28)}px system-ui, sans-serif`;
      screen.textAlign = "center";
      screen.textBaseline = "middle";
      screen.lineWidth = frame.height / 120;
      screen.strokeStyle = HALO;
      screen.fillStyle = color;
      const [x, y] = [((peak % fine.width) + 0.5) * unit, (Math.floor(peak / fine.width) + 0.5) * unit];
      screen.strokeText(String(head), x, y);
      screen.fillText(String(head), x, y);
    }
  };
  const paintStage = () => {
    paintFrame(screen, frame.width, frame.height);
    if (view !== null) paintSheet(view, data.view, view.canvas.width, view.canvas.height);
    if (mode() === "heat" && chosen.size > 0) {
      screen.drawImage(fine.paint(step, chosen), 0, 0, frame.width, frame.height);
    }
    if (masks !== null && id("outline").checked) stroke(outline(step), scale, OUTLINE, 2);
    if (mode() === "contour") paintContours();
    id("not-visible").hidden = !hidden(step);
  };

  const updateLegend = () => {
    const kind = maps === null ? "off" : mode();
    const count = maps === null ? 0 : maps.ys.length * maps.xs.length;
    const share = chosen.size > 1 ? ", strongest head" : "";
    id("ramp").hidden = kind !== "heat";
    id("legend-low").textContent =
      { heat: "uniform", contour: `Each line holds half of ${computed === null ? "its head's attention" : `the ${computed}`}.`, off: "" }[kind];
    id("legend-high").textContent = kind === "heat" ? `${count} × uniform${share}` : "";
  };

  // ---- Heads ----

  const tiles = [];
  const small = maps === null ? null : new Heat(...[HEIGHT, WIDTH].map((side) => Math.min(side, 96)));
  const buildHeads = () => {
    if (maps === null) {
      id("choices").hidden = id("modes").hidden = true;
      id("heads-note").textContent = "This episode has no attention maps.";
      return;
    }
    for (let head = 0; head < heads; head++) {
      const best = head === maps.best && heads > 1 && !maps.uniform;
      const canvas = make("canvas", { "aria-hidden": "true", width: 128, height: Math.round((128 * HEIGHT) / WIDTH) });
      const score = make("span", { class: "score" });
      const name = make("b", {}, headName(head), ...(best ? [make("i", {}, "best")] : []));
      const color = `var(--head-${head % LINES.length})`;
      const button = make("button", { type: "button", class: "tile", "aria-pressed": "false", "--color": color }, canvas, make("span", { class: "words" }, name, score));
      button.addEventListener("click", () => choose(chosen.has(head) ? [...chosen].filter((k) => k !== head) : [...chosen, head]));
      id("tiles").append(button);
      tiles.push({ button, canvas, score, context: canvas.getContext("2d") });
    }
    const focusNote = data.focus === null ? "" : "The percentage is the map's mass on the target; chance is the fraction of the frame that the target covers.";
    id("heads-note").textContent = maps.uniform ? "Uniform by construction." : focusNote;
    if (computed !== null) {
      id("heads-name").textContent = `${capitalised(computed)} of the action`;
      id("modes-name").textContent = `The ${computed} is drawn as`;
      frame.setAttribute("aria-label", `Camera frame with the ${computed} of the action drawn over it`);
    }
    id("choose-best").addEventListener("click", () => choose([maps.best]));
    id("choose-all").addEventListener("click", () => choose(tiles.keys()));
    id("choose-none").addEventListener("click", () => choose([]));
  };
  const paintHeads = () => {
    tiles.forEach(({ button, canvas, score, context }, head) => {
      paintFrame(context, canvas.width, canvas.height);
      context.drawImage(small.paint(step, [head]), 0, 0, canvas.width, canvas.height);
      button.setAttribute("aria-pressed", String(chosen.has(head)));
      const mass = focusOf(step, head);
      if (!usable[step * heads + head]) score.textContent = "no map at this step";
      else if (mass !== null) score.textContent = `${percent(mass)} · ${timesChance(step, head)}`;
      else score.textContent = hidden(step) ? "target not visible" : "";
    });
  };
  const choose = (selected) => {
    chosen.clear();
    for (const head of [...selected].sort((a, b) => a - b)) chosen.add(head);
    updateLegend();
    updateThings();
    paint();
  };

  // ---- The timeline ----

  const fraction = (at) => (LAST === 0 ? 0 : at / LAST);
  const plots = [];
  // A row of the timeline: its name and value, the drawing, and its axis.
  const addRow = (name, svg, { ticks, label, summary, dot }) => {
    const height = heightOf(ticks);
    const value = make("b");
    const heading = make("span", {}, name);
    const inside = make("div", { class: "inside" }, svg, make("span", { class: "cursor" }), ...(dot ? [dot] : []));
    const area = make("div", { class: "area", role: "img", "aria-label": summary }, inside);
    const title = make("div", { class: "label" }, heading, value);
    const axis = make("div", { class: "axis", "aria-hidden": "true" }, ...ticks.map((tick) => make("span", { "--y": height(tick) }, label(tick))));
    const row = make("div", { class: "row plot" }, title, make("div", { class: "track" }, area), axis);
    id("plots").append(row);
    const seek = (event) => {
      const box = inside.getBoundingClientRect();
      go(Math.round((LAST * (event.clientX - box.left)) / box.width));
    };
    area.addEventListener("pointerdown", (event) => {
      area.setPointerCapture(event.pointerId);
      seek(event);
    });
    area.addEventListener("pointermove", (event) => event.buttons & 1 && seek(event));
    return { row, heading, value, area };
  };
  const heightOf = (ticks) => (value) => (value - ticks[0]) / (ticks[ticks.length - 1] - ticks[0]);
  const blank = () => draw("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  const addPlot = (name, lines, { ticks, show, label = show, main }) => {
    const svg = blank();
    const height = heightOf(ticks);
    if (data.visible !== null) {
      for (let start = 0; start <= LAST; start++) {
        if (data.visible[start]) continue;
        let stop = start;
        while (stop < LAST && !data.visible[stop + 1]) stop++;
        const [left, right] = [Math.max(0, fraction(start - 0.5)), Math.min(1, fraction(stop + 0.5))];
        svg.append(draw("rect", { x: 1000 * left, y: -8, width: 1000 * (right - left), height: 116 }));
        start = stop;
      }
    }
    for (const tick of ticks) svg.append(draw("line", { x1: 0, x2: 1000, y1: 100 * (1 - height(tick)), y2: 100 * (1 - height(tick)) }));
    const drawn = lines.map(({ values, kind, color, head }) => {
      let corners = "";
      values.forEach((value, at) => {
        if (value === null) return;
        const [x, y] = [1000 * fraction(at), 100 * (1 - height(value))].map((v) => v.toFixed(2));
        const alone = at === 0 || values[at - 1] === null;
        corners += alone ? `M${x} ${y}L${x} ${y}` : `L${x} ${y}`;
      });
      const path = draw("path", { d: corners, class: kind });
      path.style.setProperty("--color", color);
      svg.append(path);
      return { path, head };
    });
    const known = lines[main].values.filter((value) => value !== null);
    const [least, most] = [Math.min(...known), Math.max(...known)].map((value) => show(value));
    const summary = known.length > 0 ? `${name}: between ${least} and ${most} over ${data.steps} steps` : `${name}: unknown`;
    const dot = make("span", { class: "dot", "--color": lines[main].color });
    const { value } = addRow(name, svg, { ticks, label, summary, dot });
    plots.push({ series: lines[main].values, drawn, dot, value, height, show });
  };

  // The mass on each thing, of the chosen heads or else the best, stacked.
  const stack = things === null ? null : { svg: blank(), layers: [], items: [] };
  const shareOf = (at, thing) => {
    const shown = [...(chosen.size > 0 ? chosen : [maps.best])].filter((head) => usable[at * heads + head]);
    const count = things.names.length;
    const sums = Array.from({ length: count }, (_, each) => shown.reduce((sum, head) => sum + things.mass[(at * heads + head) * count + each], 0));
    const total = sums.reduce((sum, mass) => sum + mass, 0);
    return total > 0 ? sums[thing] / total : null;
  };
  // The target at the bottom, the backdrop at the top.
  const thingOrder = () => [...things.labels.keys()].sort((a, b) => (things.labels[a] || Infinity) - (things.labels[b] || Infinity));
  const thingColor = (label) => (label === 0 ? "var(--line)" : label === 1 ? "var(--good)" : `var(--head-${[3, 1, 4, 0, 6, 5, 7][(label - 2) % 7]})`);
  const buildThings = () => {
    const list = make("ul", { class: "things" });
    for (const thing of thingOrder()) {
      const color = thingColor(things.labels[thing]);
      const layer = draw("path", { class: "layer" });
      layer.style.setProperty("--color", color);
      stack.svg.append(layer);
      const share = make("b");
      list.append(make("li", { "--color": color }, things.names[thing], share));
      stack.layers.push({ thing, layer });
      stack.items.push({ thing, share });
    }
    const summary = `Mass on each thing over ${data.steps} steps, stacked: ${things.names.join(", ")}`;
    Object.assign(stack, addRow("", stack.svg, { ticks: [0, 0.5, 1], label: percent, summary }));
    stack.row.append(list);
  };
  const updateThings = () => {
    if (stack === null) return;
    const shown = chosen.size > 0 ? [...chosen] : [maps.best];
    stack.heading.textContent = `Mass by thing, ${shown.length === 1 ? headLabel(shown[0]) : `mean of ${shown.length} heads`}`;
    const below = new Float64Array(data.steps);
    for (const { thing, layer } of stack.layers) {
      const x = (at) => (1000 * fraction(at)).toFixed(1);
      const [lower, upper] = [[], []];
      for (let at = 0; at < data.steps; at++) {
        lower.unshift(`L${x(at)} ${(100 * (1 - below[at])).toFixed(1)}`);
        below[at] += shareOf(at, thing) ?? 0;
        upper.push(`L${x(at)} ${(100 * (1 - below[at])).toFixed(1)}`);
      }
      layer.setAttribute("d", `M${upper.join("").slice(1)}${lower.join("")}Z`);
    }
  };
  const paintThings = () => {
    if (stack === null) return;
    const shares = stack.items.map(({ thing, share }) => {
      const now = shareOf(step, thing);
      share.textContent = percent(now);
      return now ?? 0;
    });
    const most = shares.indexOf(Math.max(...shares));
    stack.value.textContent = shares[most] > 0 ? `${percent(shares[most])} ${things.names[stack.items[most].thing]}` : "–";
  };
  const buildTimeline = () => {
    id("scrub").max = String(LAST);
    if (data.focus !== null) {
      const lines = [...tiles.keys()].map((head) => ({
        values: data.focus.map((row) => row[head]), kind: head === maps.best ? "best" : "", color: `var(--head-${head % LINES.length})`, head,
      }));
      lines.push({ values: data.chance.map((share, at) => (data.visible[at] ? share : null)), kind: "chance", color: "var(--dim)" });
      addPlot(`Focus on target, ${headLabel(maps.best)}`, lines, { ticks: [0, 0.5, 1], show: percent, main: maps.best });
    }
    if (stack !== null) buildThings();
    for (const { name, values, color, ticks, label, show } of SERIES) {
      addPlot(name, [{ values, kind: "best", color }], { ticks, label, show, main: 0 });
    }
    for (const { step: at, kind, text: words } of data.moments) {
      const text = words.replace(/(\d) (?=[%×])/g, "$1\u00a0"); // no unit alone on a line
      const when = data.dt ? seconds(at) : `step ${at}`;
      const mark = make("button", { type: "button", tabindex: "-1", title: `${text} (${when})`, "--at": fraction(at) }, icon(kind));
      mark.addEventListener("click", () => go(at));
      id("marks").append(mark);
      const item = make("button", { type: "button", "data-step": at }, icon(kind), make("span", {}, text), make("span", { class: "when" }, when));
      item.addEventListener("click", () => go(at));
      id("moments").append(make("li", {}, item));
    }
    new ResizeObserver(placeMarks).observe(id("marks"));
    if (data.moments.length === 0) id("moments").append(make("li", { class: "hint" }, "This episode has no notable steps."));
  };
  // Marks that would overlap go into lanes, one above the other.
  const placeMarks = () => {
    const room = 24 / Math.max(1, id("marks").clientWidth);
    const ends = [];
    data.moments.forEach(({ step: at }, index) => {
      const start = fraction(at);
      const free = ends.findIndex((end) => start >= end);
      const lane = free === -1 ? ends.length : free;
      ends[lane] = start + room;
      id("marks").children[index].style.setProperty("--lane", lane);
    });
    id("marks").style.setProperty("--lanes", Math.max(1, ends.length));
  };
  const paintTimeline = () => {
    id("timeline").style.setProperty("--at", fraction(step));
    const time = data.dt ? `${seconds(step)} of ${seconds(LAST)}` : "";
    id("scrub").value = String(step);
    id("scrub").setAttribute("aria-valuetext", `step ${step} of ${LAST}${time && `, ${time}`}`);
    id("clock").replaceChildren(make("b", {}, `Step ${step} of ${LAST}`), make("span", {}, time));
    for (const { series, drawn, dot, value, height, show } of plots) {
      const now = series[step];
      dot.hidden = now === null;
      if (now !== null) dot.style.setProperty("--y", height(now));
      value.textContent = show(now);
      for (const { path, head } of drawn) {
        path.style.display = head === undefined || head === maps.best || chosen.has(head) ? "" : "none";
      }
    }
    for (const item of id("moments").querySelectorAll("button")) {
      item.classList.toggle("here", Number(item.dataset.step) === step);
    }
    id("earlier-moment").disabled = !data.moments.some((moment) => moment.step < step);
    id("later-moment").disabled = !data.moments.some((moment) => moment.step > step);
  };

  // ---- This step ----

  const bars = [];
  const buildSide = () => {
    for (const [text, address] of data.links) id("links").append(make("a", { href: address }, text));
    for (const [name, value] of data.facts) {
      const tone = name === "Outcome" ? { success: "good", "no success": "bad" }[value] : undefined;
      id("facts").append(make("div", {}, make("dt", {}, name), make("dd", { class: tone ?? "" }, value)));
    }
    id("notes").append(...data.notes.map((note) => make("li", {}, note)));
    id("notes").hidden = data.notes.length === 0;
    for (const { name, low, high, values } of data.actions) {
      const place = (value) => (high > low ? (value - low) / (high - low) : 0);
      const zero = place(Math.min(Math.max(0, low), high));
      const text = make("b");
      const fill = make("span");
      const meter = make("div", { class: "meter", "aria-hidden": "true", "--zero": `${100 * zero}%` }, fill);
      const ends = make("div", { class: "ends" }, make("span", {}, number(low)), make("span", {}, number(high)));
      id("bars").append(make("li", {}, make("div", { class: "line" }, make("span", {}, name), text), meter, ends));
      bars.push({ values, place, zero, text, fill });
    }
    if (data.actions.length === 0) id("bars").append(make("li", { class: "hint" }, "No actions."));
  };
  const paintSide = () => {
    for (const { values, place, zero, text, fill } of bars) {
      const value = values[step];
      const end = value === null ? zero : place(value);
      fill.style.setProperty("--from", `${100 * Math.min(zero, end)}%`);
      fill.style.setProperty("--size", `${100 * Math.abs(end - zero)}%`);
      fill.classList.toggle("down", end < zero);
      text.textContent = value > 0 ? `+${number(value)}` : number(value);
    }
    const rows = SERIES.map(({ name, values, show }) => [name, show(values[step])]);
    if (data.focus !== null) {
      const mass = focusOf(step, maps.best);
      const more = mass === null ? "" : `${timesChance(step, maps.best)} chance`;
      rows.push([`On target, ${headLabel(maps.best)}`, hidden(step) ? "not visible" : percent(mass), more]);
    }
    id("now").replaceChildren(
      ...rows.map(([name, value, more]) => make("div", {}, make("dt", {}, name), make("dd", {}, value, ...(more ? [make("small", {}, more)] : [])))),
    );
  };

  // Announce the step to screen readers once it stops changing.
  let waiting;
  const announce = () => {
    clearTimeout(waiting);
    if (playing) return;
    waiting = setTimeout(() => {
      const parts = [`Step ${step} of ${LAST}`, ...SERIES.map(({ spoken, values, show }) => `${spoken} ${show(values[step])}`)];
      if (hidden(step)) parts.push("target not visible");
      else if (data.focus !== null && focusOf(step, maps.best) !== null) {
        const share = percent(focusOf(step, maps.best));
        parts.push(`${headLabel(maps.best)}: ${share} on the target, ${timesChance(step, maps.best)} chance`);
      }
      parts.push(...data.moments.filter((moment) => moment.step === step).map((moment) => moment.text));
      id("announcement").textContent = `${parts.join(", ")}.`;
    }, 350);
  };

  // ---- Moving through the episode ----

  const paint = () => {
    paintStage();
    paintHeads();
    paintTimeline();
    paintThings();
    paintSide();
    announce();
  };
  const go = (to) => {
    step = Math.min(Math.max(Math.trunc(to), 0), LAST);
    paint();
  };
  const hop = (direction) => {
    const steps = data.moments.map((moment) => moment.step).filter((at) => direction * (at - step) > 0);
    if (steps.length > 0) go(direction > 0 ? steps[0] : steps[steps.length - 1]);
  };

  let playing = false;
  let before = 0;
  let due = 0; // steps, with their fraction
  const play = (on) => {
    playing = on;
    if (on && step === LAST) go(0);
    id("toggle").setAttribute("aria-label", on ? "Pause" : "Play");
    id("toggle").querySelector("use").setAttribute("href", on ? "#pause" : "#play");
    due = 0;
    before = performance.now();
    if (on) requestAnimationFrame(tick);
    else announce();
  };
  const tick = (now) => {
    if (!playing) return;
    due += (((now - before) / 1000) * Number(id("speed").value)) / (data.dt ?? 0.05);
    before = now;
    const whole = Math.floor(due);
    if (whole > 0) {
      due -= whole;
      const next = step + whole;
      if (next > LAST && id("loop").checked) go(next % data.steps);
      else go(next);
      if (step === LAST && !id("loop").checked) return play(false);
    }
    requestAnimationFrame(tick);
  };

  const KEYS = {
    ArrowLeft: (event) => go(step - (event.shiftKey ? 10 : 1)),
    ArrowRight: (event) => go(step + (event.shiftKey ? 10 : 1)),
    Home: () => go(0),
    End: () => go(LAST),
    " ": () => play(!playing),
  };
  document.addEventListener("keydown", (event) => {
    const action = KEYS[event.key];
    if (action === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    // Radio buttons and selects use these keys themselves, and buttons the space bar.
    const controls = event.key === " " ? "button, select, input:not([type=range])" : "select, input[type=radio]";
    if (event.target.closest?.(controls)) return;
    event.preventDefault();
    action(event);
  });
  const click = (name, action) => id(name).addEventListener("click", action);
  click("toggle", () => play(!playing));
  click("step-back", () => go(step - 1));
  click("step-forward", () => go(step + 1));
  click("earlier-moment", () => hop(-1));
  click("later-moment", () => hop(1));
  id("scrub").addEventListener("input", () => go(Number(id("scrub").value)));
  id("modes").addEventListener("change", () => {
    updateLegend();
    paint();
  });
  id("outline").addEventListener("change", paint);
  id("outline-choice").hidden = masks === null;

  // page.html#step=42 opens at step 42.
  const follow = () => go(Number(/^#step=(\d+)$/.exec(location.hash)?.[1] ?? step));
  addEventListener("hashchange", follow);

  if (maps !== null) {
    const stops = maps.palette.filter((_, level) => level % 15 === 0).map(([r, g, b, a]) => `rgb(${r} ${g} ${b} / ${a / 255})`);
    const line = `calc(${(100 * maps.line) / 255}% - 1px)`;
    const mark = `transparent ${line}, #fff 0 calc(${line} + 2px), transparent 0`;
    id("ramp").style.background = `linear-gradient(to right, ${mark}), linear-gradient(to right, ${stops.join(", ")})`;
  }
  buildSide();
  buildHeads();
  buildTimeline();
  updateLegend();
  updateThings();
  follow();
  // For tests and the browser console.
  window.replay = { data, go, step: () => step, levels: (at, selected, height, width) => Array.from(new Heat(height, width).field(at, selected)) };
})().catch((error) => {
  const problem = document.getElementById("problem");
  problem.textContent = `This page could not be drawn: ${error.message}. It needs Chromium 80, Firefox 113, Safari 16.4 or newer.`;
  problem.hidden = false;
  throw error;
});
