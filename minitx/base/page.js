/* What moves on the page of results. Every component has its data beside it, in an element of JSON; all text of a user
   is set as text, never as HTML. Without this script all figures and tables are there; search, slider and heat maps are
   not. */
"use strict";

const SVG = "http://www.w3.org/2000/svg"; // the name of the language; nothing is loaded from there
const SHOWN = 12; // words that a search offers
const NEAR = 24; // pixels from a point of a curve within which its value is shown

const dataOf = (component) => JSON.parse(component.querySelector('script[type="application/json"]').textContent);
const written = (value) => (typeof value === "number" ? Number(value.toPrecision(4)).toString() : String(value))
  .replace("-", "−");

function make(name, attributes = {}, ...inside) {
  const drawn = ["svg", "rect", "text", "g", "circle", "path"].includes(name);
  const node = drawn ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...inside);
  return node;
}

// ------------------------------------------------------------------------------------------ values under the pointer

const tip = make("div", { class: "tip", role: "status", hidden: "" });

function showTip(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 8))}px`;
  tip.style.top = `${y + height + 24 > innerHeight ? y - height - 12 : y + 16}px`;
}

/* A curve shows the value of the point that is nearest to the pointer, in the whole drawing and in its panels. */
function showValues(drawing) {
  const curves = dataOf(drawing);
  for (const svg of drawing.querySelectorAll("svg")) {
    const mark = make("circle", { r: 5, fill: "none", stroke: "currentColor", "stroke-width": 1.5, class: "mark" });
    const leave = () => { tip.hidden = true; mark.remove(); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("pointermove", (event) => {
      const scale = svg.getScreenCTM();
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(scale.inverse());
      let nearest = null, least = NEAR / scale.a;
      for (const { label, panel, points } of curves) {
        if (at.x < panel[0] - 4 || at.x > panel[2] + 4 || at.y < panel[1] - 4 || at.y > panel[3] + 4) continue;
        for (const [x, y, a, b] of points) {
          const distance = Math.hypot(x - at.x, y - at.y);
          if (distance < least) [least, nearest] = [distance, { label, x, y, a, b }];
        }
      }
      if (!nearest) return leave();
      mark.setAttribute("cx", nearest.x);
      mark.setAttribute("cy", nearest.y);
      svg.append(mark);
      showTip(`${nearest.label}\nat ${nearest.a}: ${nearest.b}`, event.clientX, event.clientY);
    });
  }
}

// ------------------------------------------------------------------------------------- heat maps and steps of training

/* The signed strength of a value in [-1, 1]: logarithmic, and linear within a thousandth of the largest. */
const strength = (value, largest) => (largest > 0 ? Math.sign(value) * Math.log1p(1000 * Math.abs(value) / largest)
  / Math.log1p(1000) : 0);
const largestOf = (values) => values.flat(Infinity).filter(Number.isFinite)
  .reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/* The map of a group; its colours are linear where ``steady``, the largest value of the group, is given. */
function drawMap(words, map, group, steady) {
  const n = words.length, cell = 16, margin = 8 + 7.2 * Math.max(...words.map((word) => Math.min(word.length, 12)));
  const size = margin + n * cell + 2;
  const svg = make("svg", { viewBox: `0 0 ${size} ${size + 16}`, role: "img", "aria-label": map.title });
  const cells = [];
  words.forEach((word, i) => {
    const label = word.length > 12 ? `${word.slice(0, 11)}…` : word, middle = margin + (i + 0.5) * cell;
    svg.append(make("text", { x: margin - 4, y: middle + 4, "text-anchor": "end", "font-size": 11 }, label));
    svg.append(make("text", { x: 0, y: 0, "text-anchor": "start", "font-size": 11,
      transform: `translate(${middle + 4} ${margin - 4}) rotate(-90)` }, label));
    words.forEach((other, j) => {
      const rect = make("rect", { class: "cell", x: margin + j * cell, y: margin + i * cell, width: cell + 0.3,
        height: cell + 0.3 });
      cells.push(rect);
      svg.append(rect);
    });
  });
  svg.append(make("rect", { x: margin, y: margin, width: n * cell, height: n * cell, fill: "none", stroke: "currentColor",
    "stroke-opacity": 0.4 }));
  svg.append(make("text", { x: margin, y: size + 12, "font-size": 11 }, `row: ${group.row}; column: ${group.column}`));
  let shown = null;
  const paint = (place) => {
    shown = Array.isArray(map.values[0][0]) ? map.values[place] : map.values;
    const largest = steady || largestOf(shown);
    cells.forEach((rect, k) => {
      const value = shown[Math.floor(k / n)][k % n]; // a word such as "NaN" has no colour
      const part = !Number.isFinite(value) ? 0 : steady ? value / steady : strength(value, largest);
      rect.style.fill = `rgba(var(${part < 0 ? "--cold" : "--warm"}), ${Math.abs(part).toFixed(3)})`;
    });
  };
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  svg.addEventListener("pointermove", (event) => {
    const k = cells.indexOf(event.target);
    if (k < 0) { tip.hidden = true; return; }
    const [i, j] = [Math.floor(k / n), k % n];
    showTip(`${words[i]} → ${words[j]}\n${written(shown[i][j])}`, event.clientX, event.clientY);
  });
  return { node: make("div", {}, make("h4", {}, map.title), svg), paint };
}

/* The groups of heat maps, of which one is seen at a time. Returns what paints them for a place of the slider. */
function showMaps(figure) {
  const { words, groups, steady } = dataOf(figure), holder = figure.querySelector(".maps");
  const buttons = make("div", { class: "groups", role: "group", "aria-label": "which map is shown" });
  const pair = make("div", { class: "pair" });
  let maps = [], place = 0;
  const choose = (group) => {
    for (const button of buttons.children) button.setAttribute("aria-pressed", button.textContent === group.name);
    const largest = steady && largestOf(group.maps.map((map) => map.values));
    maps = group.maps.map((map) => drawMap(words, map, group, largest));
    pair.replaceChildren(...maps.map((map) => map.node));
    maps.forEach((map) => map.paint(place));
  };
  for (const group of groups) {
    const button = make("button", { type: "button", "aria-pressed": "false" }, group.name);
    button.addEventListener("click", () => choose(group));
    buttons.append(button);
  }
  holder.append(...(groups.length > 1 ? [buttons] : []), pair);
  choose(groups[0]);
  return (now) => { place = now; maps.forEach((map) => map.paint(now)); };
}

function moveSteps(moved) {
  const slider = moved.querySelector(".slider"), painters = [...moved.querySelectorAll("figure.heat")].map(showMaps);
  const steps = dataOf(slider), input = slider.querySelector("input"), output = slider.querySelector("output");
  const move = () => {
    const step = steps[Number(input.value)];
    output.textContent = step.toLocaleString("en");
    input.setAttribute("aria-valuetext", `step ${step}`);
    painters.forEach((paint) => paint(Number(input.value)));
    for (const row of moved.querySelectorAll("tr[data-step]")) {
      const now = Number(row.dataset.step) === step, box = row.closest(".scroll");
      row.classList.toggle("now", now);
      if (now) box.scrollTop = row.offsetTop - box.clientHeight / 2; // a long table moves in its frame
    }
  };
  input.addEventListener("input", move);
  move();
}

// ------------------------------------------------------------------------------------------------- words that go together

function searchWords(search) {
  const { words, nearest, explained, first } = dataOf(search), input = search.querySelector("input");
  const matches = search.querySelector(".matches"), says = search.querySelector(".says");
  const holder = search.querySelector(".associates"), places = new Map(words.map((word, place) => [word, place]));

  const go = (word) => { input.value = word; show(places.get(word)); offer(); };
  function column(name, place) {
    const { key, tokens, scores } = nearest[name], most = Math.max(...scores[place], 0);
    const list = make("div", {}, make("h4", {}, name), make("p", {}, explained[name]));
    tokens[place].forEach((token, k) => {
      const score = scores[place][k];
      const button = make("button", { type: "button", style: `--share: ${(100 * score / most).toFixed(1)}%` },
        make("span", {}, words[token]),
        make("data", { value: score, "data-key": `${key}/scores/${place}/${k}` }, written(score)));
      button.addEventListener("click", () => go(words[token]));
      list.append(button);
    });
    if (!tokens[place].length) list.append(make("p", {}, "No word goes together with it."));
    return list;
  }
  function show(place) {
    says.textContent = `Words that go together with “${words[place]}”:`;
    holder.replaceChildren(...Object.keys(nearest).map((name) => column(name, place)));
  }
  function offer() {
    const typed = input.value.trim();
    const begins = words.filter((word) => word.startsWith(typed) && word !== typed);
    const found = begins.concat(words.filter((word) => !word.startsWith(typed) && word.includes(typed))).slice(0, SHOWN);
    matches.replaceChildren(...(typed ? found : words.slice(0, SHOWN)).map((word) => {
      const button = make("button", { type: "button" }, word);
      button.addEventListener("click", () => go(word));
      return button;
    }));
    if (!places.has(typed) && typed && !found.length) says.textContent = `“${typed}” is not in this vocabulary.`;
  }
  input.addEventListener("input", () => {
    const typed = input.value.trim(), known = [typed, typed.toLowerCase()].find((word) => places.has(word));
    if (known !== undefined) show(places.get(known));
    offer();
  });
  go(first);
}

document.body.append(tip);
document.querySelectorAll(".drawing").forEach(showValues);
document.querySelectorAll(".moved").forEach(moveSteps);
document.querySelectorAll(".search").forEach(searchWords);
