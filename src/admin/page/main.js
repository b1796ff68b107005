// Listens to the relay's stream of snapshots, and shows each: numbers, charts and tables.
// What comes of the relay becomes text, never markup.

import { Chart } from './chart.js';
import { DROPPED, DROPPED_BY_DOORS, History, samplesOf } from './series.js';
import { age, ahead, bytes, cores, count, duration, short } from './format.js';

/** Without a snapshot for so long, the stream counts as lost, in seconds. */
const SILENCE = 5;

/** Pauses before the next attempt, in seconds: the last again and again. */
const PAUSES = [1, 1, 2, 4, 8];

const byId = (id) => document.getElementById(id);
const history = new History();
const seconds = () => performance.now() / 1000;

/** The lines of one or more families: one for each of their samples, in this order, then those not listed. */
const perSecond = (families, label = (words) => words.join(' '), order = []) => (of) => {
  const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  const lines = [families].flat().flatMap((family) => samplesOf(of.latest.metrics, family)).filter(([name]) => !of.latest.expected.has(name)).map(([name, words]) => ({ label: label(words), total: name, at: (i) => of.rate(i, name) }));
  return lines.sort((a, b) => rank(a.label) - rank(b.label));
};

const gauges = (names) => (of) => names.map(([label, name]) => ({ label, gauge: name, at: (i) => of.value(i, name) }));

const cell = ([from, to]) => `${from} → ${to}`;
const CELLS = ['wss → wss', 'wss → udp', 'udp → wss', 'udp → udp'];

const charts = [
  { title: 'Packets', unit: 'a second, by cell', by: 'cell', totals: true, stacked: true, least: 1, format: short, empty: 'No packet has found a way yet.',
    series: perSecond('pilot_beacon_relay_bridge_total', cell, CELLS) },
  { title: 'Payload', unit: 'a second, by cell', by: 'cell', totals: true, stacked: true, least: 100, format: bytes, formatTotal: bytes, empty: 'No packet has found a way yet.',
    series: perSecond('pilot_beacon_relay_bridge_bytes_total', cell, CELLS) },
  { title: 'Dropped packets', unit: 'a second, by reason', by: 'reason', totals: true, stacked: true, least: 1, format: short, empty: 'No packet was dropped.',
    series: perSecond([DROPPED, DROPPED_BY_DOORS]) },
  { title: 'Connections', unit: 'a second, by outcome', by: 'outcome', totals: true, stacked: true, least: 1, format: short, empty: 'Nobody has tried to connect.',
    series: perSecond('pilot_beacon_wss_connections_total', undefined, ['auth_ok']) },
  { title: 'Outbox delay', unit: 'of what left in a second', by: 'share', least: 0.001, format: duration,
    series: (of) => [['median', 0.5], ['99 %', 0.99]].map(([label, share]) => ({ label, at: (i) => of.quantile(i, 'pilot_beacon_outbox_delay_seconds', share) })) },
  { title: 'Nodes', unit: 'by how they are reached', by: 'over', least: 10, format: count,
    series: gauges([['WebSocket', 'pilot_beacon_wss_active'], ['UDP', 'pilot_beacon_udp_nodes'], ['learnt', 'pilot_beacon_learnt_nodes']]) },
  { title: 'CPU', unit: 'cores', by: 'of', least: 0.1, format: cores,
    series: (of) => [{ label: 'the process', at: (i) => of.rate(i, 'process_cpu_seconds_total') }] },
  { title: 'Memory', unit: 'resident', by: 'of', least: 1e6, format: bytes,
    series: gauges([['the process', 'process_resident_memory_bytes']]) },
].map((spec) => new Chart(spec, byId('charts')));

/** What only some relays have: the family that tells, the tiles, and the charts. */
const PARTS = [
  { family: 'beacon_relay_bus_front_leading', tiles: 'front_tiles', charts: [
    { title: 'Messages that wait for the leader', unit: 'in bytes', by: 'of', least: 1e3, format: bytes,
      series: gauges([['unanswered', 'beacon_relay_bus_front_unanswered_bytes']]) },
  ] },
  { family: 'beacon_relay_bus_messages', tiles: 'bus_tiles', charts: [
    { title: 'Messages', unit: 'of peers, a second, by result', by: 'result', totals: true, stacked: true, least: 1, format: short, empty: 'No peer has sent a message.',
      series: perSecond('beacon_relay_bus_submitted_total', undefined, ['stored']) },
    { title: 'Messages waiting', unit: 'and names that are connected', by: 'of', least: 10, format: count,
      series: gauges([['messages', 'beacon_relay_bus_messages'], ['unacknowledged', 'beacon_relay_bus_unacknowledged'], ['names connected', 'beacon_relay_bus_connected']]) },
  ] },
  { family: 'beacon_relay_middleman_peers', tiles: 'topic_tiles', charts: [
    { title: 'Publications and requests', unit: 'delivered, a second', by: 'what', totals: true, stacked: true, least: 1, format: short, empty: 'Nobody has published or asked.',
      series: perSecond('beacon_relay_middleman_delivered_total', undefined, ['publication', 'request', 'answer']) },
    { title: 'Requests', unit: 'that are over, a second, by result', by: 'result', totals: true, stacked: true, least: 1, format: short, empty: 'No request is over.',
      series: perSecond('beacon_relay_middleman_requests_total', undefined, ['answered']) },
    { title: 'Time to an answer', unit: 'of what was answered in a second', by: 'share', least: 0.001, format: duration,
      series: (of) => [['median', 0.5], ['99 %', 0.99]].map(([label, share]) => ({ label, at: (i) => of.quantile(i, 'beacon_relay_middleman_answer_seconds', share) })) },
    { title: 'Refused messages', unit: 'and failed requests, a second, by reason', by: 'reason', totals: true, stacked: true, least: 1, format: short, empty: 'Nothing was refused.',
      series: perSecond('beacon_relay_middleman_refused_total') },
  ] },
];

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

