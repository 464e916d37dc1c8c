// The episode player: what the agent observed, imagined and chose at each step. Everything comes from the page's own
// JSON (agent/inspection/recorder.py describes it); nothing is fetched. An environment may lack frames, a map or a goal.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const episodes = data.recordings.flatMap((r) => r.episodes.map((e) => ({ ...e, block: r.block, recording: r.name })));
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
  // The imagined frame to show beside the observed one: that of an earlier plan if it imagined exactly this step, else
  // the next step of the current plan. A selected candidate shows its own next step.
  const expected = () => {
    const p = plan(), block = current().block, steps = (q) => q.paths[0].critic.length;
    if (!view.picked) {
      for (const q of current().plans.slice(0, now().plan + 1).reverse()) {
        const step = (view.moment - q.moment) / block;
        if (step >= 1 && Number.isInteger(step) && step <= steps(q)) return { plan: q, path: 0, step };
      }
    }
    const step = Math.min(steps(p), Math.max(1, Math.ceil((view.moment - p.moment + 1e-9) / block)));
    return { plan: p, path: view.picked, step };
  };

  function fit(canvas, width, height) {
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
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
    const { plan: q, path, step } = expected(), of = q.moment + step * current().block;
    if (q.frames) sheetFrame(canvas, q.frames, step - 1, path, current().frame_size);
    else onMap(canvas, q.paths[path].at?.[step]);
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
    const image = picture(p.frames), [w, h] = current().frame_size, steps = p.paths[0].critic.length;
    if (!image) return;
    const rows = view.picked ? [0, view.picked] : [0];
    const context = fit(canvas, steps * (w * 2 + 6), rows.length * (h * 2 + 6));
    rows.forEach((row, r) => {
      for (let i = 0; i < steps; i++) {
        context.drawImage(image, i * w, row * h, w, h, i * (w * 2 + 6), r * (h * 2 + 6), w * 2, h * 2);
      }
    });
    canvas.setAttribute("aria-label", `${steps} imagined frames of the chosen plan` + (view.picked ? ` and, below them, of candidate ${view.picked}` : ""));
  }

  const brief = (x) => (x && (x < 1e-3 || x >= 1e5) ? x.toExponential(1) : String(Number(x.toPrecision(3))));
  const termsOf = (path) => [...Object.entries(path.drives), ["critic", path.critic]];

  function drawCosts() {
    const p = plan(), box = $("costs"), table = $("cost-table");
    box.replaceChildren();
    table.replaceChildren();
    if (!p) return;
    const shown = view.picked ? [0, view.picked] : [0];
    const steps = p.paths[0].critic.length, names = termsOf(p.paths[0]).map(([name]) => name);
    const total = (path, i) => termsOf(path).reduce((sum, [, v]) => sum + v[i], 0);
    const top = Math.max(1e-9, ...shown.flatMap((k) => [...Array(steps).keys()].map((i) => total(p.paths[k], i))));
    const ns = "http://www.w3.org/2000/svg", width = 440, height = 170, left = 52, foot = 20;
    const wide = (width - left) / steps, high = height - foot - 12;
    const svg = document.createElementNS(ns, "svg");
    const put = (tag, attributes, text) => {
      const element = document.createElementNS(ns, tag);
      for (const [k, v] of Object.entries(attributes)) element.setAttribute(k, v);
      if (text) element.textContent = text;
      svg.appendChild(element);
      return element;
    };
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("class", "chart");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `Predicted cost at each imagined step, stacked by ${names.join(" and ")}; the table below has the numbers`);
    // Narrow bars have narrow gaps between them, and not a number each.
    const gap = Math.min(14, 0.3 * wide), every = Math.ceil(24 / wide);
    for (const [value, y] of [[top, height - foot - high], [0, height - foot]]) {
      put("path", { class: "rule", d: `M${left - 4} ${y}H${width}` });
      put("text", { class: "axis", x: left - 8, y: y + 4, "text-anchor": "end" }, brief(value));
    }
    for (let i = 0; i < steps; i++) {
      shown.forEach((k, place) => {
        let floor = height - foot;
        const bar = (wide - gap) / shown.length, x = left + i * wide + place * bar;
        termsOf(p.paths[k]).forEach(([, values], n) => {
          const tall = Math.max(0, (values[i] / top) * high);
          floor -= tall;
          put("rect", { class: `part c${n}`, x, y: floor, width: bar - Math.min(3, 0.2 * bar), height: tall, opacity: place ? 0.55 : 1 });
        });
      });
      if ((i + 1) % every === 0) put("text", { class: "axis", x: left + i * wide + (wide - gap) / 2, y: height - 5, "text-anchor": "middle" }, `+${i + 1}`);
    }
    const legend = make("ul", null, { class: "legend" });
    names.forEach((name, n) => legend.appendChild(make("li", name, { class: `c${n}` })));
    box.append(svg, legend);

    const head = make("tr", null);
    head.append(make("th", "plan"), make("th", "term"));
    for (let i = 0; i < steps; i++) head.append(make("th", `+${i + 1}`, { class: "number" }));
    head.append(make("th", "energy", { class: "number" }));
    table.append(head);
    for (const k of shown) {
      termsOf(p.paths[k]).forEach(([name, values], n) => {
        const row = make("tr", null);
        row.append(make("td", n ? "" : k ? `candidate ${k}` : "chosen"), make("td", name));
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
    const here = [...Object.entries(m.drives), ["critic", m.critic]];
    const facts = [
      ["mode", acted],
      ["latency", `${m.milliseconds.toFixed(1)} ms, one call for all episodes of the batch`],
      ["surprise", known(m.surprise) ? number(m.surprise) : "- (no prediction for this step)"],
      ["current cost", here.map(([k, v]) => `${k} ${number(v)}`).join(", ")],
    ];
    if (p) facts.push(["energy", `first proposal ${number(p.proposal_energy)}, chosen plan ${number(p.paths[0].energy)}`]);
    facts.push(["memory", m.recalled ? `distances to the most similar states: ${m.recalled.unlike.map(number).join(", ")}` : "empty"]);
    for (const [name, text] of facts) box.append(make("dt", name), make("dd", text));
  }

  // Only what the episode has is on the page.
  function arrange() {
    const episode = current(), mapped = Boolean(episode.map), frames = Boolean(episode.frames);
    const painted = episode.plans.some((p) => p.frames);
    $("map-figure").hidden = !mapped;
    $("player").querySelector(".stage").classList.toggle("no-map", !mapped);
    $("real").parentElement.hidden = !frames && !mapped;
    $("imagined").parentElement.hidden = !painted && !mapped;
    $("no-picture").hidden = frames || mapped || painted;
  }

  function draw() {
    const last = current().moments.length - 1;
    $("moment").max = last;
    $("moment").value = view.moment;
    $("where").textContent = `${view.moment} of ${last}`;
    $("moment").setAttribute("aria-valuetext", `step ${view.moment} of ${last}`);
    arrange();
    drawReal(); drawImagined(); drawGoal(); drawMap(); drawStrip(); drawCosts(); drawPlans(); drawFacts();
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

  episodes.forEach((e, i) => $("episode").append(make("option", `${e.recording}: task ${e.task}, ${e.steps > 0 ? `success after ${e.steps} steps` : "no success"}`, { value: i })));
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
