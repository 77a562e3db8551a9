"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { sequence, offset, letters, perBlock, tops, height, scores, models } = data;
  const $ = (id) => document.getElementById(id);
  const blocks = [...document.querySelectorAll(".block")];
  const known = scores.filter((score) => score !== null);
  const FIRST = "Point at a cell, tap it, or go along with the arrow keys. Rank 1 is tolerated best.";
  const POSITION = -1; // a row that stands for all of a position
  let at = null; // [column, row]

  const digits = (value) => value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");
  const scoreOf = (some, column, row) => some[column * letters.length + row];
  const nameOf = (column) => `${sequence[column]}${column + offset}`;

  function meanOf(column) {
    const some = scores.slice(column * letters.length, (column + 1) * letters.length).filter((score) => score !== null);
    return digits(some.reduce((sum, score) => sum + score, 0) / some.length);
  }

  function describe([column, row]) {
    if (row === POSITION) return `${nameOf(column)}, mean of the position ${meanOf(column)}`;
    const score = scoreOf(scores, column, row);
    if (score === null) return `${nameOf(column)}, the wild type (mean of the position ${meanOf(column)})`;
    const rank = 1 + known.filter((other) => other > score).length;
    const each = models.map(({ name, scores: some }) => `; ${name}: ${digits(scoreOf(some, column, row))}`).join("");
    return `${nameOf(column)}${letters[row]} ${digits(score)} (rank ${rank} of ${known.length}; mean of the position ${meanOf(column)})${each}`;
  }

  const marks = ["column", "here"].map((kind) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", kind);
    return path;
  });

  function select(place) {
    at = place;
    const [column, row] = place;
    const x = column % perBlock;
    const block = blocks[Math.floor(column / perBlock)];
    const [line, cell] = marks;
    line.setAttribute("d", `M${x} 1.2V${height - 0.1}h1V1.2z`);
    cell.setAttribute("d", row === POSITION ? "" : `M${x} ${tops[row]}h1v1h-1z`);
    block.querySelector(".cells g").append(line, cell);
    $("selected").textContent = describe(place);
    return [block, x];
  }

  // The labels of the rows hide what is left of them.
  function show(place) {
    const [block, x] = select(place);
    const unit = block.querySelector(".cells").getBoundingClientRect().height / height;
    const labels = block.querySelector(".labels").getBoundingClientRect().width;
    const most = x * unit - unit;
    const least = (x + 2) * unit + labels - block.clientWidth;
    block.scrollLeft = Math.min(most, Math.max(least, block.scrollLeft));
    block.focus({ preventScroll: true });
    block.scrollIntoView({ block: "nearest" });
  }

  function pointed(event, b) {
    const box = event.currentTarget.getBoundingClientRect();
    const unit = box.height / height;
    const column = b * perBlock + Math.floor((event.clientX - box.left) / unit);
    const y = (event.clientY - box.top) / unit;
    if (column >= Math.min(sequence.length, (b + 1) * perBlock)) return;
    const isCell = y >= tops[0] && y < tops[tops.length - 1] + 1;
    const row = isCell ? tops.filter((top) => top <= y).length - 1 : POSITION;
    if (!at || at[0] !== column || at[1] !== row) select([column, row]);
  }

  function moved(key, [column, row]) {
    const last = sequence.length - 1;
    switch (key) {
      case "ArrowLeft": return [Math.max(0, column - 1), row];
      case "ArrowRight": return [Math.min(last, column + 1), row];
      case "ArrowUp": return [column, Math.max(0, row - 1)];
      case "ArrowDown": return [column, Math.min(letters.length - 1, row + 1)];
      case "PageUp": return [Math.max(0, column - perBlock), row];
      case "PageDown": return [Math.min(last, column + perBlock), row];
      case "Home": return [0, row];
      case "End": return [last, row];
      default: return null;
    }
  }

  blocks.forEach((block, b) => {
    const cells = block.querySelector(".cells");
    for (const kind of ["pointermove", "pointerdown"]) cells.addEventListener(kind, (event) => pointed(event, b));
    block.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const isHere = at && Math.floor(at[0] / perBlock) === b;
      const place = moved(event.key, isHere ? at : [b * perBlock, 0]);
      if (!place) return;
      event.preventDefault();
      show(isHere || /Home|End|Page/.test(event.key) ? place : [b * perBlock, 0]);
    });
  });

  $("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const found = /^\s*([a-z]?)(-?\d+)([a-z]?)\s*$/i.exec($("goal").value);
    if (!found) {
      $("selected").textContent = "Expected a substitution such as M1A, or the number of a position.";
      return;
    }
    const [, old, number, wanted] = found.map((text) => text.toUpperCase());
    const column = Number(number) - offset;
    const row = wanted ? letters.indexOf(wanted) : POSITION;
    const last = sequence.length - 1;
    if (column < 0 || column > last) $("selected").textContent = `There is no position ${number}; they go from ${offset} to ${last + offset}.`;
    else if (old && old !== sequence[column]) $("selected").textContent = `Position ${number} is ${sequence[column]}, not ${old}.`;
    else if (wanted && row < 0) $("selected").textContent = `${wanted} is not one of the 20 residues.`;
    else show([column, row]);
  });

  $("selected").textContent = FIRST;
})();
