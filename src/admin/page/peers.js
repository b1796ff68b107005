// Looks a peer up: asks the relay what `explain` says, with the token of its operators.

import { bytes, count, duration } from './format.js';
import { byId, fill } from './tables.js';

/** Of what is known, that which is a time in seconds. */
const TIMES = ['age', 'waiting_age', 'stuck', 'silence', 'wait', 'login_waits', 'session_ended'];

/** What has a place of its own. */
const SHOWN = ['node', 'path', 'drops', 'events'];

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What is known as pairs of a name and a text; of what stands within another, both names. */
function facts(of, before = '') {
  return Object.entries(of).flatMap(([key, value]) => {
    const name = before + key.replaceAll('_', ' ');
    if (value === null || (before === '' && SHOWN.includes(key))) return [];
    if (isObject(value)) return facts(value, `${name}: `);
    return [[name, text(key, value)]];
  });
}

function text(key, value) {
  if (Array.isArray(value)) return value.join(', ');
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (TIMES.includes(key)) return duration(value);
  return key.endsWith('_bytes') ? bytes(value) : String(value);
}

function show(found) {
  byId('found_name').textContent = `Peer ${found.node}`;
  byId('found_path').textContent = `${found.place}: ${found.path}.`;
  const rows = facts(found).flatMap(([name, value]) => {
    const [term, description] = ['dt', 'dd'].map((tag) => document.createElement(tag));
    term.textContent = name;
    description.textContent = value;
    return [term, description];
  });
  byId('found_facts').replaceChildren(...rows);
  fill('found_drops', found.drops, (row) => [String(row.sender ?? ''), String(row.dest ?? ''), row.reason, row.why, (row.is_estimate ? '≈\u202f' : '') + count(row.packets), `${duration(row.last)} ago`]);
  fill('found_events', found.events, (row) => [row.time, row.what.replaceAll('_', ' '), row.address ?? '', (row.reason ?? '').replaceAll('_', ' ')]);
}

/** Asks the relay; the answer, or an error that people can read. */
async function explain(name, token) {
  const node = /^\d+$/.test(name) ? Number(name) : name;
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const response = await fetch('actions/explain', { method: 'POST', headers, body: JSON.stringify({ node }) });
  const { ok, result, error } = await response.json();
  if (!ok) throw new Error(error);
  return result;
}

byId('lookup').addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = byId('lookup').querySelector('button');
  button.disabled = true;
  button.textContent = 'looking';
  byId('peer_error').hidden = true;
  try {
    show(await explain(byId('peer').value.trim(), byId('token').value.trim()));
    byId('found').hidden = false;
  } catch (error) {
    byId('found').hidden = true;
    byId('peer_error').textContent = error instanceof TypeError ? 'the relay does not answer' : error.message;
    byId('peer_error').hidden = false;
  }
  button.disabled = false;
  button.textContent = 'Look up';
});

/** Puts a peer into the form, and looks it up where the token is known. */
export function lookUp(name) {
  byId('peer').value = name;
  if (byId('token').value) byId('lookup').requestSubmit();
  else byId('token').focus();
}
