// What the page can do with scripts: a timeline that zooms, a filter for the tree, values at the pointer.
// It reads its data from the page, loads nothing, stores nothing, and writes text only as text.
"use strict";
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  root.classList.add("js");

  const theme = byId("theme");
  theme.addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    redraw();
  });
  // A frame without an address cannot follow links to its own sections.
  for (const link of document.querySelectorAll("nav a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      byId(link.getAttribute("href").slice(1)).scrollIntoView({ behavior: "smooth" });
    });
  }

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const duration = (ms) => {
    if (ms < 1000) return `${Math.round(ms)} ms`;
    if (ms < 60000) return `${Number((ms / 1000).toFixed(ms < 10000 ? 2 : 1))} s`;
    const minutes = Math.floor(ms / 60000);
    if (minutes < 60) return `${minutes} min ${Math.round((ms % 60000) / 1000)} s`;
    return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };

  // ---- The timeline -------------------------------------------------------------------------------------------
  let redraw = () => {};
  const bars = data.bars;
  const place = byId("timeline-view");
  if (place && bars.start.length) redraw = timeline();

  function timeline() {
    const axis = 22;
    const lineHeight = 54;
    const height = bars.height + axis + data.system.length * lineHeight;
    // A chart that is taller than its frame has a second axis, which stays at the top.
    const ruler = bars.height > 600 ? place.appendChild(document.createElement("canvas")) : null;
    if (ruler) ruler.className = "ruler";
    const canvas = place.appendChild(document.createElement("canvas"));
    const pen = canvas.getContext("2d");
    const tip = byId("tip");
    let from = 0;
    let to = data.length;
    let width = 0;
    let chosen = -1;
    const x = (time) => ((time - from) / (to - from)) * width;

    function draw() {
      canvas.style.height = `${height}px`; // First, because the frame may get a scroll bar by it.
      width = place.clientWidth;
      prepare(canvas, pen, height);
      drawLanes();
      drawBars();
      drawAxis(pen, bars.height);
      if (ruler) {
        const above = ruler.getContext("2d");
        prepare(ruler, above, axis);
        drawAxis(above, 0);
      }
      data.system.forEach(drawSystem);
    }

    function prepare(surface, on, tall) {
      const scale = Math.min(devicePixelRatio || 1, 16000 / tall);
      surface.style.width = `${width}px`;
      surface.style.height = `${tall}px`;
      surface.width = width * scale;
      surface.height = tall * scale;
      on.setTransform(scale, 0, 0, scale, 0, 0);
      on.font = "11px system-ui, sans-serif";
      on.textBaseline = "middle";
    }

    function drawLanes() {
      pen.fillStyle = colour("--quiet");
      pen.strokeStyle = colour("--rule");
      for (const [name, y] of data.lanes) {
        pen.beginPath();
        pen.moveTo(0, y + 0.5);
        pen.lineTo(width, y + 0.5);
        pen.stroke();
        if (data.lanes.length > 1) pen.fillText(name, 4, y + 9);
      }
    }

    function drawBars() {
      const fill = { f: colour("--bar"), x: colour("--bad"), k: colour("--warn"), r: colour("--bar"), c: colour("--cached") };
      const ink = { f: colour("--bar-text"), x: colour("--card"), k: colour("--card"), r: colour("--bar-text"), c: colour("--text") };
      const critical = colour("--critical");
      const last = new Map(); // By row: where the last bar ended, so that thousands in one pixel are drawn once.
      for (let at = 0; at < bars.start.length; at += 1) {
        if (bars.start[at] > to || bars.start[at] + bars.time[at] < from) continue;
        const left = Math.min(Math.max(x(bars.start[at]), -2), width - 2); // Also at the very end, a bar is seen.
        const right = Math.min(x(bars.start[at] + bars.time[at]), width + 2);
        const state = bars.state[at];
        const y = bars.y[at];
        const before = last.get(y) ?? -1;
        if (state !== "x" && right < before + 0.5) continue;
        last.set(y, Math.max(right, left + 1));
        const onPath = bars.critical[at] === "1" && state === "f";
        pen.fillStyle = onPath ? critical : fill[state];
        const size = Math.max(right - left - 1, 1);
        pen.beginPath();
        if (pen.roundRect && size > 5) pen.roundRect(left, y, size, bars.bar, 3);
        else pen.rect(left, y, size, bars.bar);
        pen.fill();
        if (state === "c") { pen.strokeStyle = colour("--good"); pen.setLineDash([3, 2]); pen.stroke(); pen.setLineDash([]); }
        if (at === chosen) { pen.strokeStyle = colour("--text"); pen.lineWidth = 2; pen.stroke(); pen.lineWidth = 1; }
        if (size > 34 && bars.bar > 12 && left > before - 2) { // Else it is drawn over another one.
          pen.save();
          pen.clip();
          pen.fillStyle = onPath ? colour("--critical-text") : ink[state];
          const mark = { x: "✕ ", k: "■ ", c: "↺ ", r: "▸ " }[state] || "";
          pen.fillText(mark + data.names[bars.name[at]], Math.max(left, 0) + 5, y + bars.bar / 2 + 1);
          pen.restore();
        }
      }
    }

    function drawAxis(on, y) {
      on.fillStyle = colour("--quiet");
      on.strokeStyle = colour("--rule");
      const wanted = ((to - from) * 90) / width;
      const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 9e5, 18e5, 36e5, 72e5, 144e5, 432e5, 864e5];
      const step = steps.find((each) => each >= wanted) || 864e5 * Math.ceil(wanted / 864e5);
      for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
        on.beginPath();
        on.moveTo(Math.round(x(time)) + 0.5, y);
        on.lineTo(Math.round(x(time)) + 0.5, y + 5);
        on.stroke();
        const text = duration(time);
        const half = on.measureText(text).width / 2;
        on.fillText(text, Math.min(Math.max(x(time) - half, 1), width - 2 * half - 1), y + axis / 2 + 4);
      }
    }

    function drawSystem(series, index) {
      const top = bars.height + axis + index * lineHeight;
      pen.strokeStyle = colour("--rule");
      pen.strokeRect(-1, top + 0.5, width + 2, lineHeight);
      pen.strokeStyle = colour("--c0");
      pen.lineWidth = 1.5;
      pen.beginPath();
      series.times.forEach((time, at) => {
        const y = top + lineHeight - 4 - ((series.values[at] - series.low) / (series.high - series.low || 1)) * (lineHeight - 20);
        if (at) pen.lineTo(x(time), y);
        else pen.moveTo(x(time), y);
      });
      pen.stroke();
      pen.lineWidth = 1;
      pen.fillStyle = colour("--quiet");
      pen.fillText(series.label, 4, top + 9);
    }

    function at(event) {
      const box = canvas.getBoundingClientRect();
      const time = from + ((event.clientX - box.left) / width) * (to - from);
      const y = event.clientY - box.top;
      const near = ((to - from) / width) * 2;
      for (let index = bars.start.length - 1; index >= 0; index -= 1) {
        if (y < bars.y[index] || y > bars.y[index] + bars.bar) continue;
        if (time >= bars.start[index] - near && time <= bars.start[index] + bars.time[index] + near) return index;
      }
      return -1;
    }

    function path(index) {
      const parts = [];
      for (let each = index; each >= 0 && parts.length < 12; each = bars.parent[each]) parts.unshift(data.names[bars.name[each]]);
      return parts.join(" / ");
    }

    function show(index, event) {
      tip.hidden = index < 0;
      if (index < 0) return;
      const words = { f: "finished", x: "failed", k: "killed", r: "running", c: "from the cache" };
      const onPath = bars.critical[index] === "1" ? ", on the critical path" : "";
      const where = bars.lane.length ? `, in ${data.names[bars.lane[index]]}` : "";
      tip.textContent = `${path(index)}: ${duration(bars.time[index])}, ${words[bars.state[index]]}${onPath}${where}`;
      const box = tip.parentElement.getBoundingClientRect();
      tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 12, box.width - 345))}px`;
      tip.style.top = `${event.clientY - box.top + 16}px`;
    }

    function view(newFrom, newTo) {
      const size = Math.min(Math.max(newTo - newFrom, Math.max(1, data.length / 1e5)), data.length);
      from = Math.min(Math.max(newFrom, 0), data.length - size);
      to = from + size;
      draw();
    }
    function zoom(factor, share = 0.5) {
      const middle = from + (to - from) * share;
      const size = (to - from) * factor;
      view(middle - size * share, middle + size * (1 - share));
    }
    const pan = (share) => view(from + (to - from) * share, to + (to - from) * share);

    const fingers = new Map();
    let moved = 0;
    place.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event.clientX);
      moved = 0;
      place.setPointerCapture(event.pointerId);
    });
    place.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return show(at(event), event);
      const before = [...fingers.values()];
      const step = event.clientX - fingers.get(event.pointerId);
      fingers.set(event.pointerId, event.clientX);
      moved += Math.abs(step);
      if (before.length > 1) {
        const [one, two] = [...fingers.values()];
        zoom(Math.abs(before[0] - before[1]) / Math.max(1, Math.abs(one - two)));
      } else if (moved > 3) {
        tip.hidden = true;
        pan(-step / width);
      }
      return undefined;
    });
    const release = (event) => {
      fingers.delete(event.pointerId);
      if (event.type === "pointerup" && moved <= 3) {
        chosen = at(event);
        show(chosen, event);
        draw();
        if (chosen >= 0) reveal(chosen);
      }
    };
    place.addEventListener("pointerup", release);
    place.addEventListener("pointercancel", release);
    place.addEventListener("pointerleave", () => { tip.hidden = true; });
    place.addEventListener("dblclick", (event) => {
      const index = at(event);
      if (index >= 0) view(bars.start[index], bars.start[index] + bars.time[index]);
    });
    place.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) {
        if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) { event.preventDefault(); pan(event.deltaX / width); }
        return;
      }
      event.preventDefault();
      zoom(Math.exp(event.deltaY / 200), (event.clientX - canvas.getBoundingClientRect().left) / width);
    }, { passive: false });
    place.addEventListener("keydown", (event) => {
      const keys = { "+": () => zoom(0.6), "=": () => zoom(0.6), "-": () => zoom(1.6), 0: () => view(0, data.length), ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2) };
      if (!keys[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      keys[event.key]();
    });
    byId("zoom-in").addEventListener("click", () => zoom(0.6));
    byId("zoom-out").addEventListener("click", () => zoom(1.6));
    byId("zoom-all").addEventListener("click", () => view(0, data.length));
    addEventListener("resize", draw);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    draw();
    return draw;
  }

  // ---- The tree -----------------------------------------------------------------------------------------------
  const nodes = [...document.querySelectorAll(".node")];
  function reveal(number) {
    for (const node of document.querySelectorAll(".node.found")) node.classList.remove("found");
    let index = number;
    while (index >= 0 && !byId(`run-${index}`)) index = bars.parent[index];
    const node = byId(`run-${index}`);
    if (!node) return;
    for (let each = node.parentElement; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
    node.classList.add("found");
    node.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
  const search = byId("search");
  search.addEventListener("input", () => {
    const text = search.value.trim().toLowerCase();
    for (const node of nodes) node.classList.toggle("hidden", text !== "");
    if (!text) return;
    for (const node of nodes) {
      if (!node.firstElementChild.textContent.toLowerCase().includes(text)) continue;
      for (let each = node; each && each.id !== "tree-list"; each = each.parentElement) {
        each.classList.remove("hidden");
        if (each !== node && each.tagName === "DETAILS") each.open = true;
      }
    }
  });
  byId("open-all").addEventListener("click", () => { for (const node of nodes) node.open = true; });
  byId("close-all").addEventListener("click", () => { for (const node of nodes.slice(1)) node.open = false; });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || ["INPUT", "TEXTAREA"].includes(document.activeElement.tagName)) return;
    event.preventDefault();
    search.focus();
  });

  // ---- The curves ---------------------------------------------------------------------------------------------
  const short = (value) => (value === null ? "none" : Number.isInteger(value) ? String(value) : String(Number(value.toPrecision(4))));
  for (const figure of document.querySelectorAll(".chart")) {
    const chart = data.charts[Number(figure.dataset.chart)];
    const plot = figure.querySelector(".plot");
    const items = [...figure.querySelectorAll(".legend li")];
    const lines = [...figure.querySelectorAll(".line")];
    const ends = items.map((item) => item.querySelector("b")?.textContent);
    const [first, last] = chart.steps;
    const label = figure.querySelector(".axis span");
    const start = label.textContent;
    const cross = plot.appendChild(document.createElement("div"));
    cross.className = "cross";
    cross.hidden = true;
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      const step = first + share * (last - first);
      cross.hidden = false;
      cross.style.left = `${share * 100}%`;
      label.textContent = `step ${Math.round(step)}`;
      chart.lines.forEach(([, steps, values], index) => {
        let near = 0;
        while (near + 1 < steps.length && Math.abs(steps[near + 1] - step) <= Math.abs(steps[near] - step)) near += 1;
        items[index].querySelector("b").textContent = short(values[near]);
      });
    });
    plot.addEventListener("pointerleave", () => {
      cross.hidden = true;
      label.textContent = start;
      ends.forEach((text, index) => { if (text !== undefined) items[index].querySelector("b").textContent = text; });
    });
    items.forEach((item, index) => {
      if (index >= lines.length) return;
      item.addEventListener("pointerenter", () => lines.forEach((line, each) => line.classList.toggle("faint", each !== index)));
      item.addEventListener("pointerleave", () => lines.forEach((line) => line.classList.remove("faint")));
    });
  }
})();
