// A stranger's client of middleman for browsers: written from a description of the wire alone,
// without a look at the relay. It matches answers to requests by `ReqID`, as JavaScript clients do.
//
// `run(url, serviceKey, clientKey)` says each step in `stranger.steps`, and in `stranger.failure`
// what the broker did that is not as described.

const PATIENCE_MS = 10_000;
// What comes within this time would have come.
const QUIET_MS = 300;

const stranger = { steps: [], failure: null };

function expect(right, what) {
  if (!right) throw new Error(`not as described: ${what}`);
}

/** Settles as `promise` does, or fails after a while. */
function soon(promise, what) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what}`)), PATIENCE_MS));
  return Promise.race([promise, late]);
}

function written(command, target, headers = {}, body = '') {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const stuffed = body.split('\n').map((line) => (line === '.' || line.startsWith('..') ? `.${line}` : line));
  return `${command} ${target}\r\n${lines.join('')}\r\n${stuffed.join('\r\n')}\r\n.\r\n`;
}

function read(text) {
  const [head, rest] = [text.slice(0, text.indexOf('\r\n\r\n')), text.slice(text.indexOf('\r\n\r\n') + 4)];
  const [top, ...lines] = head.split('\r\n');
  const [command, target] = [top.slice(0, top.indexOf(' ')), top.slice(top.indexOf(' ') + 1)];
  const headers = Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(': ')), line.slice(line.indexOf(': ') + 2)]));
  const body = rest.slice(0, -'\r\n.\r\n'.length).split('\n').map((line) => (line.startsWith('..') ? line.slice(1) : line));
  return { command, target, headers, body: body.join('\n') };
}

class Client {
  #subscriptions = new Map();
  #requests = new Map();
  #errors = [];
  #asked = null;
  #next = 0;

  static async connect(url, key) {
    const client = new Client();
    client.socket = new WebSocket(url);
    client.ended = new Promise((resolve) => { client.socket.onclose = ({ code }) => resolve(code); });
    const first = [];
    await soon(new Promise((resolve) => {
      client.socket.onopen = () => client.socket.send(key);
      client.socket.onmessage = ({ data }) => {
        first.push(data);
        if (first.length === 2) resolve();
      };
      client.ended.then(resolve);
    }), 'welcome');
    if (first.length < 2) return null;
    expect(first[0] === 'MM OK', `a welcome, not ${first[0]}`);
    [, client.guid] = first;
    client.socket.onmessage = ({ data }) => client.#hear(read(data));
    return client;
  }

  #hear(message) {
    const { command, target, headers, body } = message;
    if (command === 'REQ') this.#asked?.(message);
    if (command === 'RES') {
      const answer = this.#requests.get(headers.ReqID);
      expect(answer, `an answer to what was asked: ${JSON.stringify(headers)}`);
      this.#requests.delete(headers.ReqID);
      answer(message);
    }
    if (command !== 'PUB') return;
    if (target === 'ERROR') this.#errors.push(body);
    else this.#subscriptions.get(target)?.(message);
  }

  say(...message) {
    this.socket.send(written(...message));
  }

  subscribe(topic, heard) {
    this.#subscriptions.set(topic, heard);
    this.say('SUB', topic);
  }

  request(topic, headers, body) {
    this.#next += 1;
    const id = `js-${this.#next}`;
    const answered = new Promise((resolve) => this.#requests.set(id, resolve));
    // As the last header: some clients write no other.
    this.say('REQ', topic, { ...headers, ReqID: id }, body);
    return soon(answered, `answer to ${id}`);
  }

  /** Has requests of a topic answered by `answer(message)`. */
  respond(topic, answer) {
    this.#asked = answer;
    this.say('EREQ', topic);
  }

  /** Waits until the broker has done what was said: its own channel tells it. */
  async settle() {
    await soon(new Promise((resolve) => {
      this.subscribe(`settled ${this.guid}`, resolve);
      this.say('PUB', `settled ${this.guid}`);
    }), 'publication of our own');
  }

  async errors() {
    await new Promise((resolve) => setTimeout(resolve, QUIET_MS));
    return this.#errors.splice(0);
  }
}

async function checkLogin(url, serviceKey, clientKey) {
  expect((await Client.connect(url, 'nope')) === null, 'a wrong key is refused');
  const service = await Client.connect(url, serviceKey);
  const client = await Client.connect(url, clientKey);
  expect(service && client && service.guid !== client.guid, 'both keys are known');
  expect(/^[0-9a-v]{20}$/.test(client.guid), `a name of 20 digits, not ${client.guid}`);
  stranger.steps.push('let in, each with a name of its own');
  return { service, client };
}

async function checkPublications({ service, client }) {
  client.subscribe('Chat', () => { throw new Error('nobody allowed it'); });
  expect((await client.errors()).join() === 'Not trusted: SUB Chat', 'denied');
  service.say('ESUB', 'Chat');
  await service.settle();
  stranger.steps.push('denied until a service allows it');

  const bodies = Array.from({ length: 200 }, (_, number) => `${number}\n.\n..h\u00e9\u20ac \u{1f980}\n`);
  const heard = [];
  await soon(new Promise((resolve) => {
    client.subscribe('Chat', ({ headers, body }) => {
      expect(headers.Cid === service.guid, 'who it is from');
      heard.push(body);
      if (heard.length === bodies.length) resolve();
    });
    // The subscription is another connection's.
    setTimeout(() => bodies.forEach((body) => service.say('PUB', 'Chat', { room: 'a' }, body)), QUIET_MS);
  }), 'publications');
  expect(heard.join('|') === bodies.join('|'), 'the same bodies in their order');
  stranger.steps.push('published in order');

  const large = 'x'.repeat(900_000);
  const whole = soon(new Promise((resolve) => client.subscribe('Chat', resolve)), 'large one');
  service.say('PUB', 'Chat', {}, large);
  expect((await whole).body === large, 'all of it');
  stranger.steps.push('published 900,000 characters');
}

async function checkRequests({ service, client }) {
  const asked = [];
  service.respond('Svc', (message) => {
    asked.push(message);
    if (asked.length < 10) return;
    // The last is answered first.
    for (const { headers, body } of asked.reverse()) {
      const lower = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]));
      service.say('RES', 'Svc', lower, `${body}!`);
    }
  });
  await service.settle();
  const answers = await Promise.all(Array.from({ length: 10 }, (_, number) => client.request('Svc', {}, String(number))));
  expect(answers.map(({ body }) => body).join() === '0!,1!,2!,3!,4!,5!,6!,7!,8!,9!', 'to each its answer');
  stranger.steps.push('asked, and answered by ReqID');

  service.respond('Svc', () => service.socket.close());
  const failed = await client.request('Svc', {}, 'last');
  expect(failed.headers.Error, 'an error in the answer');
  expect((await client.errors()).join() === 'No responder for REQ Svc', 'and as a message');
  expect((await service.ended) === 1005, 'a close without a code is returned like that');
  const refused = await client.request('Svc', {}, 'x'.repeat(1_047_000));
  expect(refused.headers.Error, 'refused and answered');
  stranger.steps.push('a request fails with its responder');
}

async function run(url, serviceKey, clientKey) {
  try {
    const both = await checkLogin(url, serviceKey, clientKey);
    await checkPublications(both);
    await checkRequests(both);
    both.client.socket.close(1000, 'done');
    expect((await both.client.ended) === 1000, 'our code comes back');
    stranger.steps.push('left');
  } catch (error) {
    stranger.failure = String(error);
  }
}

addEventListener('error', ({ message }) => { stranger.failure ??= message; });
