"use strict";
(() => {
  const MOST_SIDE_BY_SIDE = 6; // a browser has 16 WebGL contexts, which other pages want too
  const data = JSON.parse(document.getElementById("data").textContent);
  const structures = data.structures;
  const $ = (id) => document.getElementById(id);
  const several = structures.length > 1;
  document.body.classList.toggle("more", several);

  // Okabe and Ito's colours, which most people tell apart.
  const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d1f", "#7f7f7f"];
  const FOLDS = { h: ["helix", "#d6336c"], s: ["strand", "#e0a800"], c: ["coil", "#8a94a0"] };
  // AlphaFold's classes and colours.
  const CLASSES = [
    [90, "very high (over 90)", "#0053d6"], [70, "confident (70 to 90)", "#65cbf3"],
    [50, "low (50 to 70)", "#ffdb13"], [-1, "very low (under 50)", "#ff7d45"],
  ];
  const NO_VALUE = "#8a94a0";

  const ofPlace = structures.map((structure) => {
    const places = new Map();
    structure.chains.forEach((chain, c) => chain.ids.forEach((id, r) => places.set(`${c}:${id}`, [c, r])));
    return places;
  });
  const folds = structures.map(() => new Map()); // what 3Dmol finds from hydrogen bonds
  const state = { colour: null, layout: "side", spin: false, selected: null, shown: new Set() };
  structures.slice(0, MOST_SIDE_BY_SIDE).forEach((_, s) => state.shown.add(s));
  let viewers = []; // {viewer, models: Map(structure -> model), box}

  const confidenceOf = (s, c, r) => structures[s].chains[c].confidence?.[r];
  const classOf = (value) => CLASSES.find(([least]) => value >= least);
  const foldOf = (s, c, r) => folds[s].get(`${c}:${structures[s].chains[c].ids[r]}`) || "c";

  function shade(value) { // hydrophobicity -4.5 (blue) to 4.5 (orange), white in the middle
    const t = Math.max(-1, Math.min(1, value / 4.5));
    const [r, g, b] = t > 0 ? [213, 94, 0] : [0, 114, 178];
    const mix = (x) => Math.round(235 + (x - 235) * Math.abs(t));
    return `rgb(${mix(r)},${mix(g)},${mix(b)})`;
  }

  const COLOURS = {
    chain: {
      name: "chain",
      of: (s, c) => HUES[c % HUES.length],
      legend: () => structures.flatMap((structure, s) => state.shown.has(s) ? structure.chains.map((chain, c) =>
        [HUES[c % HUES.length], several ? `${structure.name}, chain ${chain.name}` : `chain ${chain.name}`]) : []),
    },
    structure: {
      name: "structure", is_there: several,
      of: (s) => HUES[s % HUES.length],
      legend: () => structures.map((structure, s) => [HUES[s % HUES.length], structure.name]),
    },
    fold: {
      name: "secondary structure",
      of: (s, c, r) => FOLDS[foldOf(s, c, r)][1],
      legend: () => Object.values(FOLDS).map(([name, colour]) => [colour, name]),
    },
    hydrophobicity: {
      name: "hydrophobicity",
      of: (s, c, r) => {
        const value = data.hydrophobicity[structures[s].chains[c].sequence[r]];
        return structures[s].chains[c].is_protein && value !== undefined ? shade(value) : NO_VALUE;
      },
      legend: () => [[shade(-4.5), "hydrophilic (Kyte-Doolittle -4.5)"], [shade(0), "0"], [shade(4.5), "hydrophobic (4.5)"], [NO_VALUE, "no value"]],
    },
    confidence: {
      name: "confidence (pLDDT)", is_there: structures.some((s) => s.chains.some((chain) => chain.confidence)),
      of: (s, c, r) => {
        const value = confidenceOf(s, c, r);
        return value === undefined ? NO_VALUE : classOf(value)[2];
      },
      legend: () => [...CLASSES.map(([, name, colour]) => [colour, name]), ...(structures.every((s) => s.chains.every((chain) => chain.confidence)) ? [] : [[NO_VALUE, "no confidence"]])],
    },
  };

  const colourOf = (s) => (atom) => {
    const place = ofPlace[s].get(`${atom.chain}:${atom.resi}`);
    return place ? COLOURS[state.colour].of(s, ...place) : NO_VALUE;
  };

  function describe([s, c, r]) {
    const chain = structures[s].chains[c];
    const parts = [`${chain.names[r]} ${chain.numbers[r]}`, `chain ${chain.name}`];
    if (several) parts.push(structures[s].name);
    if (chain.is_protein) parts.push(FOLDS[foldOf(s, c, r)][0]);
    const confidence = confidenceOf(s, c, r);
    if (confidence !== undefined) parts.push(`confidence ${confidence.toFixed(0)}, ${classOf(confidence)[1].split(" (")[0]}`);
    return parts.join(", ");
  }

  function style(model, s) {
    const colorfunc = colourOf(s);
    const structure = structures[s];
    model.setStyle({}, {});
    structure.chains.forEach((chain, c) => {
      const of = { chain: String(c) };
      if (chain.drawn === "sticks") model.setStyle(of, { stick: { colorfunc, radius: 0.2 }, sphere: { colorfunc, scale: 0.25 } });
      else if (!chain.is_protein) model.setStyle(of, { cartoon: { colorfunc }, stick: { colorfunc, radius: 0.15 } });
      else model.setStyle(of, { cartoon: { colorfunc, ...(chain.drawn === "trace" ? { style: "trace" } : { arrows: true }) } });
    });
    model.setStyle({ chain: "x" }, { stick: { colorscheme: "default", radius: 0.22 }, sphere: { colorscheme: "default", scale: 0.25 } });
  }

  // Shapes, since a style for one residue has 3Dmol draw the whole structure anew.
  function mark(viewer, model, s) {
    if (!state.selected || state.selected[0] !== s) return;
    const [, c, r] = state.selected;
    const atoms = model.selectedAtoms({ chain: String(c), resi: structures[s].chains[c].ids[r] });
    const color = "#e6007e";
    atoms.forEach((a, k) => {
      viewer.addSphere({ center: a, radius: 0.45, color });
      for (const b of atoms.slice(0, k)) {
        if (Math.hypot(a.x - b.x, a.y - b.y, a.z - b.z) < 1.95) viewer.addCylinder({ start: a, end: b, radius: 0.25, color });
      }
    });
  }

  function drawContacts(viewer, s) {
    const contacts = structures[s].contacts;
    if (!contacts || !contacts.lines) return;
    const cb = contacts.cb;
    for (const [i, j, is_contact] of contacts.surest) {
      const [a, b] = [cb[i], cb[j]].map(([x, y, z]) => ({ x, y, z }));
      viewer.addCylinder({ start: a, end: b, radius: 0.1, color: is_contact ? "#009e73" : "#d55e00", dashed: !is_contact });
    }
  }

  function drawShapes() {
    for (const { viewer, models } of viewers) {
      viewer.removeAllShapes();
      for (const [s, model] of models) {
        mark(viewer, model, s);
        drawContacts(viewer, s);
      }
      viewer.render();
    }
  }

  function restyle() {
    for (const { models } of viewers) for (const [s, model] of models) style(model, s);
    drawShapes();
    const legend = $("legend");
    legend.replaceChildren(...COLOURS[state.colour].legend().map(([colour, name]) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      item.append(swatch, name);
      return item;
    }));
  }

  function background() {
    return getComputedStyle(document.documentElement).getPropertyValue("--back").trim();
  }

  function makeViewer(some) {
    const box = document.createElement("figure");
    const place = document.createElement("div");
    place.className = "viewer";
    place.tabIndex = 0;
    place.setAttribute("role", "application");
    const names = some.map((s) => structures[s].name).join(", ");
    place.setAttribute("aria-label", `Structure of ${names}. Arrow keys select the residue before or after.`);
    const caption = document.createElement("figcaption");
    caption.textContent = some.map((s) => structures[s].caption).join("; ");
    box.append(place, caption);
    $("viewers").append(box);
    const viewer = $3Dmol.createViewer(place, { backgroundColor: background(), antialias: true });
    place.querySelector("canvas").setAttribute("aria-hidden", "true");
    const models = new Map();
    for (const s of some) {
      const model = viewer.addModel(structures[s].atoms, "cif");
      for (const atom of model.selectedAtoms({})) folds[s].set(`${atom.chain}:${atom.resi}`, atom.ss);
      models.set(s, model);
      model.setClickable({}, true, (atom) => {
        const found = ofPlace[s].get(`${atom.chain}:${atom.resi}`);
        if (found) select([s, ...found]);
        else $("selected").textContent = `${atom.resn}, a ligand of ${structures[s].name}.`;
      });
    }
    place.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const here = state.selected && models.has(state.selected[0]) ? state.selected : null;
      if (!here) {
        const s = some.find((one) => structures[one].chains.length);
        if (s !== undefined) select([s, 0, 0]);
        return;
      }
      const [s, c, r] = here;
      select([s, c, Math.max(0, Math.min(structures[s].chains[c].ids.length - 1, r + step))]);
    });
    return { viewer, models, box };
  }

  function build() {
    for (const { viewer, box } of viewers) {
      viewer.spin(false);
      viewer.clear();
      viewer.getCanvas().getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
      box.remove();
    }
    const shown = structures.map((_, s) => s).filter((s) => state.shown.has(s));
    const groups = state.layout === "over" ? [shown] : shown.map((s) => [s]);
    $("viewers").classList.toggle("two", groups.length > 1);
    viewers = groups.filter((group) => group.length).map(makeViewer);
    restyle();
    for (const { viewer } of viewers) {
      viewer.zoomTo();
      viewer.render();
      viewer.spin(state.spin ? "y" : false);
    }
    describeSequences();
  }

  function option([s, c, r]) {
    return $(`r-${s}-${c}-${r}`);
  }

  function select(place) {
    if (state.selected) option(state.selected)?.setAttribute("aria-selected", "false");
    state.selected = place;
    const element = option(place);
    element.setAttribute("aria-selected", "true");
    element.parentNode.setAttribute("aria-activedescendant", element.id);
    element.scrollIntoView({ block: "nearest" });
    $("selected").textContent = `${describe(place)}.`;
    drawShapes();
  }

  function look([s, c, r]) {
    const found = viewers.find(({ models }) => models.has(s));
    if (!found) return;
    found.viewer.zoomTo({ model: found.models.get(s), chain: String(c), resi: structures[s].chains[c].ids[r] });
    found.viewer.zoom(0.4);
    found.viewer.render();
  }

  function makeSequences() {
    structures.forEach((structure, s) => {
      const section = document.createElement("section");
      const title = document.createElement("h2");
      title.textContent = structure.name;
      section.append(title);
      for (const note of structure.notes) {
        const line = document.createElement("p");
        line.className = "note";
        line.textContent = note;
        section.append(line);
      }
      structure.chains.forEach((chain, c) => {
        const head = document.createElement("h3");
        head.textContent = `Chain ${chain.name}, ${chain.ids.length.toLocaleString("en")} ${chain.is_protein ? "residues" : "nucleotides"}`;
        const list = document.createElement("div");
        list.className = "sequence";
        list.tabIndex = 0;
        list.setAttribute("role", "listbox");
        list.setAttribute("aria-label", `${structure.name}, chain ${chain.name}`);
        list.append(...[...chain.sequence].map((letter, r) => {
          const item = document.createElement("span");
          item.id = `r-${s}-${c}-${r}`;
          item.setAttribute("role", "option");
          item.setAttribute("aria-selected", "false");
          item.setAttribute("aria-label", `${chain.names[r]} ${chain.numbers[r]}`);
          item.textContent = letter;
          if (r % 10 === 9) item.classList.add("tenth");
          return item;
        }));
        list.addEventListener("click", (event) => {
          const found = event.target.id?.match(/^r-(\d+)-(\d+)-(\d+)$/);
          if (found) select(found.slice(1).map(Number));
        });
        list.addEventListener("keydown", (event) => {
          const last = chain.ids.length - 1;
          const here = state.selected && state.selected[0] === s && state.selected[1] === c ? state.selected[2] : -1;
          const moves = { ArrowRight: here + 1, ArrowLeft: here - 1, ArrowDown: here + 10, ArrowUp: here - 10, Home: 0, End: last };
          if (event.key in moves) select([s, c, Math.max(0, Math.min(last, moves[event.key]))]);
          else if (event.key === "Enter" && here >= 0) look([s, c, here]);
          else return;
          event.preventDefault();
        });
        section.append(head, list);
      });
      if (structure.contacts) section.append(contactMap(structure, s));
      $("sequences").append(section);
    });
  }

  // Folds are known only when 3Dmol has read the atoms; they are lines under the letters.
  function describeSequences() {
    structures.forEach((structure, s) => structure.chains.forEach((chain, c) => {
      if (!folds[s].size) return;
      chain.ids.forEach((_, r) => {
        const item = option([s, c, r]);
        item.classList.remove("h", "s");
        if (chain.is_protein) item.classList.add(foldOf(s, c, r));
        item.classList.toggle("low", confidenceOf(s, c, r) < 70);
        item.setAttribute("aria-label", describe([s, c, r]));
      });
    }));
  }

  function contactMap(structure, s) {
    const { predicted, truth, precision, label, surest } = structure.contacts;
    const size = truth.length;
    const section = document.createElement("section");
    const head = document.createElement("h3");
    head.textContent = "Contacts";
    const canvas = document.createElement("canvas");
    canvas.className = "map";
    canvas.width = canvas.height = size;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Contact map: above the diagonal those of the structure, below it those predicted; ${precision}.`);
    const context = canvas.getContext("2d");
    const image = context.createImageData(size, size);
    for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
      const value = j > i ? Number(truth[i][j] === "1") : predicted[i][j] / 100;
      const at = 4 * (i * size + j);
      const unknown = j > i && truth[i][j] === "?";
      const level = Math.round(255 * (1 - value));
      image.data.set(unknown ? [225, 225, 225, 255] : j > i ? [level, level, level, 255] : [level, Math.round(255 - 0.55 * (255 - level)), 255, 255], at);
    }
    context.putImageData(image, 0, 0);
    const words = document.createElement("p");
    words.textContent = `Contacts of ${label}: ${precision}. Above the diagonal (black): the structure's own, C-betas nearer than 8 Å. Below (blue): predicted.`;
    const lines = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.addEventListener("change", () => {
      structure.contacts.lines = box.checked;
      drawShapes();
    });
    lines.append(box, ` Draw the ${surest.length} surest long-range pairs (whole green: contacts; dashed orange: not)`);
    section.append(head, words, canvas, lines);
    return section;
  }

  function setTheme(isDark) {
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    $("theme").setAttribute("aria-pressed", String(isDark));
    for (const { viewer } of viewers) {
      viewer.setBackgroundColor(background());
      viewer.render();
    }
  }

  function savePng() {
    const canvases = viewers.map(({ viewer }) => {
      viewer.render();
      return viewer.getCanvas();
    });
    if (!canvases.length) return;
    const columns = canvases.length > 1 ? 2 : 1;
    const width = Math.max(...canvases.map((c) => c.width));
    const height = Math.max(...canvases.map((c) => c.height));
    const sheet = document.createElement("canvas");
    sheet.width = columns * width;
    sheet.height = Math.ceil(canvases.length / columns) * height;
    const context = sheet.getContext("2d");
    context.fillStyle = background();
    context.fillRect(0, 0, sheet.width, sheet.height);
    canvases.forEach((canvas, k) => context.drawImage(canvas, (k % columns) * width, Math.floor(k / columns) * height));
    const link = document.createElement("a");
    link.download = `${structures.map((s) => s.name).join("-").slice(0, 80) || "structure"}.png`;
    link.href = sheet.toDataURL("image/png");
    link.click();
  }

  for (const [key, colour] of Object.entries(COLOURS)) {
    if (colour.is_there === false) continue;
    $("colour").append(new Option(colour.name, key));
  }
  state.colour = $("colour").value = COLOURS.confidence.is_there ? "confidence" : "chain";
  $("colour").addEventListener("change", (event) => {
    state.colour = event.target.value;
    restyle();
  });
  $("layout").addEventListener("change", (event) => {
    state.layout = event.target.value;
    if (state.layout === "over") state.colour = $("colour").value = "structure";
    build();
  });
  $("spin").addEventListener("click", () => {
    state.spin = !state.spin;
    $("spin").setAttribute("aria-pressed", String(state.spin));
    for (const { viewer } of viewers) viewer.spin(state.spin ? "y" : false);
  });
  $("png").addEventListener("click", savePng);
  $("theme").addEventListener("click", () => setTheme(document.documentElement.dataset.theme !== "dark"));
  structures.forEach((structure, s) => {
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = state.shown.has(s);
    box.addEventListener("change", () => {
      const isFull = state.layout === "side" && state.shown.size >= MOST_SIDE_BY_SIDE;
      if (box.checked && isFull) {
        box.checked = false;
        $("selected").textContent = `Side by side at most ${MOST_SIDE_BY_SIDE} are shown; take another away first.`;
        return;
      }
      if (box.checked) state.shown.add(s);
      else state.shown.delete(s);
      build();
    });
    label.append(box, ` ${structure.name}`);
    $("shown").append(label);
  });
  makeSequences();
  setTheme(window.matchMedia("(prefers-color-scheme: dark)").matches);
  build();
  window.structurePage = { state, viewers: () => viewers, select };
})();
