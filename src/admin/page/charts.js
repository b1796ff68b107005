// What the charts show: the samples of each, and how they read.

import { DROPPED, DROPPED_BY_DOORS, samplesOf } from './series.js';
import { bytes, cores, count, duration, short } from './format.js';

/**
 * The lines of one or more families: one for each of their samples, in this order, then those not
 * listed. Of samples whose first label is a door, those of `door` alone.
 */
const perSecond = (families, { label = (words) => words.join(' '), order = [], door } = {}) => (of) => {
  const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  const samples = [families].flat().flatMap((family) => samplesOf(of.latest.metrics, family));
  const shown = samples.filter(([name, words]) => !of.latest.expected.has(name) && (door === undefined || words[0] === door));
  const lines = shown.map(([name, words]) => ({ label: label(door === undefined ? words : words.slice(1)), total: name, at: (i) => of.rate(i, name) }));
  return lines.sort((a, b) => rank(a.label) - rank(b.label));
};

const gauges = (names) => (of) => names.map(([label, name]) => ({ label, gauge: name, at: (i) => of.value(i, name) }));

const shares = (family) => (of) => [['median', 0.5], ['99 %', 0.99]].map(([label, share]) => ({ label, at: (i) => of.quantile(i, family, share) }));

/** What all charts of counters have. */
const counters = { totals: true, stacked: true, least: 1, format: short };

const cell = ([from, to]) => `${from} → ${to}`;
const CELLS = ['wss → wss', 'wss → udp', 'udp → wss', 'udp → udp'];

export const OVERVIEW = [
  { ...counters, title: 'Packets', unit: 'a second, by cell', by: 'cell', empty: 'No packet has found a way yet.',
    series: perSecond('pilot_beacon_relay_bridge_total', { label: cell, order: CELLS }) },
  { ...counters, title: 'Payload', unit: 'a second, by cell', by: 'cell', least: 100, format: bytes, formatTotal: bytes, empty: 'No packet has found a way yet.',
    series: perSecond('pilot_beacon_relay_bridge_bytes_total', { label: cell, order: CELLS }) },
  { ...counters, title: 'Dropped packets', unit: 'a second, by reason', by: 'reason', empty: 'No packet was dropped.',
    series: perSecond([DROPPED, DROPPED_BY_DOORS]) },
  { ...counters, title: 'Connections', unit: 'a second, by outcome', by: 'outcome', empty: 'Nobody has tried to connect.',
    series: perSecond('pilot_beacon_wss_connections_total', { order: ['auth_ok'] }) },
  { title: 'Outbox delay', unit: 'of what left in a second', by: 'share', least: 0.001, format: duration, empty: 'Nothing has left an outbox in five minutes.',
    series: shares('pilot_beacon_outbox_delay_seconds') },
  { title: 'Nodes', unit: 'by how they are reached', by: 'over', least: 10, format: count, axis: short,
    series: gauges([['WebSocket', 'pilot_beacon_wss_active'], ['UDP', 'pilot_beacon_udp_nodes'], ['learnt', 'pilot_beacon_learnt_nodes']]) },
  { title: 'CPU', unit: 'cores', by: 'of', least: 0.1, format: cores,
    series: (of) => [{ label: 'the process', at: (i) => of.rate(i, 'process_cpu_seconds_total') }] },
  { title: 'Memory', unit: 'resident', by: 'of', least: 1e6, format: bytes,
    series: gauges([['the process', 'process_resident_memory_bytes']]) },
];

