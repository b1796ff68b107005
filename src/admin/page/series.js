// The samples of the last five minutes, and what follows from them. Those from before the page was
// opened, or while it had no connection, are what the relay has kept.

/** The time that charts show, in seconds. */
export const WINDOW = 300;

/** Between two snapshots that are further apart than this, a line has a gap. */
const GAP = 3.5;

/** The family of dropped packets: those with a reason of which nothing is wrong do not count. */
export const DROPPED = 'pilot_beacon_packets_dropped_total';

/** Those that doors beyond the relay's own have dropped, which count with the others. */
export const DROPPED_BY_DOORS = 'beacon_relay_packets_dropped_total';

/** When the process started: its samples go on only while this is the same. */
const STARTED = 'process_start_time_seconds';

export class History {
  #points = [];
  #offset = NaN;

  /**
   * Takes what the relay has kept until a snapshot, the first of a connection, in place of what is
   * here of the same process.
   */
  fill(kept, snapshot, now) {
    const started = snapshot.metrics[STARTED];
    this.#points = this.#points.filter((point) => point.metrics[STARTED] !== started);
    this.#offset = now - snapshot.uptime_seconds;
    const changes = kept.uptime_seconds.map(() => []);
    for (const [name, values] of Object.entries(kept.samples)) {
      for (const [index, value] of values) changes[index].push([name, value]);
    }
    let metrics = {};
    for (const [index, uptime] of kept.uptime_seconds.entries()) {
      metrics = { ...metrics, ...Object.fromEntries(changes[index]) };
      if (uptime < snapshot.uptime_seconds) this.#push(uptime, metrics, snapshot.expected_drops, true);
    }
  }

  /** Takes a snapshot; `now` is the page's own clock, in seconds. */
  add(snapshot, now) {
    const uptime = snapshot.uptime_seconds;
    const last = this.latest;
    // Another process, or the first: its clock is laid onto ours. Otherwise the relay's clock
    // tells the time, which no network makes uneven.
    const isSame = last && uptime > last.uptime && Math.abs(this.#offset + uptime - now) < GAP;
    if (!isSame) this.#offset = now - uptime;
    this.#push(uptime, snapshot.metrics, snapshot.expected_drops, false);
  }

  /** Of what `isKept`, samples that were 0 are left out. */
  #push(uptime, metrics, expectedDrops, isKept) {
    const last = this.latest;
    const families = new Map();
    const expected = new Set(expectedDrops.map((reason) => `${DROPPED}{reason="${reason}"}`));
    for (const [name, value] of Object.entries(metrics)) {
      if (expected.has(name)) continue;
      let family = name.split('{', 1)[0];
      if (family === DROPPED_BY_DOORS) family = DROPPED;
      families.set(family, (families.get(family) ?? 0) + value);
    }
    const at = this.#offset + uptime;
    const before = last && uptime > last.uptime && last.metrics[STARTED] === metrics[STARTED];
    this.#points.push({
      at,
      uptime,
      metrics,
      isKept,
      families,
      expected,
      // Rates are over the time since the point before, if it is of the same process.
      seconds: before ? uptime - last.uptime : NaN,
      isAfterGap: !before || at - last.at > GAP,
    });
    while (this.#points[0].at < at - WINDOW - GAP) this.#points.shift();
  }

  get length() {
    return this.#points.length;
  }

  get latest() {
    return this.#points.at(-1);
  }

  point(index) {
    return this.#points[index];
  }

  /** The point that is nearest to a time. */
  nearest(at) {
    let best = this.#points.length - 1;
    this.#points.forEach((point, index) => {
      if (Math.abs(point.at - at) < Math.abs(this.#points[best].at - at)) best = index;
    });
    return best;
  }

  /** The value of a sample, or the sum over a family. */
  value(index, name) {
    const point = this.#points[index];
    return point?.metrics[name] ?? point?.families.get(name) ?? (point?.isKept ? 0 : NaN);
  }

  /** How much a counter grew in a second. */
  rate(index, name) {
    return (this.value(index, name) - this.value(index - 1, name)) / this.#points[index].seconds;
  }

  /** A quantile of what a histogram observed since the point before, in its own unit. */
  quantile(index, name, share) {
    const [now, before] = [this.#points[index], this.#points[index - 1]];
    if (!before || Number.isNaN(now.seconds)) return NaN;
    const buckets = bucketNames(this.latest.metrics, name);
    const counts = buckets.map(([bucket]) => this.value(index, bucket) - this.value(index - 1, bucket));
    const wanted = counts.at(-1) * share;
    if (!(wanted > 0)) return NaN;
    const found = counts.findIndex((count) => count >= wanted);
    const [lower, upper] = [found > 0 ? buckets[found - 1][1] : 0, buckets[found][1]];
    // Of what is beyond the last bound, no more is known than that.
    if (upper === Infinity) return lower;
    const below = found > 0 ? counts[found - 1] : 0;
    return lower + ((upper - lower) * (wanted - below)) / (counts[found] - below);
  }
}

/** The buckets of a histogram with their upper bounds, ascending. */
function bucketNames(metrics, name) {
  const prefix = `${name}_bucket{le="`;
  return Object.keys(metrics)
    .filter((key) => key.startsWith(prefix))
    .map((key) => [key, Number(key.slice(prefix.length, -2).replace('+Inf', 'Infinity'))])
    .sort((a, b) => a[1] - b[1]);
}

/** The samples of a family, with the values of their labels. */
export function samplesOf(metrics, family) {
  return Object.keys(metrics)
    .filter((name) => name.startsWith(`${family}{`))
    .map((name) => [name, [...name.matchAll(/="([^"]*)"/g)].map((match) => match[1])]);
}
