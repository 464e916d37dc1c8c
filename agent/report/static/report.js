// The episode player: what the agent observed, imagined and chose at each step. Everything comes from the page's own
// JSON (agent/storage/recording.py describes it); nothing is fetched. An environment may lack frames, a map, a goal or
// named readings.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const episodes = data.recordings.flatMap((r) => r.episodes.map((e) => ({
    ...e, block: r.block, recording: r.name, whole: (r.kind ?? "map") !== "map", posed: Boolean(r.posed),
    sensors: r.sensors ?? [], relevant: r.relevant ?? [], rewarded: Boolean(r.rewarded),
  })));
  const tone = data.colours;
  const view = { episode: 0, moment: 0, picked: 0, timer: null };
  const pictures = new Map();

  // Pictures are decoded once; the page is drawn again when one arrives.
  const picture = (base64) => {
    if (!base64) return null;
    if (!pictures.has(base64)) {
      const image = new Image();
      image.onload = () => draw();
      image.src = "data:image/png;base64," + base64;
      pictures.set(base64, image);
    }
    const image = pictures.get(base64);
    return image.complete && image.naturalWidth ? image : null;
  };

  const known = (x) => x !== null && x !== undefined;
  const number = (x) => (x === null || x === undefined ? "-" : Number(x).toFixed(3));
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const colour = (share) => {  // from low cost (dark) to high cost (light)
    const stops = [[68, 40, 130], [33, 145, 140], [220, 205, 60]];
    const at = Math.min(0.9999, Math.max(0, share)) * 2, i = Math.floor(at), f = at - i;
    return `rgb(${stops[i].map((v, k) => Math.round(v + f * (stops[i + 1][k] - v))).join(",")})`;
  };

  const current = () => episodes[view.episode];
  const now = () => current().moments[view.moment];
  const plan = () => (now().plan === null ? null : current().plans[now().plan]);
  const shares = (paths) => {
    const energies = paths.map((p) => p.energy), low = Math.min(...energies), high = Math.max(...energies);
    return energies.map((e) => (high > low ? (e - low) / (high - low) : 0));
  };
  // The imagined steps of a plan that have a frame, and how many of its paths have frames.
  const framesOf = (q) => q.frame_steps ?? q.paths[0].critic.map((_, i) => i + 1);
  const framedOf = (q) => (q.frames ? q.framed ?? q.paths.length : 0);
  // The imagined frame to show beside the observed one: that of an earlier plan if it imagined exactly this step, else
  // the next step of the current plan. A selected candidate shows its own next step.
  const expected = () => {
    const p = plan(), block = current().block, steps = (q) => q.paths[0].critic.length;
    if (!view.picked) {
      for (const q of current().plans.slice(0, now().plan + 1).reverse()) {
        const step = (view.moment - q.moment) / block;
        if (q.frames && !framesOf(q).includes(step)) continue;
        if (step >= 1 && Number.isInteger(step) && step <= steps(q)) return { plan: q, path: 0, step };
      }
    }
    const step = Math.min(steps(p), Math.max(1, Math.ceil((view.moment - p.moment + 1e-9) / block)));
    return { plan: p, path: view.picked, step };
  };

  function fit(canvas, width, height) {
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = current().posed;  // bodies are drawn small, pixels are what they are
    context.clearRect(0, 0, width, height);
    return context;
  }

  function scene(canvas, width = 390) {
    const image = picture(current().map);
    if (!image) return null;
    const scale = width / image.naturalWidth;
    const context = fit(canvas, width, Math.round(image.naturalHeight * scale));
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return { context, at: ([x, y]) => [(x + 0.5) * scale, (y + 0.5) * scale], scale };
  }

  function dot(context, [x, y], radius, fill, edge) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (fill) { context.fillStyle = fill; context.fill(); }
    if (edge) { context.strokeStyle = edge; context.lineWidth = 2; context.stroke(); }
  }

  function trace(context, points, stroke, width, dash = []) {
    context.beginPath();
    points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.strokeStyle = stroke;
    context.lineWidth = width;
    context.setLineDash(dash);
    context.stroke();
    context.setLineDash([]);
  }

  function sheetFrame(canvas, sheet, column, row, size) {
    const image = picture(sheet);
    if (!image) return;
    const [w, h] = size, context = fit(canvas, w * 4, h * 4);
    context.drawImage(image, column * w, row * h, w, h, 0, 0, canvas.width, canvas.height);
  }

  // The map with one dot, for an environment without frames.
  function onMap(canvas, place) {
    const s = scene(canvas, 260);
    if (s && known(place)) dot(s.context, s.at(place), 7, tone.red, "#fff");
  }

  function drawReal() {
    const episode = current(), canvas = $("real"), place = now().at;
    if (episode.frames) {
      const columns = Math.min(16, episode.moments.length);
      sheetFrame(canvas, episode.frames, view.moment % columns, Math.floor(view.moment / columns), episode.frame_size);
    } else onMap(canvas, place);
    const where = known(place) ? `: the agent is at ${place.join(", ")} on the map` : "";
    $("real-text").textContent = episode.posed ? "observed: posed body" : "observed";
    canvas.setAttribute("aria-label", `Observed at step ${view.moment}${where}`);
  }

  function drawImagined() {
    const canvas = $("imagined"), p = plan();
    if (!p) {
      fit(canvas, 260, 260);
      $("imagined-text").textContent = "Mode-1: nothing imagined";
      canvas.setAttribute("aria-label", "Nothing is imagined: in Mode-1 the policy acts without planning");
      return;
    }
    const { plan: q, path, step: wanted } = expected(), shown = q.frames ? framesOf(q) : [wanted];
    const step = shown.reduce((best, s) => (Math.abs(s - wanted) < Math.abs(best - wanted) ? s : best));
    const of = q.moment + step * current().block;
    if (path < framedOf(q)) sheetFrame(canvas, q.frames, shown.indexOf(step), path, current().frame_size);
    else if (current().map) onMap(canvas, q.paths[path].at?.[step]);
    else {
      fit(canvas, canvas.width, canvas.height);
      const lacking = `no imagined frame is kept of this ${path && framedOf(q) ? "candidate" : "plan"}`;
      $("imagined-text").textContent = lacking;
      canvas.setAttribute("aria-label", lacking);
      return;
    }
    const text = `imagined at step ${q.moment} for step ${of}` + (path ? `, candidate ${path}` : "");
    $("imagined-text").textContent = text;
    canvas.setAttribute("aria-label", `Frame ${text}`);
  }

  function drawGoal() {
    const canvas = $("goal"), image = picture(current().goal_frame);
    $("goal-figure").hidden = !current().goal_frame;
    if (!image) return;
    const scale = Math.max(1, Math.round(260 / image.naturalWidth));
    const context = fit(canvas, image.naturalWidth * scale, image.naturalHeight * scale);
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", "The goal of this episode as a frame");
  }

  function drawMap() {
    const canvas = $("map"), s = scene(canvas);
    if (!s) return;
    const { context, at, scale } = s, episode = current(), p = plan();
    if (known(episode.goal)) {
      dot(context, at(episode.goal), Math.max(6, (episode.reach ?? 0) * scale), null, tone.green);
      dot(context, at(episode.goal), 4, tone.green, "#fff");
    }
    const path = (k, ...style) => { if (known(p.paths[k].at)) trace(context, p.paths[k].at.map(at), ...style); };
    if (p) {
      const share = shares(p.paths);
      for (let i = p.paths.length - 1; i >= 1; i--) path(i, colour(share[i]), 2);
      path(0, tone.red, 4);
      p.paths[0].at?.slice(1).forEach((x) => dot(context, at(x), 3.5, tone.red));
      if (view.picked) {
        path(view.picked, "#fff", 7);
        path(view.picked, tone.blue, 4);
      }
    }
    const so_far = episode.moments.slice(0, view.moment + 1).map((m) => m.at).filter(known);
    trace(context, so_far.map(at), "#1d2329", 2, [3, 3]);
    for (const x of (now().recalled?.at ?? []).filter(known)) {
      const [a, b] = at(x);
      context.strokeStyle = tone.purple;
      context.lineWidth = 2;
      context.strokeRect(a - 5, b - 5, 10, 10);
    }
    if (known(now().at)) dot(context, at(now().at), 6, "#fff", "#1d2329");
    const count = p ? `the chosen plan and ${p.paths.length - 1} rejected candidates` : "no plan";
    canvas.setAttribute("aria-label", `Map at step ${view.moment}: trajectory so far, goal, ${count}`);
  }

  function drawStrip() {
    const canvas = $("strip"), p = plan();
    $("strip-figure").hidden = !p || !p.frames;
    if (!p || !p.frames) return;
    const image = picture(p.frames), [w, h] = current().frame_size, steps = framesOf(p).length;
    $("strip-text").textContent = p.frame_steps ? `Steps ${p.frame_steps.map((s) => `+${s}`).join(", ")}. ` : "";
    if (!image) return;
    const rows = view.picked && view.picked < framedOf(p) ? [0, view.picked] : [0];
    const context = fit(canvas, steps * (w * 2 + 6), rows.length * (h * 2 + 6));
    rows.forEach((row, r) => {
      for (let i = 0; i < steps; i++) {
        context.drawImage(image, i * w, row * h, w, h, i * (w * 2 + 6), r * (h * 2 + 6), w * 2, h * 2);
      }
    });
    canvas.setAttribute("aria-label", `${steps} imagined frames of the chosen plan` + (rows.length > 1 ? ` and, below them, of candidate ${view.picked}` : ""));
  }

  const brief = (x) => (x && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(1) : String(Number(x.toPrecision(3))));
  const termsOf = (path) => [...Object.entries(path.drives), ["critic", path.critic]];
  const title = (term) => (term !== "critic" || !current().rewarded ? term : current().goal_frame || current().goal_readings ? "critic + predicted reward" : "predicted reward");

  function chart(width, height, label) {
    const ns = "http://www.w3.org/2000/svg", svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("class", "chart");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const put = (tag, attributes, text) => {
      const element = document.createElementNS(ns, tag);
      for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v);
      if (text) element.textContent = text;
      svg.appendChild(element);
      return element;
    };
    return { svg, put };
  }

  const FEW = 3;  // sensors whose charts are as wide as their column

  // One sensor over time, around the step at which the current plan began: what was observed, what is imagined.
  function curve(place, index) {
    const episode = current(), p = plan(), name = episode.sensors[index];
    const few = episode.relevant.length <= FEW, left = 50, width = few ? 440 : 220, height = few ? 103 : 95, foot = 18;
    const begin = p ? p.moment : view.moment, steps = p ? p.paths[0].critic.length : 0;
    const span = Math.max(12, steps * episode.block), from = Math.max(0, begin - span), to = begin + span;
    const observed = episode.moments.map((m) => m.readings[index]), goal = episode.goal_readings?.[name];
    const futures = p ? p.paths.map((path) => [[begin, observed[begin]], ...path.readings.map((r, i) => [begin + (i + 1) * episode.block, r[place]])]) : [];
    const seen = [...observed, ...(known(goal) ? [goal] : [])], low = Math.min(...seen), high = Math.max(...seen);
    const room = high - low || Math.abs(high) || 1;  // a future that flies off does not press the rest flat
    const every = [...seen, ...futures.flat().map(([, v]) => v).filter((v) => known(v) && v >= low - room && v <= high + room)];
    const bottom = Math.min(...every) - 0.04 * room, top = Math.max(...every) + 0.04 * room;
    const x = (t) => left + ((t - from) / (to - from)) * (width - left - 2);
    const y = (v) => 3 + ((top - v) / (top - bottom)) * (height - foot - 6);
    const line = (points) => points.map(([t, v], i) => (known(v) ? `${i && known(points[i - 1][1]) ? "L" : "M"}${x(t).toFixed(2)} ${y(v).toFixed(2)}` : "")).join("");
    const told = `${name} from step ${from} to ${to}: observed ${brief(observed[view.moment])} now` + (p ? `, imagined ${known(futures[0].at(-1)[1]) ? brief(futures[0].at(-1)[1]) : "not finite"} at the end of the chosen plan` : "");
    const { svg, put } = chart(width, height, `${told}; the table below has the numbers`);
    const floor = height - foot, stroke = (colour, wide, more = {}) => ({ stroke: colour, "stroke-width": wide, "data-sensor": name, ...more });
    for (const v of [Math.max(...every), Math.min(...every)]) {
      put("path", { class: "rule", d: `M${left} ${y(v).toFixed(2)}H${width}` });
      put("text", { class: "axis", x: left - 4, y: v === Math.min(...every) ? floor - 2 : 13, "text-anchor": "end" }, brief(v));
    }
    put("text", { class: "axis", x: left, y: height - 5 }, String(from));
    put("text", { class: "axis", x: width - 1, y: height - 5, "text-anchor": "end" }, String(to));
    put("path", { class: "rule", d: `M${x(view.moment).toFixed(2)} 1V${floor}`, "stroke-width": 1.5 });
    if (known(goal)) put("path", { d: `M${left} ${y(goal).toFixed(2)}H${width}`, ...stroke("var(--green)", 1.8, { "stroke-dasharray": "5 4", "data-line": "goal" }) });
    const within = observed.map((v, t) => [t, v]).filter(([t]) => t >= from && t <= to);
    put("path", { d: line(within.filter(([t]) => t >= view.moment)), ...stroke("var(--soft)", 1.4, { "stroke-dasharray": "1.5 3", "data-line": "later" }) });
    const share = p ? shares(p.paths) : [];
    for (let k = futures.length - 1; k >= 1; k--) {
      if (k !== view.picked) put("path", { d: line(futures[k]), ...stroke(colour(share[k]), 1.2, { opacity: 0.8, "data-line": k }) });
    }
    if (p) put("path", { d: line(futures[0]), ...stroke("var(--red)", 2, { "data-line": 0 }) });
    if (p && view.picked) put("path", { d: line(futures[view.picked]), ...stroke("var(--blue)", 2, { "data-line": view.picked }) });
    put("path", { d: line(within.filter(([t]) => t <= view.moment)), ...stroke("currentColor", 2, { "data-line": "observed" }) });
    const box = make("div", null), head = make("h4", `${name} `);
    head.append(make("span", brief(observed[view.moment]) + (known(goal) ? `, goal ${brief(goal)}` : "")));
    box.append(head, svg);
    return box;
  }

  function drawReadings() {
    const episode = current(), table = $("readings-table"), p = plan();
    table.replaceChildren();
    $("readings").replaceChildren();
    if (!episode.sensors.length) return;
    $("readings").classList.toggle("few", episode.relevant.length <= FEW);
    $("readings").append(...episode.relevant.map((index, place) => curve(place, index)));
    const steps = p ? p.paths[0].critic.length : 0, shown = p ? (view.picked ? [0, view.picked] : [0]) : [];
    const head = make("tr", null);
    head.append(make("th", "sensor"), make("th", "observed", { class: "number" }), make("th", "goal", { class: "number" }), make("th", "plan"));
    for (let i = 0; i < steps; i++) head.append(make("th", `+${i + 1}`, { class: "number" }));
    table.append(head);
    const others = episode.sensors.map((_, i) => i).filter((i) => !episode.relevant.includes(i));
    [...episode.relevant, ...others].forEach((index, place) => {
      const name = episode.sensors[index], goal = episode.goal_readings?.[name], imagined = place < episode.relevant.length;
      (imagined && shown.length ? shown : [null]).forEach((k, n) => {
        const row = make("tr", null);
        row.append(
          make("td", n ? "" : name),
          make("td", n ? "" : number(now().readings[index]), { class: "number", ...(n ? {} : { "data-observed": name }) }),
          make("td", n || !known(goal) ? "" : number(goal), { class: "number" }),
          make("td", k === null ? "" : k ? `candidate ${k}` : "chosen"),
        );
        if (k !== null) p.paths[k].readings.forEach((r, i) => row.append(make("td", number(r[place]), { class: "number", "data-plan": k, "data-sensor": name, "data-step": i + 1 })));
        table.append(row);
      });
    });
  }

  function drawCosts() {
    const p = plan(), box = $("costs"), table = $("cost-table");
    box.replaceChildren();
    table.replaceChildren();
    if (!p) return;
    const shown = view.picked ? [0, view.picked] : [0];
    const steps = p.paths[0].critic.length, names = termsOf(p.paths[0]).map(([name]) => name);
    // Costs stand above the line of nothing, and what a task counts as less than nothing below it.
    const sum = (path, i, sign) => termsOf(path).reduce((all, [, v]) => all + Math.max(0, sign * v[i]), 0);
    const most = (sign) => Math.max(0, ...shown.flatMap((k) => [...Array(steps).keys()].map((i) => sum(p.paths[k], i, sign))));
    const deepest = most(-1), top = Math.max(deepest ? 0 : 1e-9, most(1));
    const width = 440, height = 170, left = 52, foot = 20;
    const { svg, put } = chart(width, height, `Predicted cost at each imagined step, stacked by ${names.map(title).join(" and ")}; the table below has the numbers`);
    const wide = (width - left) / steps, high = height - foot - 12, zero = height - foot - high * (deepest / (top + deepest));
    // Narrow bars have narrow gaps between them, and not a number each.
    const gap = Math.min(14, 0.3 * wide), every = Math.ceil(30 / wide);
    for (const value of new Set([top, 0, -deepest])) {
      const y = zero - (value / (top + deepest)) * high;
      put("path", { class: "rule", d: `M${left - 4} ${y}H${width}` });
      // Where two labels would lie on each other, that of nothing is left out.
      const close = value === 0 && deepest && Math.min(top, deepest) / (top + deepest) < 0.12;
      if (!close) put("text", { class: "axis", x: left - 8, y: y + 4, "text-anchor": "end" }, brief(value));
    }
    for (let i = 0; i < steps; i++) {
      shown.forEach((k, place) => {
        let above = zero, below = zero;
        const bar = (wide - gap) / shown.length, x = left + i * wide + place * bar;
        termsOf(p.paths[k]).forEach(([, values], n) => {
          const tall = (Math.abs(values[i]) / (top + deepest)) * high;
          if (values[i] >= 0) above -= tall;
          const y = values[i] >= 0 ? above : below;
          if (values[i] < 0) below += tall;
          put("rect", { class: `part c${n}`, x, y, width: bar - Math.min(3, 0.2 * bar), height: tall, opacity: place ? 0.55 : 1 });
        });
      });
      if ((i + 1) % every === 0) put("text", { class: "axis", x: left + i * wide + (wide - gap) / 2, y: height - 5, "text-anchor": "middle" }, `+${i + 1}`);
    }
    const legend = make("ul", null, { class: "legend" });
    names.forEach((name, n) => legend.appendChild(make("li", title(name), { class: `c${n}` })));
    box.append(svg, legend);

    const head = make("tr", null);
    head.append(make("th", "plan"), make("th", "term"));
    for (let i = 0; i < steps; i++) head.append(make("th", `+${i + 1}`, { class: "number" }));
    head.append(make("th", "energy", { class: "number" }));
    table.append(head);
    for (const k of shown) {
      termsOf(p.paths[k]).forEach(([name, values], n) => {
        const row = make("tr", null);
        row.append(make("td", n ? "" : k ? `candidate ${k}` : "chosen"), make("td", title(name)));
        values.forEach((v, i) => row.append(make("td", number(v), { class: "number", "data-plan": k, "data-term": name, "data-step": i + 1 })));
        row.append(make("td", n ? "" : number(p.paths[k].energy), { class: "number", ...(n ? {} : { "data-energy": k }) }));
        table.append(row);
      });
    }
  }

  function drawPlans() {
    const box = $("plans"), p = plan(), key = p ? `${view.episode}.${now().plan}` : "";
    if (box.dataset.key !== key) {
      const focused = box.contains(document.activeElement);
      box.dataset.key = key;
      box.replaceChildren();
      if (!p) box.append(make("span", "Mode-1 does not plan."));
      const share = p ? shares(p.paths) : [];
      (p ? p.paths : []).forEach((path, k) => {
        const label = make("label", null), radio = make("input", null, { type: "radio", name: "plan", value: k });
        radio.addEventListener("change", () => { view.picked = k; draw(); });
        const swatch = make("i", null);
        swatch.style.background = k ? colour(share[k]) : tone.red;
        label.append(radio, swatch, make("span", `${k ? k : "chosen"}: ${number(path.energy)}`));
        box.append(label);
      });
      if (p && p.paths.length === 1 && current().whole) box.append(make("span", "No candidate is kept of this plan.", { class: "note" }));
      if (focused) box.querySelector("input")?.focus();
    }
    box.querySelectorAll("input").forEach((radio, k) => { radio.checked = k === view.picked; });
  }

  function drawFacts() {
    const m = now(), p = plan(), box = $("facts");
    box.replaceChildren();
    const acted = m.mode !== 2 ? "Mode-1: the policy acts without planning"
      : m.replanned ? `Mode-2: new plan, ${p ? `${p.planner}, ${p.samples} candidates x ${p.iterations} iterations` : "not recorded"}`
      : "Mode-2: the plan continues";
    const here = [...Object.entries(m.drives), ...(current().rewarded && !m.critic ? [] : [["critic", m.critic]])], most = 8;
    const facts = [
      ["mode", acted],
      ["latency", `${m.milliseconds.toFixed(1)} ms, one call for all episodes of the batch`],
      ["surprise", known(m.surprise) ? number(m.surprise) : "- (no prediction for this step)"],
      ["current cost", here.map(([k, v]) => `${k} ${number(v)}`).join(", ") || "none: plans are for the predicted reward"],
    ];
    if (p) facts.push(["energy", `first proposal ${number(p.proposal_energy)}, chosen plan ${number(p.paths[0].energy)}`]);
    if (known(m.action)) facts.push(["action", m.action.slice(0, most).map(brief).join(", ") + (m.action.length > most ? ` and ${m.action.length - most} more` : "")]);
    if (known(m.reward)) facts.push(["reward of this step", `${brief(m.reward)}${current().rewarded ? "; plans use a learned prediction of it" : "; the agent does not see it"}`]);
    facts.push(["memory", m.recalled ? `distances to the most similar states: ${m.recalled.unlike.map(number).join(", ")}` : "empty"]);
    for (const [name, text] of facts) box.append(make("dt", name), make("dd", text));
  }

  // Only what the episode has is on the page.
  function arrange() {
    const episode = current(), mapped = Boolean(episode.map), frames = Boolean(episode.frames);
    const painted = episode.plans.some((p) => p.frames);
    $("map-figure").hidden = !mapped;
    const curves = episode.sensors.length > 0, stage = $("player").querySelector(".stage");
    $("readings-figure").hidden = $("readings-details").hidden = !curves;
    stage.classList.toggle("no-map", !mapped && !curves);
    stage.classList.toggle("curves", curves);
    stage.classList.toggle("bare", curves && !frames);
    $("player").classList.toggle("smooth", episode.posed);
    $("player").classList.toggle("whole", episode.whole);
    $("real").parentElement.hidden = !frames && !mapped;
    $("imagined").parentElement.hidden = !painted && !mapped;
    $("no-picture").hidden = frames || mapped || painted || curves;
  }

  function draw() {
    const last = current().moments.length - 1;
    $("moment").max = last;
    $("moment").value = view.moment;
    $("where").textContent = `${view.moment} of ${last}`;
    $("moment").setAttribute("aria-valuetext", `step ${view.moment} of ${last}`);
    arrange();
    drawReal(); drawImagined(); drawGoal(); drawMap(); drawReadings(); drawStrip(); drawCosts(); drawPlans(); drawFacts();
  }

  function go(moment) {
    const before = now().plan;
    view.moment = Math.min(current().moments.length - 1, Math.max(0, moment));
    if (now().plan !== before) view.picked = 0;
    draw();
  }
  function choose(episode) {
    Object.assign(view, { episode, moment: 0, picked: 0 });
    draw();
  }
  function play(on) {
    if (view.timer) clearInterval(view.timer);
    view.timer = null;
    if (on) {
      if (view.moment === current().moments.length - 1) go(0);
      view.timer = setInterval(() => (view.moment < current().moments.length - 1 ? go(view.moment + 1) : play(false)), 220);
    }
    $("play").textContent = on ? "Pause" : "Play";
  }
  function toMaxSurprise() {
    const surprises = current().moments.map((m) => m.surprise ?? -1);
    go(surprises.indexOf(Math.max(...surprises)));
  }

  const ends = { terminated: "terminated", truncated: "to its limit", limit: "to the evaluation's limit", fault: "the environment failed, not counted" };
  const success = (e) => (e.steps > 0 ? `success after ${e.steps} steps` : "no success");
  const called = (e) => {
    if (!e.whole) return `task ${e.task}, ${success(e)}`;
    const part = e.length > e.moments.length ? `, the first ${e.moments.length} shown` : "";
    return `episode ${e.task}, return ${brief(e.episode_return)}, ${known(e.success) ? `${success(e)}, ` : ""}${e.length} steps${part}, ${ends[e.end]}`;
  };
  episodes.forEach((e, i) => $("episode").append(make("option", e.whole ? `${called(e)}; ${e.recording}` : `${e.recording}: ${called(e)}`, { value: i })));
  $("episode").addEventListener("change", (event) => { play(false); choose(Number(event.target.value)); });
  $("moment").addEventListener("input", (event) => { play(false); go(Number(event.target.value)); });
  $("play").addEventListener("click", () => play(!view.timer));
  $("back").addEventListener("click", () => { play(false); go(view.moment - 1); });
  $("forward").addEventListener("click", () => { play(false); go(view.moment + 1); });
  $("surprise").addEventListener("click", () => { play(false); toMaxSurprise(); });
  document.addEventListener("keydown", (event) => {
    // Keys are the player's while it is on the screen, unless the element in focus has a use for them.
    const target = event.target, box = $("player").getBoundingClientRect();
    const inside = $("player").contains(target), visible = box.top < innerHeight && box.bottom > 0;
    if (event.ctrlKey || event.metaKey || event.altKey || !(inside || (target === document.body && visible))) return;
    if (target.tagName === "SELECT" || target.closest(".scroll")) return;
    if (event.key === " " && target.tagName === "BUTTON") return;
    if (target.tagName === "INPUT" && /^(Arrow|Home|End)/.test(event.key)) return;
    const keys = { ArrowLeft: () => go(view.moment - 1), ArrowRight: () => go(view.moment + 1), Home: () => go(0), End: () => go(1e9), " ": () => play(!view.timer), s: toMaxSurprise };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  draw();
})();
