// Listens to the relay's stream of snapshots, and shows each: numbers, charts and tables.

import { Chart } from './chart.js';
import { CLUSTER, OVERVIEW, PARTS, doorsOf, ofDoor } from './charts.js';
import { History } from './series.js';
import { age, count } from './format.js';
import { byId, showBus, showNumbers, showTables } from './tables.js';
import { lookUp } from './peers.js';

/** Without a snapshot for so long, the stream counts as lost, in seconds. */
const SILENCE = 5;

/** Pauses before the next attempt, in seconds: the last again and again. */
const PAUSES = [1, 1, 2, 4, 8];

const history = new History();
const seconds = () => performance.now() / 1000;

const charts = [];

/** The time before the latest snapshot that all charts show the numbers of. */
let ago = null;
let isDue = false;

/** Draws the charts with the next frame, however often it is asked for. */
function drawSoon() {
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    for (const chart of charts) chart.draw(history, ago);
  });
}

function addCharts(specs, parent) {
  for (const spec of specs) {
    const chart = new Chart(spec, parent);
    chart.onresize = drawSoon;
    chart.onhover((at) => {
      ago = at;
      drawSoon();
    });
    charts.push(chart);
  }
}

addCharts(OVERVIEW, byId('charts'));

/** Adds what is shown of parts, once a relay turns out to have them. */
function addParts(metrics) {
  for (const part of PARTS) {
    const template = byId(part.tiles);
    if (!template || !(part.family in metrics)) continue;
    byId('tiles').append(template.content);
    template.remove();
    addCharts(part.charts, byId('charts'));
  }
  if ('pilot_beacon_cluster_members' in metrics && !byId('cluster_charts').hasChildNodes()) {
    addCharts(CLUSTER, byId('cluster_charts'));
  }
  for (const door of doorsOf(metrics)) {
    const id = `door_${door}`;
    if (byId(id)) continue;
    const place = document.createElement('div');
    place.id = id;
    place.className = 'charts';
    byId('doors').append(place);
    addCharts(ofDoor(door), place);
  }
}

const VIEWS = [...document.querySelectorAll('.view')].map((view) => view.id);

/** Shows the view that the address names; of a peer, with that peer. */
function turn() {
  const [name, peer] = location.hash.slice(1).split('/');
  const shown = VIEWS.includes(name) ? name : VIEWS[0];
  for (const view of VIEWS) byId(view).hidden = view !== shown;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${shown}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (shown === 'peers' && peer) lookUp(decoded(peer));
  drawSoon();
}

/** A part of an address; as it stands where that is no encoding. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

addEventListener('hashchange', turn);
turn();

/** What the relay says of itself, with its reasons. */
function showVerdict({ phase, verdict, reasons }) {
  const state = phase === 'running' ? verdict : phase;
  if (byId('verdict').textContent !== state) byId('verdict').textContent = state;
  const health = { ready: 'good', degraded: 'warn', starting: 'warn', draining: 'warn' }[state] ?? 'bad';
  document.documentElement.dataset.health = health;
  byId('reasons').hidden = reasons.length === 0;
  const texts = reasons.map(({ part, reason, remedy }) => `${part}: ${reason} → ${remedy}`);
  const shown = [...byId('reasons').children].map((item) => item.textContent);
  if (texts.join('\n') === shown.join('\n')) return;
  byId('reasons').replaceChildren(...reasons.map(({ condition }, index) => {
    const item = document.createElement('li');
    item.dataset.condition = condition;
    item.textContent = texts[index];
    return item;
  }));
}

function show(snapshot) {
  byId('version').textContent = snapshot.version;
  byId('build').textContent = `beacon-relay ${snapshot.version}, commit ${snapshot.commit} of ${snapshot.commit_date}, ${snapshot.target}. `;
  showVerdict(snapshot);
  const off = Object.keys(snapshot.switches).filter((name) => snapshot.switches[name] === 'off');
  byId('switches').hidden = off.length === 0;
  byId('switches').textContent = `off: ${off.join(', ')}`;
  byId('uptime').textContent = age(snapshot.uptime_seconds);
  const { cluster } = snapshot;
  byId('cluster-fact').hidden = !cluster;
  document.querySelector('nav a[href="#cluster"]').hidden = !cluster;
  byId('cluster-name').textContent = cluster ? `${cluster.name}, ${count(cluster.members.length + 1)} ${cluster.members.length ? 'relays' : 'relay'}` : '';
  addParts(snapshot.metrics);
  showNumbers(history);
  showBus(snapshot);
  showTables(snapshot);
  drawSoon();
}

/** Says how the page and the relay are connected. */
function tell(state, text) {
  const link = byId('link');
  document.documentElement.dataset.link = state;
  link.dataset.state = state;
  if (link.textContent !== text) link.textContent = text;
  document.title = state === 'live' ? 'beacon-relay' : `(${state}) beacon-relay`;
}

let source = null;
let heard = 0;
let failures = 0;
let retry = 0;
let version = null;
/** What the relay has kept, until the first snapshot of a connection. */
let kept = null;

async function connect() {
  clearTimeout(retry);
  source?.close();
  heard = seconds();
  try {
    const response = await fetch('history', { signal: AbortSignal.timeout(SILENCE * 1000) });
    kept = response.ok ? await response.json() : null;
  } catch {
    // Whether the relay is there shows in the stream.
    kept = null;
  }
  source?.close();
  heard = seconds();
  source = new EventSource('events');
  source.onmessage = ({ data }) => {
    const snapshot = JSON.parse(data);
    // Another version has another page.
    version ??= snapshot.version;
    if (version !== snapshot.version) location.reload();
    heard = seconds();
    failures = 0;
    if (kept) history.fill(kept, snapshot, heard);
    kept = null;
    history.add(snapshot, heard);
    tell('live', 'live');
    show(snapshot);
  };
  // The browser's own attempts end with the first answer that is no stream.
  source.onerror = lose;
}

function lose() {
  source.close();
  const pause = PAUSES[Math.min(failures, PAUSES.length - 1)];
  failures += 1;
  tell('disconnected', 'disconnected, trying again');
  clearTimeout(retry);
  retry = setTimeout(connect, pause * 1000);
}

setInterval(() => {
  if (source && source.readyState !== EventSource.CLOSED && seconds() - heard > SILENCE) lose();
}, 1000);
addEventListener('online', connect);

const THEMES = ['system', 'light', 'dark'];
const root = document.documentElement;

function nameTheme() {
  byId('theme').textContent = `theme: ${root.dataset.theme ?? 'system'}`;
}

byId('theme').addEventListener('click', () => {
  const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? 'system') + 1) % THEMES.length];
  if (next === 'system') delete root.dataset.theme;
  else root.dataset.theme = next;
  try {
    localStorage.setItem('theme', next);
  } catch {
    // It holds until the page is closed.
  }
  nameTheme();
});

nameTheme();
connect();
