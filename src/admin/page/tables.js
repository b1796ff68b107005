// Tables: a row for each thing, and the numbers of the relay next to their names.
// What comes of the relay becomes text, never markup.

import { age, ahead, bytes, cores, count, duration, short } from './format.js';

export const byId = (id) => document.getElementById(id);

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** Letters of a relay's id that tell it from the others. */
const ID = 12;

/** A peer as a text, and where it is looked up. */
const peer = (name) => ({ text: String(name), href: `#peers/${encodeURIComponent(name)}` });

/** A word of a metric as people read it. */
const words = (word) => word.replaceAll('_', ' ');

/** Estimates are not to be taken for counts. */
const about = (text) => `≈\u202f${text}`;

/**
 * Fills a table: a row for each, which `cells` makes texts of, or links. Without rows the card
 * collapses to what its sentence says.
 */
export function fill(id, rows, cells) {
  const table = byId(id);
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  for (const [number, row] of rows.entries()) {
    const element = body.rows[number] ?? body.insertRow();
    for (const [column, cell] of cells(row).entries()) {
      const place = element.cells[column] ?? element.insertCell();
      const { text, href } = typeof cell === 'string' ? { text: cell } : cell;
      place.className = heads[column].className;
      // Where the page is narrow, each cell stands on a line of its own, with its head before it.
      place.dataset.head = heads[column].textContent;
      if (place.textContent !== text || (place.firstElementChild?.getAttribute('href') ?? undefined) !== href) show(place, text, href);
    }
  }
  table.hidden = rows.length === 0;
  table.nextElementSibling.hidden = rows.length > 0;
}

/** Fills the one table of a card, which collapses where there are no rows. */
function fillCard(id, rows, cells) {
  fill(id, rows, cells);
  byId(id).closest('.card').classList.toggle('quiet', rows.length === 0);
}

function show(place, text, href) {
  if (!href) {
    place.textContent = text;
    return;
  }
  const link = document.createElement('a');
  link.href = href;
  link.textContent = text;
  place.replaceChildren(link);
}

const FORMATS = { bytes, cores };

/** Shows the numbers of the latest snapshot. */
export function showNumbers(history) {
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

/** Shows who leads the message bus, where relays of a cluster serve one. */
export function showBus({ bus, metrics }) {
  if (!bus) return;
  const known = bus.leader?.slice(0, ID) ?? (bus.role === 'waits' ? 'nobody' : 'another relay');
  const epoch = bus.epoch ? `, epoch ${bus.epoch}` : '';
  byId('bus_leader').textContent = known;
  byId('bus_role').textContent = `${ROLES[bus.role]}${epoch}, for ${age(bus.seconds)}`;
  byId('bus_role').title = bus.trouble ?? '';
  byId('bus_nats').textContent = metrics.beacon_relay_bus_log_connected === 1 ? 'connected' : 'away';
}

/** Fills the tables of a snapshot. */
export function showTables(snapshot) {
  fillCard('top_talkers', snapshot.top_talkers, (row) => [peer(row.node), row.does, about(short(row.packets_per_second)), about(bytes(row.bytes_per_second))]);
  fillCard('slow_readers', snapshot.slow_readers, (row) => [peer(row.node), bytes(row.waiting_bytes), duration(row.waiting_seconds), age(row.connected_seconds)]);
  byId('topics').closest('.card').hidden = !snapshot.topics;
  fillCard('topics', snapshot.topics ?? [], (row) => [row.name, [row.clients_publish && 'publish', row.clients_subscribe && 'subscribe'].filter(Boolean).join(', '), count(row.subscribers), count(row.workers), count(row.outstanding)]);
  byId('behind').closest('.card').hidden = !snapshot.behind;
  fillCard('behind', snapshot.behind ?? [], (row) => [row.peer, row.channel, row.is_away ? 'away' : 'connected', count(row.records), bytes(row.bytes), duration(row.seconds)]);
  showCluster(snapshot);
  showEvents(snapshot.events);
}

function showCluster({ cluster, uptime_seconds: seconds }) {
  byId('members').closest('.card').hidden = !cluster;
  const self = cluster ? [{ relay: cluster.relay, state: 'this one', seconds, silent_ms: NaN, waiting_bytes: 0, clock_ahead_ms: cluster.clock_ahead_ms ?? undefined, takeovers: NaN, address: '', clock_is_off: cluster.clock_is_off }] : [];
  const lost = (cluster?.lost ?? []).map((member) => ({ ...member, state: 'lost', silent_ms: member.seconds * 1000, seconds: NaN, waiting_bytes: NaN, takeovers: NaN }));
  const members = [...self, ...(cluster?.members ?? []), ...lost];
  fillCard('members', members, (row) => [row.relay.slice(0, ID), row.state, age(row.seconds), bytes(row.waiting_bytes), ahead(row.clock_ahead_ms), row.address]);
  fillCard('cluster_members', members, (row) => [row.relay.slice(0, ID), row.state, row.address, age(row.seconds), duration(row.silent_ms / 1000), bytes(row.waiting_bytes), ahead(row.clock_ahead_ms), count(row.takeovers), wrong(row)]);
  for (const element of document.querySelectorAll('[data-cluster]')) element.textContent = count(cluster?.[element.dataset.cluster]);
}

/** What is wrong with a member. */
const wrong = (row) => [row.clock_is_off && 'clock', row.tells_another_address && 'tells another address', row.takeovers_held_back > 0 && 'takeovers held back'].filter(Boolean).join(', ');

/** Events that the overview has room for. */
const LATEST = 10;

let events = [];

function showEvents(all) {
  events = all;
  const whom = (row) => (row.node !== undefined ? peer(row.node) : row.relay?.slice(0, ID) ?? row.door ?? '');
  const what = (row) => [clock.format(row.at_ms), words(row.what), whom(row), words(row.reason)];
  fillCard('latest_events', events.slice(0, LATEST), what);
  const area = byId('area').value;
  const wanted = events.filter((row) => area === '' || row.area === area);
  fill('all_events', wanted, (row) => what(row).toSpliced(1, 0, row.area));
}

byId('area').addEventListener('change', () => showEvents(events));