/** What only some relays have: the family that tells, the tiles, and the charts. */
export const PARTS = [
  { family: 'beacon_relay_bus_front_leading', tiles: 'front_tiles', charts: [
    { title: 'Messages that wait for the leader', unit: 'in bytes', by: 'of', least: 1e3, format: bytes,
      series: gauges([['unanswered', 'beacon_relay_bus_front_unanswered_bytes']]) },
  ] },
  { family: 'beacon_relay_bus_messages', tiles: 'bus_tiles', charts: [
    { ...counters, title: 'Messages', unit: 'of peers, a second, by result', by: 'result', empty: 'No peer has sent a message.',
      series: perSecond('beacon_relay_bus_submitted_total', { order: ['stored'] }) },
    { title: 'Messages waiting', unit: 'and names that are connected', by: 'of', least: 10, format: count, axis: short,
      series: gauges([['messages', 'beacon_relay_bus_messages'], ['unacknowledged', 'beacon_relay_bus_unacknowledged'], ['names connected', 'beacon_relay_bus_connected']]) },
  ] },
  { family: 'beacon_relay_middleman_peers', tiles: 'topic_tiles', charts: [
    { ...counters, title: 'Publications and requests', unit: 'delivered, a second', by: 'what', empty: 'Nobody has published or asked.',
      series: perSecond('beacon_relay_middleman_delivered_total', { order: ['publication', 'request', 'answer'] }) },
    { ...counters, title: 'Requests', unit: 'that are over, a second, by result', by: 'result', empty: 'No request is over.',
      series: perSecond('beacon_relay_middleman_requests_total', { order: ['answered'] }) },
    { title: 'Time to an answer', unit: 'of what was answered in a second', by: 'share', least: 0.001, format: duration, empty: 'Nothing was answered in five minutes.',
      series: shares('beacon_relay_middleman_answer_seconds') },
    { ...counters, title: 'Refused messages', unit: 'and failed requests, a second, by reason', by: 'reason', empty: 'Nothing was refused.',
      series: perSecond('beacon_relay_middleman_refused_total') },
  ] },
];

/** The doors that listeners speak, by their names. */
export const doorsOf = (metrics) => samplesOf(metrics, 'beacon_relay_sessions').map(([, [door]]) => door).sort();

/** The charts of a door. */
export const ofDoor = (door) => [
  { title: `${door}: sessions`, unit: 'closing ones included', by: 'of', least: 10, format: count, axis: short,
    series: (of) => samplesOf(of.latest.metrics, 'beacon_relay_sessions').filter(([, [name]]) => name === door).map(([name]) => ({ label: 'sessions', gauge: name, at: (i) => of.value(i, name) })) },
  { ...counters, title: `${door}: logins`, unit: 'a second, by outcome', by: 'outcome', empty: 'Nobody has tried to log in.',
    series: perSecond('beacon_relay_logins_total', { door, order: ['auth_ok'] }) },
  { ...counters, title: `${door}: ended sessions`, unit: 'a second, by reason', by: 'reason', empty: 'No session has ended.',
    series: perSecond('beacon_relay_sessions_ended_total', { door }) },
  // Those of Pilot are the relay's own, which the overview has.
  ...(door === 'pilot' ? [] : [
    { ...counters, title: `${door}: dropped packets`, unit: 'a second, by reason of the door’s own', by: 'reason', empty: 'No packet was dropped.',
      series: perSecond(DROPPED_BY_DOORS, { door }) },
  ]),
];

/** The charts of a cluster. */
export const CLUSTER = [
  { title: 'Relays', unit: 'this one included', by: 'of', least: 4, format: count,
    series: gauges([['members', 'pilot_beacon_cluster_members']]) },
  { title: 'Waiting for other relays', unit: 'in bytes', by: 'of', least: 1e3, format: bytes,
    series: (of) => samplesOf(of.latest.metrics, 'pilot_beacon_cluster_waiting_bytes').map(([name]) => ({ label: 'waiting', gauge: name, at: (i) => of.value(i, name) })) },
  { ...counters, title: 'Packets for peers elsewhere', unit: 'a second, by result', by: 'result', empty: 'No packet was for a peer elsewhere.',
    series: perSecond('pilot_beacon_cluster_forwards_total') },
  { ...counters, title: 'Look-ups', unit: 'a second, by result', by: 'result', empty: 'No peer was looked up.',
    series: perSecond('pilot_beacon_cluster_lookups_total') },
];
