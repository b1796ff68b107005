// A chart over the last five minutes, and the table below it that names its lines.

import { WINDOW } from './series.js';
import { count, trimmed } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';
const [LEFT, RIGHT, TOP, BOTTOM] = [56, 8, 8, 22];

/** Least width of a minute in which each has its label: a narrow chart has every other. */
const MINUTE = 52;

const COLOURS = 8;

function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

function html(name, className, text, parent) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  parent?.append(element);
  return element;
}

/** The least round number that is not below `value`; half of it is as round. */
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((step) => step >= value * 0.999_999);
}

/**
 * What `spec` says: `title`, `unit`, `format` (of a value), `least` (the smallest top of the axis),
 * `axis` (the same for its ticks, where that is shorter), `stacked`, `empty` (what is said in place of a chart without
 * lines), and `series(history)`: all lines that there may be, in order, each with a `label`,
 * `at(index)` and perhaps a `total`, the name of a counter. A line with a total appears once that is above 0.
 */
export class Chart {
  #spec;
  #svg;
  #rows = new Map();
  #width = 0;
  #height = 0;

  constructor(spec, parent) {
    this.#spec = spec;
    this.card = html('section', 'card chart', '', parent);
    const card = this.card;
    const title = html('h2', '', spec.title, card);
    html('small', '', spec.unit, title);
    this.#svg = svg('svg', { role: 'img', 'aria-label': `${spec.title}, ${spec.unit}, over five minutes; the numbers are in the table below` }, card);
    this.grid = svg('g', { class: 'grid' }, this.#svg);
    this.lines = svg('g', { class: 'lines' }, this.#svg);
    this.cursor = svg('line', { class: 'cursor', y1: TOP, visibility: 'hidden' }, this.#svg);
    const table = html('table', '', '', card);
    const head = html('tr', '', '', html('thead', '', '', table));
    this.when = [spec.by, 'now', spec.totals ? 'in all' : 'peak'].map((text, column) => {
      const cell = html('th', column ? 'n' : '', text, head);
      cell.scope = 'col';
      return cell;
    })[1];
    this.body = html('tbody', '', '', table);
    html('p', 'empty', spec.empty ?? '', card);
    new ResizeObserver(([entry]) => {
      this.#width = Math.round(entry.contentRect.width);
      this.#height = Math.round(entry.contentRect.height);
      this.#svg.setAttribute('viewBox', `0 0 ${this.#width} ${this.#height}`);
      this.cursor.setAttribute('y2', this.#height - BOTTOM);
      this.onresize?.();
    }).observe(this.#svg);
  }

  /** Calls back with the time that the pointer is at, or null where it has left. */
  onhover(tell) {
    const at = (event) => {
      const x = event.clientX - this.#svg.getBoundingClientRect().left;
      const share = (x - LEFT) / (this.#width - LEFT - RIGHT);
      tell(share >= 0 && share <= 1 ? (1 - share) * WINDOW : null);
    };
    this.#svg.addEventListener('pointermove', at);
    this.#svg.addEventListener('pointerdown', at);
    this.#svg.addEventListener('pointerleave', () => tell(null));
  }

  /** Draws; `ago` is the time before the latest point that numbers are shown of. */
  draw(history, ago) {
    if (!history.length) return;
    const all = this.#spec.series(history);
    const shown = all.filter((line) => !line.total || this.#rows.has(line.label) || history.value(history.length - 1, line.total) > 0);
    const end = history.latest.at;
    const index = ago === null ? history.length - 1 : history.nearest(end - ago);
    this.when.textContent = ago === null ? 'now' : `${Math.round(end - history.point(index).at)} s ago`;
    const columns = shown.map((line) => ({ line, values: Array.from({ length: history.length }, (_, i) => line.at(i)) }));
    this.card.classList.toggle('quiet', !columns.some(({ line, values }) => line.total || values.some(Number.isFinite)));
    for (const [position, { line, values }] of columns.entries()) this.#row(line, values, index, history, position);
    if (this.#width) this.#plot(columns, history, end, ago === null ? null : index);
  }

  #row(line, values, index, history, position) {
    let row = this.#rows.get(line.label);
    if (!row) {
      const colour = this.#rows.size % COLOURS;
      const element = html('tr', `c${colour}`);
      const name = html('th', '', '', element);
      name.scope = 'row';
      html('i', '', '', name);
      name.append(line.label);
      row = { element, colour, now: html('td', 'n', '', element), other: html('td', 'n', '', element) };
      if (line.total) row.other.dataset.metric = line.total;
      if (line.gauge) row.now.dataset.metric = line.gauge;
      this.#rows.set(line.label, row);
      this.body.insertBefore(element, this.body.children[position] ?? null);
    }
    row.now.textContent = this.#spec.format(values[index]);
    if (line.total) {
      const total = history.value(history.length - 1, line.total);
      row.other.textContent = (this.#spec.formatTotal ?? count)(total);
      row.other.dataset.value = total;
    } else {
      row.other.textContent = this.#spec.format(Math.max(...values.filter(Number.isFinite)));
    }
    if (line.gauge) row.now.dataset.value = values[index];
  }

  #plot(columns, history, end, cursor) {
    const [width, height] = [this.#width, this.#height];
    const length = history.length;
    const sums = new Array(length).fill(0);
    const layers = columns.map(({ line, values }) => {
      const below = [...sums];
      const above = values.map((value, i) => {
        if (!this.#spec.stacked) return value;
        if (Number.isFinite(value)) sums[i] += value;
        return sums[i];
      });
      return { line, values, below, above };
    });
    const highest = Math.max(this.#spec.least, ...layers.flatMap((layer) => layer.above.filter(Number.isFinite)));
    const top = roundUp(highest);
    const x = (at) => LEFT + (1 - (end - at) / WINDOW) * (width - LEFT - RIGHT);
    const y = (value) => TOP + (1 - value / top) * (height - TOP - BOTTOM);
    this.#axes(top, x, y, end, height);
    this.lines.replaceChildren();
    for (const { line, values, below, above } of layers) {
      const { colour } = this.#rows.get(line.label);
      for (const [from, to] of runs(values, history)) {
        const place = (edge, i) => `${x(history.point(i).at).toFixed(1)},${y(edge[i]).toFixed(1)}`;
        const indices = Array.from({ length: to - from }, (_, i) => from + i);
        const line = indices.map((i) => place(above, i)).join('L');
        if (this.#spec.stacked) {
          const back = indices.reverse().map((i) => place(below, i)).join('L');
          svg('path', { class: `area c${colour}`, d: `M${line}L${back}Z` }, this.lines);
        }
        svg('path', { class: `line c${colour}`, d: `M${line}` }, this.lines);
      }
    }
    this.cursor.setAttribute('visibility', cursor === null ? 'hidden' : 'visible');
    if (cursor !== null) {
      const at = x(history.point(cursor).at).toFixed(1);
      this.cursor.setAttribute('x1', at);
      this.cursor.setAttribute('x2', at);
    }
  }

  #axes(top, x, y, end, height) {
    this.grid.replaceChildren();
    for (const share of [0, 0.5, 1]) {
      const at = Math.round(y(top * share)) + 0.5;
      svg('line', { x1: LEFT, x2: this.#width - RIGHT, y1: at, y2: at }, this.grid);
      svg('text', { x: LEFT - 6, y: at + 4, 'text-anchor': 'end' }, this.grid).textContent = trimmed((this.#spec.axis ?? this.#spec.format)(top * share));
    }
    const isNarrow = (this.#width - LEFT - RIGHT) / 5 < MINUTE;
    for (const minutes of isNarrow ? [5, 3, 1, 0] : [5, 4, 3, 2, 1, 0]) {
      // The outermost stay within the chart.
      const anchor = { 5: 'start', 0: 'end' }[minutes] ?? 'middle';
      const text = svg('text', { x: x(end - minutes * 60), y: height - 5, 'text-anchor': anchor }, this.grid);
      text.textContent = minutes ? `−${minutes}${minutes === 5 ? ' min' : ''}` : 'now';
    }
  }
}

/** The stretches of a line without a gap: from, and up to. */
function runs(values, history) {
  const found = [];
  let from = null;
  for (let i = 0; i <= values.length; i += 1) {
    const ends = i === values.length || !Number.isFinite(values[i]) || history.point(i).isAfterGap;
    if (ends && from !== null) {
      found.push([from, i]);
      from = null;
    }
    if (i < values.length && Number.isFinite(values[i]) && from === null) from = i;
  }
  return found;
}