function follow(chart) {
  chart.onresize = drawSoon;
  chart.onhover((at) => {
    ago = at;
    drawSoon();
  });
}

charts.forEach(follow);

/** Adds what is shown of parts, once a relay turns out to have them. */
function addParts() {
  for (const part of PARTS) {
    const template = byId(part.tiles);
    if (!template || !(part.family in history.latest.metrics)) continue;
    byId('tiles').append(template.content);
    template.remove();
    for (const spec of part.charts) {
      const chart = new Chart(spec, byId('charts'));
      charts.push(chart);
      follow(chart);
    }
  }
}

/** Fills a table: a row for each, which `cells` makes texts of, and a class for some columns. */
function fill(id, rows, cells) {
  const table = byId(id);
  const classes = [...table.tHead.rows[0].cells].map((head) => head.className);
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  for (const [number, row] of rows.entries()) {
    const element = body.rows[number] ?? body.insertRow();
    for (const [column, text] of cells(row).entries()) {
      const place = element.cells[column] ?? element.insertCell();
      place.className = classes[column];
      if (place.textContent !== text) place.textContent = text;
      place.title = text;
    }
  }
  table.hidden = rows.length === 0;
  table.nextElementSibling.hidden = rows.length > 0;
}

const FORMATS = { bytes, cores };

function showNumbers() {
  const latest = history.length - 1;
  for (const element of document.querySelectorAll('#tiles [data-metric]')) {
    const value = history.value(latest, element.dataset.metric);
    element.dataset.value = value;
    element.textContent = (FORMATS[element.dataset.unit] ?? count)(value);
  }
  for (const element of document.querySelectorAll('#tiles [data-age]')) {
    element.textContent = age(history.value(latest, element.dataset.age));
  }
  for (const element of document.querySelectorAll('#tiles [data-rate]')) {
    const rate = history.rate(latest, element.dataset.rate);
    const text = (FORMATS[element.dataset.unit] ?? short)(rate);
    element.textContent = element.dataset.unit ? text : `${text}/s`;
  }
}

/** What a relay does for the message bus of its cluster. */
const ROLES = { leads: 'this relay', follows: 'another relay', waits: 'not reached' };

function showBus({ bus, metrics }) {
  if (!bus) return;
  const known = bus.leader?.slice(0, 12) ?? (bus.role === 'waits' ? 'nobody' : 'another relay');
  const epoch = bus.epoch ? `, epoch ${bus.epoch}` : '';
  byId('bus_leader').textContent = known;
  byId('bus_role').textContent = `${ROLES[bus.role]}${epoch}, for ${age(bus.seconds)}`;
  byId('bus_role').title = bus.trouble ?? '';
  byId('bus_nats').textContent = metrics.beacon_relay_bus_log_connected === 1 ? 'connected' : 'away';
}

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

function show(snapshot) {
  byId('version').textContent = snapshot.version;
  const isUnready = snapshot.phase === 'running' && !snapshot.ready;
  const failed = Object.entries(snapshot.failed).map(([part, reason]) => `${part}: ${reason}`);
  byId('phase').textContent = isUnready ? `not ready: ${failed.join('; ')}` : snapshot.phase;
  byId('phase').dataset.state = isUnready ? 'unready' : snapshot.phase;
  const off = Object.keys(snapshot.switches).filter((name) => snapshot.switches[name] === 'off');
  byId('switches').hidden = off.length === 0;
  byId('switches').textContent = `off: ${off.join(', ')}`;
  byId('uptime').textContent = age(snapshot.uptime_seconds);
  const { cluster } = snapshot;
  byId('cluster-fact').hidden = !cluster;
  byId('cluster-name').textContent = cluster ? `${cluster.name}, ${cluster.members.length + 1} relays` : '';
  addParts();
  showNumbers();
  showBus(snapshot);
  fill('top_talkers', snapshot.top_talkers, (row) => [String(row.node), row.does, short(row.packets_per_second), bytes(row.bytes_per_second)]);
  fill('slow_readers', snapshot.slow_readers, (row) => [String(row.node), bytes(row.waiting_bytes), duration(row.waiting_seconds), age(row.connected_seconds)]);
  byId('topics').closest('.card').hidden = !snapshot.topics;
  fill('topics', snapshot.topics ?? [], (row) => [row.name, [row.clients_publish && 'publish', row.clients_subscribe && 'subscribe'].filter(Boolean).join(', '), count(row.subscribers), count(row.workers), count(row.outstanding)]);
  byId('behind').closest('.card').hidden = !snapshot.behind;
  fill('behind', snapshot.behind ?? [], (row) => [row.peer, row.channel, row.is_away ? 'away' : 'connected', count(row.records), bytes(row.bytes), duration(row.seconds)]);
  const self = cluster ? [{ relay: cluster.relay, state: 'this one', seconds: snapshot.uptime_seconds, waiting_bytes: 0, clock_ahead_ms: cluster.clock_ahead_ms, address: '' }] : [];
  fill('members', [...self, ...(cluster?.members ?? [])], (row) => [row.relay.slice(0, 12), row.state, age(row.seconds), bytes(row.waiting_bytes), ahead(row.clock_ahead_ms), row.address]);
  fill('events', snapshot.events, (row) => [clock.format(row.at_ms), row.what, String(row.node ?? row.relay?.slice(0, 12) ?? ''), row.reason]);
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

function connect() {
  clearTimeout(retry);
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
  if (source.readyState !== EventSource.CLOSED && seconds() - heard > SILENCE) lose();
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
