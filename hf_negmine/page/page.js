"use strict";
(async () => {
  const MINED = 1, RELEVANT = 2, OF_OTHERS = 4, KEPT_OUT = 8, TEMPERATURE = 0.05, BINS = 50, SHOWN_HELD_BACK = 12;
  const at = (id) => document.getElementById(id);
  const packed = bytesOf(at("data").textContent);
  const data = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();

  // ---- arrays ------------------------------------------------------------------------------------------------------

  function bytesOf(base64) {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  }
  const unpacked = (text, Kind) => new Kind(bytesOf(text).buffer);
  const queryIds = unpacked(data.query_ids, Int32Array), passageIds = unpacked(data.passage_ids, Int32Array);
  const digests = data.digests === null ? null : unpacked(data.digests, Uint8Array);
  // Of the teacher that is shown:
  let queryPlaces, deciding, minedUnder, positiveOffsets, positivePlaces, positiveScores, segmentOffsets, entryOffsets,
    segmentCeilings, firstRanks, exhausted, flags, places, scores, items, wanted;
  function read(view) {
    const ints = (name) => unpacked(view[name], Int32Array), floats = (name) => unpacked(view[name], Float32Array);
    queryPlaces = ints("query_places"), deciding = floats("deciding"), minedUnder = floats("mined_under");
    positiveOffsets = ints("positive_offsets"), positivePlaces = ints("positive_places");
    positiveScores = floats("positive_scores");
    segmentOffsets = ints("segment_offsets"), entryOffsets = ints("entry_offsets");
    segmentCeilings = floats("ceilings"), firstRanks = ints("first_ranks");
    exhausted = unpacked(view.exhausted, Uint8Array), flags = unpacked(view.flags, Uint8Array);
    places = ints("places"), scores = floats("scores");
    items = deciding.length, wanted = view.wanted;
  }

  // ---- ceilings: the formulas of hf_negmine.select.methods, in the same number formats -------------------------------

  const RULES = {
    perc_pos: { low: 0, high: 1.2, step: 0.005, start: 0.95,
      ceiling: (p, x) => Math.fround(p - Math.abs(p) * (1 - x)),
      note: "The ceiling is p − |p| (1 − share) for a positive score p (TopK-PercPos)." },
    margin_pos: { low: 0, high: 1, step: 0.005, start: 0.05, ceiling: (p, x) => Math.fround(p - x),
      note: "The ceiling is p − margin for a positive score p (TopK-MarginPos)." },
    abs: { low: 0, high: 1, step: 0.005, start: 0.7, ceiling: (p, x) => Math.fround(x),
      note: "The ceiling is the same for every query (TopK-Abs)." },
    naive: { low: 0, high: 1, step: 1, start: 0, ceiling: () => Infinity,
      note: "Every passage that is not a labeled positive may be a negative." },
  };

  const extremes = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);

  /** The negatives of an item under a ceiling: entries [begin, begin + count), and whether the list reaches that far. */
  function answer(item, ceiling) {
    let chosen = -1;
    for (let s = segmentOffsets[item]; s < segmentOffsets[item + 1]; s++) if (segmentCeilings[s] >= ceiling) chosen = s;
    if (chosen < 0) return { begin: 0, count: 0, certain: false };
    let low = entryOffsets[chosen], high = entryOffsets[chosen + 1];
    const end = high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[middle] < ceiling) high = middle; else low = middle + 1;
    }
    const count = Math.min(end - low, wanted);
    return { begin: low, count, certain: count === wanted || exhausted[chosen] === 1 };
  }

  /** All negatives under a rule: entries, the item of each, and what cannot be told. */
  function select(rule, value) {
    const entries = [], itemOf = [], counts = new Int32Array(items);
    let unknown = 0;
    for (let i = 0; i < items; i++) {
      const found = answer(i, RULES[rule].ceiling(deciding[i], value));
      if (!found.certain) unknown++;
      counts[i] = found.count;
      for (let e = found.begin; e < found.begin + found.count; e++) { entries.push(e); itemOf.push(i); }
    }
    return { entries, itemOf, counts, unknown };
  }

  function asMined() {
    const entries = [], itemOf = [], counts = new Int32Array(items);
    for (let i = 0; i < items; i++)
      for (let e = entryOffsets[segmentOffsets[i]]; e < entryOffsets[segmentOffsets[i + 1]]; e++)
        if (flags[e] & MINED) { entries.push(e); itemOf.push(i); counts[i]++; }
    return { entries, itemOf, counts, unknown: 0 };
  }

  function measured(chosen) {
    const scored = chosen.entries.map((e) => scores[e]);
    const differences = chosen.entries.map((e, n) => Math.fround(deciding[chosen.itemOf[n]] - scores[e]));
    const losses = [];
    for (let n = 0; n < scored.length;) {
      const item = chosen.itemOf[n];
      const gaps = [];
      for (; n < scored.length && chosen.itemOf[n] === item; n++) gaps.push(-differences[n] / TEMPERATURE);
      const largest = Math.max(0, ...gaps);
      losses.push(largest + Math.log(Math.exp(-largest) + gaps.reduce((sum, gap) => sum + Math.exp(gap - largest), 0)));
    }
    const mean = (values) => values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
    return { scored, differences, losses,
      complete: chosen.counts.reduce((sum, count) => sum + (count === wanted), 0),
      negatives: scored.length, unknown: chosen.unknown, meanScore: mean(scored), meanDifference: mean(differences),
      over: differences.filter((value) => value < 0).length };
  }

  /** The ranges of the slider, in the teacher's scale. */
  function scale() {
    const ends = [...extremes(scores), ...extremes(deciding)].filter(isFinite);
    const lowest = ends.length ? Math.min(...ends) : 0, highest = ends.length ? Math.max(...ends) : 1;
    const round = (value, up) => +((up ? Math.ceil : Math.floor)(value * 20) / 20).toFixed(2);
    Object.assign(RULES.abs, { low: round(lowest, false), high: round(highest, true), start: round((lowest + highest) / 2, true) });
    RULES.margin_pos.high = round(highest - lowest, true);
    for (const rule of [RULES.abs, RULES.margin_pos]) rule.step = rule.high - rule.low > 5 ? 0.05 : 0.005;
  }

  // ---- state -------------------------------------------------------------------------------------------------------

  let mined, minedNumbers;
  const labels = new Map();  // "item:place" of query and passage to true or false
  const store = `hf_negmine labels ${data.texts}`;  // labels belong to texts, whatever the file is called
  const state = { rule: "perc_pos", value: 0.95, now: null, numbers: null, moved: false, order: [], current: 0, focus: -1 };

  const query = (item) => data.queries[queryPlaces[item]];
  const key = (item, place) => `${queryIds[queryPlaces[item]]}:${passageIds[place]}`;
  function remember() {
    if (data.server) return;  // the server has them
    try { localStorage.setItem(store, JSON.stringify([...labels])); } catch { /* a file may have no storage */ }
  }
  function remembered() {
    if (data.server) return data.server.labels;
    try { return JSON.parse(localStorage.getItem(store) || "[]"); } catch { return []; }
  }
  for (const [name, label] of remembered()) labels.set(name, label);

  // ---- elements ----------------------------------------------------------------------------------------------------

  function make(tag, { text, ...attributes } = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    element.append(...children);
    return element;
  }
  const shown = (value, digits = 3) => value === null ? "–" : value.toFixed(digits);
  const share = (part, whole) => whole ? `${(100 * part / whole).toFixed(1)} %` : "–";
  const fill = (id, ...children) => at(id).replaceChildren(...children);

  function drawNumbers() {
    const rows = [
      ["queries with all their negatives", (m) => `${m.complete.toLocaleString("en")} of ${items.toLocaleString("en")}`],
      ["negatives", (m) => m.negatives.toLocaleString("en")],
      ["mean score of the negatives", (m) => shown(m.meanScore, 4)],
      ["mean of positive less negative", (m) => shown(m.meanDifference, 4)],
      ["negatives over their positive", (m) => share(m.over, m.negatives)],
      ["lists that end before the ceiling's negatives", (m) => m.unknown.toLocaleString("en")],
    ];
    const body = at("numbers").tBodies[0];
    body.replaceChildren(...rows.map(([name, of]) => make("tr", {}, make("th", { scope: "row", text: name }),
      make("td", { text: of(minedNumbers) }), make("td", { text: state.moved ? of(state.numbers) : "" }))));
    at("now-head").textContent = state.moved ? spec() : "move the slider";
  }
  const spec = () => state.rule === "naive" ? "naive" : `${state.rule}:${+state.value.toFixed(4)}`;

  function draw(id, series, low, high, digits = 2, bins = BINS) {
    const svg = at(id), width = svg.clientWidth || 300, height = 150, bottom = 130;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!(high > low)) { low -= 0.5; high += 0.5; }
    const parts = series.map(({ values, kind }) => {
      const counts = new Array(bins).fill(0);
      for (const value of values) {
        const bin = Math.floor((value - low) / (high - low) * bins);
        if (bin >= 0 && bin <= bins) counts[Math.min(bin, bins - 1)]++;
      }
      const total = values.length || 1;
      return { kind, heights: counts.map((count) => count / total) };
    });
    const top = Math.max(1e-9, ...parts.flatMap((part) => part.heights));
    const nodes = parts.map(({ kind, heights }) => {
      let path = `M0 ${bottom}`;
      heights.forEach((share, bin) => {
        const y = (bottom - (bottom - 6) * share / top).toFixed(1);
        path += `V${y}H${((bin + 1) * width / bins).toFixed(1)}`;
      });
      return drawn("path", { d: `${path}V${bottom}Z`, class: kind });
    });
    nodes.push(drawn("line", { x1: 0, x2: width, y1: bottom, y2: bottom, class: "axis" }));
    for (const [x, anchor, value] of [[0, "start", low], [width / 2, "middle", (low + high) / 2], [width, "end", high]]) {
      const label = drawn("text", { x, y: height - 6, "text-anchor": anchor });
      label.textContent = value.toFixed(digits);
      nodes.push(label);
    }
    svg.replaceChildren(...nodes);
  }
  function drawn(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }
  function drawCharts() {
    const { scored, differences, losses } = state.numbers;
    const all = [...extremes(positiveScores), ...extremes(minedNumbers.scored), ...extremes(scored)].filter(isFinite);
    draw("chart-scores", [{ values: positiveScores, kind: "positive" }, { values: scored, kind: "negative" }],
      Math.min(...all), Math.max(...all));
    draw("chart-differences", [{ values: differences, kind: "negative" }], ...extremes(differences));
    draw("chart-losses", [{ values: losses, kind: "negative" }], 0, extremes(losses)[1]);
    const ranks = state.now.entries.map((e, n) => rankOf(e, state.now.itemOf[n])).filter((rank) => rank !== null);
    const last = Math.max(2, extremes(ranks)[1]), wide = Math.ceil(last / BINS), bins = Math.ceil(last / wide);
    draw("chart-ranks", [{ values: ranks, kind: "negative" }], 1, 1 + bins * wide, 0, bins);  // whole ranks in a bin
  }
  function segmentOf(entry, item) {
    let segment = segmentOffsets[item];
    while (entry >= entryOffsets[segment + 1]) segment++;
    return segment;
  }
  /** From 1, among the passages that are neither positives nor the query's own text; null if it is not known. */
  function rankOf(entry, item) {
    const segment = segmentOf(entry, item);
    return firstRanks[segment] < 0 ? null : firstRanks[segment] + entry - entryOffsets[segment] + 1;
  }

  // ---- queries -----------------------------------------------------------------------------------------------------

  const lower = [data.queries, data.passages].map((texts) => texts.map((text) => text.toLowerCase()));
  function matches(item, word) {
    if (lower[0][queryPlaces[item]].includes(word)) return true;
    for (let p = positiveOffsets[item]; p < positiveOffsets[item + 1]; p++) if (lower[1][positivePlaces[p]].includes(word)) return true;
    for (let e = entryOffsets[segmentOffsets[item]]; e < entryOffsets[segmentOffsets[item + 1]]; e++)
      if (lower[1][places[e]].includes(word)) return true;
    return false;
  }
  function arrange() {
    const word = at("search").value.trim().toLowerCase(), order = at("order").value;
    let chosen = [...Array(items).keys()];
    if (word) chosen = chosen.filter((item) => matches(item, word));
    const values = new Float64Array(items);
    if (order === "near") {
      values.fill(Infinity);
      state.now.entries.forEach((e, n) => { const i = state.now.itemOf[n]; values[i] = Math.min(values[i], ceilingOf(i) - scores[e]); });
    } else if (order === "few") state.now.counts.forEach((count, i) => { values[i] = count; });
    else if (order !== "given") {
      const flag = order === "relevant" ? RELEVANT : KEPT_OUT;
      for (let i = 0; i < items; i++)
        for (let e = entryOffsets[segmentOffsets[i]]; e < entryOffsets[segmentOffsets[i + 1]]; e++) if (flags[e] & flag) values[i]--;
    }
    if (order !== "given") chosen.sort((one, other) => (values[one] - values[other]) || (one - other));
    const before = state.order[state.current];
    state.order = chosen;
    state.current = Math.max(0, chosen.indexOf(before));
    fill("list", ...chosen.map((item, place) => make("li", {}, make("button",
      { type: "button", dir: "auto", text: query(item), "data-place": place, tabindex: place === state.current ? 0 : -1 }))));
    mark();
  }
  /** Where there is none, the positive's score. */
  const ceilingOf = (item) => state.moved ? RULES[state.rule].ceiling(deciding[item], state.value)
    : isFinite(minedUnder[item]) ? minedUnder[item] : deciding[item];

  function mark() {
    for (const button of at("list").querySelectorAll('[aria-current="true"]')) button.removeAttribute("aria-current");
    const button = at("list").querySelector(`[data-place="${state.current}"]`);
    if (button) {
      button.setAttribute("aria-current", "true");
      const list = at("list");
      if (button.offsetTop < list.scrollTop + list.offsetTop || button.offsetTop > list.scrollTop + list.offsetTop + list.clientHeight - 40)
        list.scrollTop = button.offsetTop - list.offsetTop - 60;
    }
    detail();
  }

  function detail() {
    const item = state.order[state.current];
    if (item === undefined) { fill("detail", make("p", { text: "No query matches." })); return; }
    const first = entryOffsets[segmentOffsets[item]], end = entryOffsets[segmentOffsets[item + 1]];
    const found = answer(item, ceilingOf(item));
    const isChosen = (e) => state.moved ? e >= found.begin && e < found.begin + found.count : (flags[e] & MINED) !== 0;
    const blocks = [make("h3", { dir: "auto", text: query(item) })];
    for (let p = positiveOffsets[item]; p < positiveOffsets[item + 1]; p++)
      blocks.push(passage(item, positivePlaces[p], positiveScores[p], "positive",
        positiveScores[p] === deciding[item] && positiveOffsets[item + 1] - positiveOffsets[item] > 1 ? "positive, sets the ceiling" : "positive", null));
    let lastChosen = first - 1, heldBack = 0;
    for (let e = first; e < end; e++) if (isChosen(e)) lastChosen = e;
    const seen = new Set();  // two stretches of a ranking may overlap
    for (let e = first; e <= Math.max(lastChosen, Math.min(first + wanted, end - 1)); e++) {
      if (seen.has(places[e])) continue;
      seen.add(places[e]);
      if (isChosen(e)) blocks.push(passage(item, places[e], scores[e], "chosen", "negative", rankOf(e, item)));
      else if (flags[e] & (KEPT_OUT | RELEVANT) || heldBack++ < SHOWN_HELD_BACK)
        blocks.push(passage(item, places[e], scores[e], "held", why(e, item, lastChosen), rankOf(e, item)));
    }
    if (heldBack > SHOWN_HELD_BACK)
      blocks.push(make("p", { class: "note", text: `${heldBack - SHOWN_HELD_BACK} more were held back.` }));
    if (state.moved && !found.certain)
      blocks.push(make("p", { class: "warn", text: "The stored list ends here: what follows under this ceiling is not known. Mine with this method to look further." }));
    fill("detail", ...blocks);
    state.focus = -1;
  }
  function why(e, item, lastChosen) {
    if (flags[e] & RELEVANT) return "held back: a judge called it relevant";
    if (flags[e] & OF_OTHERS && !state.moved) return "negative, chosen by another teacher";
    if (state.moved) return scores[e] >= ceilingOf(item) ? "held back: at or over the ceiling" : "not among the best under the ceiling";
    if (flags[e] & KEPT_OUT) return `held back by ${data.filters.join(" or by ")}`;
    if (e > lastChosen) return "further down";
    if (scores[e] >= deciding[item]) return "held back: scores at or over the positive";
    return scores[e] >= minedUnder[item] ? "held back: at or over the ceiling" : `held back by ${data.settings.method}, ${data.settings.sampler} or a filter`;
  }
  function passage(item, place, score, kind, what, rank) {
    const facts = [make("span", { class: "what", text: what }), make("span", { text: `score ${score.toFixed(4)}` })];
    if (kind !== "positive") {
      if (deciding[item] > 0) facts.push(make("span", { text: `${(100 * score / deciding[item]).toFixed(1)} % of the positive` }));
      if (rank !== null) facts.push(make("span", { text: `rank ${rank}` }));
    }
    if (kind !== "positive") facts.push(make("span", { class: "labels" }, ...[[true, "relevant"], [false, "not relevant"]].map(([label, text]) =>
      make("button", { type: "button", "data-label": label, "data-place-of": place,
        "aria-pressed": labels.get(key(item, place)) === label, text }))));
    return make("div", { class: `passage ${kind}`, tabindex: -1, "data-passage": place },
      make("div", { class: "facts" }, ...facts), make("p", { dir: "auto", text: data.passages[place] }));
  }

  function label(place, value) {
    const item = state.order[state.current], name = key(item, place);
    if (labels.get(name) === value) return;
    labels.set(name, value);
    remember();
    if (data.server) send(item, place, value);
    for (const button of at("detail").querySelectorAll(`[data-place-of="${place}"]`))
      button.setAttribute("aria-pressed", String(button.dataset.label === String(value)));
    tell();
  }
  function send(item, place, value) {
    fetch(data.server.judgements, { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ query_id: queryIds[queryPlaces[item]], document_id: passageIds[place], relevant: value }) })
      .then((answer) => { if (!answer.ok) throw new Error(answer.statusText); })
      .catch(() => { labels.delete(key(item, place)); detail(); tell("The last label was not saved: the server does not answer."); });
  }
  const tell = (text) => { at("labelled").textContent = text || (labels.size ? `${labels.size} labeled` : ""); };

  function lines() {
    const [queryAt, passageAt] = [queryIds, passageIds].map((ids) => new Map([...ids].map((id, place) => [id, place])));
    const found = [];
    for (const [name, relevant] of labels) {
      const [one, other] = name.split(":").map(Number), at = queryAt.get(one), place = passageAt.get(other);
      if (at !== undefined && place !== undefined)
        found.push({ query: data.queries[at], document: data.passages[place], relevant, ...named(at, place),
          query_id: data.ids ? data.ids[0][at] : one, document_id: data.ids ? data.ids[1][place] : other });
    }
    return found;
  }
  /** The digests of texts that the page holds cut, so that a label finds the whole ones. */
  function named(query, place) {
    if (!digests) return {};
    const hex = (at) => [...digests.subarray(16 * at, 16 * at + 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    return { query_digest: hex(query), document_digest: hex(data.queries.length + place) };
  }
  const asLines = () => lines().map((one) => JSON.stringify(one)).join("\n") + "\n";
  const asQrels = () => lines().map((one) => `${one.query_id} 0 ${one.document_id} ${one.relevant ? 1 : 0}`).join("\n") + "\n";
  function save(name, content) {
    const link = make("a", { download: name });
    link.href = URL.createObjectURL(new Blob([content], { type: "text/plain" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // ---- events ------------------------------------------------------------------------------------------------------

  function move(rule, value) {
    Object.assign(state, { rule, value, moved: true });
    state.now = select(rule, value);
    state.numbers = measured(state.now);
    drawNumbers();
    drawCharts();
    if (at("order").value === "given") detail(); else arrange();
  }
  function take(rule) {
    const { low, high, step, start, note } = RULES[rule];
    for (const input of [at("slider"), at("number")]) {
      Object.assign(input, { min: low, max: high, step, disabled: rule === "naive" });
      input.value = start;
    }
    at("number").step = "any";
    at("rule-note").textContent = `${note} The slider moves the ceiling alone: the best ${wanted} under it, without filters.`;
    return start;
  }
  at("rule").addEventListener("change", (event) => move(event.target.value, take(event.target.value)));
  at("slider").addEventListener("input", (event) => { at("number").value = event.target.value; move(at("rule").value, +event.target.value); });
  at("number").addEventListener("input", (event) => {
    if (event.target.value === "" || !isFinite(+event.target.value)) return;
    at("slider").value = event.target.value;
    move(at("rule").value, +event.target.value);
  });
  at("reset").addEventListener("click", () => {
    begin();
    drawNumbers(); drawCharts(); arrange();
  });
  at("search").addEventListener("input", arrange);
  at("order").addEventListener("change", () => { state.order = []; arrange(); });  // begins with the first
  at("list").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) { state.current = +button.dataset.place; mark(); }
  });
  at("detail").addEventListener("click", (event) => {
    const button = event.target.closest("[data-label]");
    if (button) label(+button.dataset.placeOf, button.dataset.label === "true");
  });
  at("export-lines").addEventListener("click", () => save("judgements.jsonl", asLines()));
  at("export-qrels").addEventListener("click", () => save("judgements.qrels", asQrels()));
  at("theme").addEventListener("click", (event) => {
    const dark = getComputedStyle(document.documentElement).colorScheme !== "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    event.target.setAttribute("aria-pressed", String(dark));
  });
  window.addEventListener("resize", drawCharts);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const blocks = [...at("detail").querySelectorAll("[data-passage]")];
    const step = { j: 1, k: -1 }[event.key], walk = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { state.current = Math.min(Math.max(state.current + step, 0), state.order.length - 1); mark(); }
    else if (walk && blocks.length) { state.focus = Math.min(Math.max(state.focus + walk, 0), blocks.length - 1); blocks[state.focus].focus(); }
    else if (event.key === "/") at("search").focus();
    else if ((event.key === "1" || event.key === "0") && state.focus >= 0)
      label(+blocks[state.focus].dataset.passage, event.key === "1");
    else return;
    event.preventDefault();
  });

  // ---- start -------------------------------------------------------------------------------------------------------

  at("teacher").textContent = data.title;
  at("summary").textContent = data.summary;
  fill("hubs", ...data.hubs.map(([text, count]) => make("li", {}, make("strong", { text: `${count} queries: ` }), make("bdi", { text }))));
  if (!data.hubs.length) fill("hubs", make("li", { text: "No passage is a negative of more than one query." }));
  if (data.sweep) {
    const [heads, ...rows] = data.sweep.cells, section = at("sweep"), table = section.querySelector("table");
    table.tHead.append(make("tr", {}, ...heads.map((text) => make("th", { scope: "col", text }))));
    table.tBodies[0].append(...rows.map(([name, ...cells]) =>
      make("tr", {}, make("th", { scope: "row", text: name }), ...cells.map((text) => make("td", { text })))));
    section.querySelector("caption").textContent = data.sweep.heading;
    section.querySelector("p").textContent = data.sweep.told;
    section.hidden = false;
  }
  if (data.ids) at("export-qrels").textContent = "Export labels (qrels)";
  if (!data.judged) at("order").querySelector("[value=relevant]").remove();
  if (!data.filters.length) at("order").querySelector("[value=kept]").remove();
  const count = (number) => number.toLocaleString("en");
  function open(view) {
    read(view);
    scale();
    mined = asMined(), minedNumbers = measured(mined);
    at("scope").textContent = (items < view.targets ? `${count(items)} of ${count(view.targets)} ${data.unit}` : `${count(items)} ${data.unit}`)
      + (view.targets < data.targets ? ` of this teacher (${count(data.targets)} in all)` : "")
      + `, ${data.settings.method}, ${data.settings.sampler}` + (data.cut ? `. Texts are cut to ${data.cut} letters.` : ".");
    if (data.server) {
      const { start, step } = data.server, total = view.targets, ends = Math.min(start + step, total);
      const links = [[start - step, "Earlier"], [start + step, "Later"]].filter(([first]) => first >= 0 && first < total);
      fill("slices", make("span", { text: `${data.unit === "pairs" ? "Pairs" : "Queries"} ${count(Math.min(start + 1, total))} to ${count(ends)} of ${count(total)}` }),
        ...links.map(([first, text]) => make("a", { href: `?start=${first}&teacher=${data.shown[0]}`, text })));
    }
    begin();
    drawNumbers(); drawCharts(); arrange(); tell();
  }
  if (data.shared) {
    at("view").append(...data.teachers.map((text, place) => make("option", { value: place, text })));
    at("view").value = data.shown[0];
    at("view").addEventListener("change", (event) => {
      if (data.server) location.search = `?teacher=${event.target.value}`;
      else open(data.views[event.target.value]);
    });
    at("shared").textContent = data.shared;
    at("teachers").hidden = false;
  }
  if (data.agreement) {
    at("agreement-told").textContent = data.agreement.told;
    const shares = data.agreement.jaccard, table = at("agreement");
    table.tHead.append(make("tr", {}, make("td"), ...data.teachers.map((text, place) =>
      make("th", { scope: "col" }, `${place + 1}`, make("span", { class: "hidden", text: ` ${text}` })))));
    table.tBodies[0].append(...shares.map((row, one) => make("tr", {}, make("th", { scope: "row" }, `${one + 1} `, make("bdi", { text: data.teachers[one] })),
      ...row.map((value, other) => {
        const cell = make("td", { text: value.toFixed(2), class: one === other ? "self" : null });
        cell.style.setProperty("--share", `${50 * value}%`);
        return cell;
      }))));
  }
  function begin() {
    const [rule, value] = data.settings.method.split("+")[0].split(":");  // of several rules, the first
    at("rule").value = RULES[rule] && (rule === "naive" || isFinite(+value)) ? rule : "perc_pos";
    if (at("rule").value === rule && value !== undefined) {
      RULES[rule].start = +value;
      RULES[rule].high = Math.max(RULES[rule].high, +value);
      RULES[rule].low = Math.min(RULES[rule].low, +value);
    }
    take(at("rule").value);
    Object.assign(state, { rule: at("rule").value, value: +at("number").value, now: mined, numbers: minedNumbers, moved: false });
  }
  if (data.server) for (const button of [at("export-lines"), at("export-qrels")]) button.remove();  // the file has them all
  open(data.views[0]);

  window.hfNegmine = { select, measured, state, labels, asLines, asQrels, move,
    queryId: (item) => queryIds[queryPlaces[item]], idsOf: (chosen) => chosen.entries.map((e) => passageIds[places[e]]) };
})();
