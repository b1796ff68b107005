// Numbers as people read them. A total is always whole: it equals the one in /metrics.

const NARROW_SPACE = '\u202f';

/** 1 234 567 */
export function count(value) {
  if (!Number.isFinite(value)) return '–';
  return Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, NARROW_SPACE);
}

function scaled(value, units) {
  if (!Number.isFinite(value)) return '–';
  let unit = 0;
  // 999.5 would be written as 1000.
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const text = unit === 0 && wholeUnits.includes(units[0]) ? few(value) : value.toFixed(digits(value));
  return units[unit] ? text + NARROW_SPACE + units[unit] : text;
}

/** Units of which there are no parts. */
const wholeUnits = ['', 'B'];

/** Decimals that make three digits of a number below 1000. */
const digits = (value) => (value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2);

/** A mean of things that are whole: a part only says something where there are few. */
const few = (value) => (value < 9.95 && Math.abs(value - Math.round(value)) > 0.05 ? value.toFixed(1) : value.toFixed(0));

/** The same without zeros at the end, for round numbers: 2.5 k */
export const trimmed = (text) => text.replace(/(\.\d*?)0+(?!\d)/, '$1').replace(/\.(?!\d)/, '');

/** 12.3 k */
export const short = (value) => scaled(value, ['', 'k', 'M', 'G', 'T']);

/** 12.3 MB */
export const bytes = (value) => scaled(value, ['B', 'kB', 'MB', 'GB', 'TB', 'PB']);

/** 0.42 */
export const cores = (value) => (Number.isFinite(value) ? value.toFixed(2) : '–');

/** 250 µs, 12.3 ms, 1.25 s */
export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds === 0) return '0' + NARROW_SPACE + 'ms';
  if (seconds < 0.000_999_5) return scaled(seconds * 1e6, ['µs']);
  return seconds < 0.999_5 ? scaled(seconds * 1e3, ['ms']) : scaled(seconds, ['s']);
}

/** +250 ms, -70.0 s: by how much a clock is ahead */
export const ahead = (ms) => (Number.isFinite(ms) ? (ms < 0 ? '-' : '+') + duration(Math.abs(ms) / 1000) : '–');

/** 3 d 4 h, 5 min 12 s */
export function age(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  const whole = Math.floor(seconds);
  const parts = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([number]) => number > 0);
  const shown = first < 0 ? parts.slice(-1) : parts.slice(first, first + 2);
  return shown.map(([number, unit]) => number + NARROW_SPACE + unit).join(' ');
}
