//! The status page in a real Chromium, and its stream under many watchers.

pub(crate) mod browser;
mod layout;
mod lookup;
mod screenshots;
mod traffic;
mod watchers;

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use crate::harness::{Node, PATIENCE, Relay, http_get, look_until};
use crate::middleman;
use crate::peer::{Peer, frame, relay as relay_packet};
use crate::peerbus::Site;
use crate::peerbus::jetstream::Engine;
use browser::Browser;
use traffic::Traffic;

/// What the page is in: set by its own script.
const LIVE: &str = "document.documentElement.dataset.link === 'live'";

/// The width of a phone, in CSS pixels.
const PHONE: u32 = 360;
fn nodes() -> Vec<Node> {
    traffic::WSS.into_iter().map(Node::new).collect()
}

fn start(arguments: &[&str]) -> Relay {
    let nodes = nodes();
    Relay::with_nodes(&nodes.iter().collect::<Vec<_>>(), arguments)
}

/// The samples of /metrics, and under the name of each family their sum: of drops that of those
/// of which something is wrong.
fn metrics(relay: &Relay) -> BTreeMap<String, f64> {
    let is_expected = |name: &str| {
        name.ends_with("{reason=\"punch_over_wss\"}") || name.ends_with("{reason=\"direct_probe\"}")
    };
    let mut found = BTreeMap::new();
    for line in relay.metrics().lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        found.insert(name.to_owned(), value);
        if let Some((family, _)) = name.split_once('{').filter(|_| !is_expected(name)) {
            // Those of other doors count with the relay's own.
            let of_doors = family.strip_prefix("beacon_relay_packets_dropped");
            let dropped = of_doors.map(|rest| format!("pilot_beacon_packets_dropped{rest}"));
            let family = dropped.as_deref().unwrap_or(family);
            *found.entry(family.to_owned()).or_default() += value;
        }
    }
    found
}

/// The numbers on the page: the metric of each, its exact value, and what people read.
fn numbers(browser: &mut Browser) -> Vec<(String, f64, String)> {
    let found = browser.value(
        "[...document.querySelectorAll('[data-metric]')].map((element) => \
         [element.dataset.metric, Number(element.dataset.value), element.textContent])",
    );
    let number = |row: &Value| {
        let text = |at: usize| row[at].as_str().unwrap().to_owned();
        (text(0), row[1].as_f64().unwrap(), text(2))
    };
    found.as_array().unwrap().iter().map(number).collect()
}

/// Whether a text is a number as the page writes it: whole, or with three digits and a unit.
fn says(text: &str, value: f64) -> bool {
    let mut parts = text.split('\u{202f}').collect::<Vec<_>>();
    let units = ["B", "kB", "MB", "GB"];
    match parts.last().and_then(|last| units.iter().position(|unit| unit == last)) {
        Some(power) => {
            parts.pop();
            let scale = 1_000_f64.powi(i32::try_from(power).unwrap());
            let shown = parts.concat().parse::<f64>().unwrap() * scale;
            (shown - value).abs() <= value * 0.005
        }
        None => parts.concat().parse::<f64>().unwrap() == value.round(),
    }
}

/// Waits until page and scrape say the same; what is of the process itself is never at rest.
fn assert_same_numbers(relay: &Relay, browser: &mut Browser) {
    let differing = |browser: &mut Browser| {
        let shown = numbers(browser);
        let scraped = metrics(relay);
        assert!(shown.len() > 20, "{shown:?}");
        let wrong = shown.into_iter().filter(|(name, value, text)| {
            let real = scraped.get(name).unwrap_or_else(|| panic!("no {name} in /metrics"));
            let is_same = if name.starts_with("process_") {
                (real - value).abs() < 0.5 * real
            } else {
                real == value
            };
            !(is_same && says(text, *value))
        });
        wrong.collect::<Vec<_>>()
    };
    let end = Instant::now() + PATIENCE;
    look_until(end, || differing(browser).is_empty().then_some(())).unwrap_or_else(|| {
        panic!("not as in /metrics: {:?}\n{}", differing(browser), relay.metrics())
    });
}

#[test]
fn page_shows_what_the_metrics_say_in_a_real_browser() {
    let mut relay = start(&[]);
    // Under traffic: 4 cells × 4 packets in 20 ms are 800 a second, and 20 more that are dropped.
    let traffic = Traffic::start(&relay, 4, false);
    let mut browser = Browser::start();
    browser.resize(1_280, 900, false);
    browser.prefer("light");
    wait_for_points(&relay, 3);
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);
    assert_history(&mut browser);
    assert_build(&relay, &mut browser);
    let rate =
        "[...document.querySelectorAll('[data-rate]')].map((e) => parseFloat(e.textContent))[0]";
    browser.wait_for(&format!("{rate} > 600 && {rate} < 1000"));
    // Of each chart a line with several points, none of them flat on the page's edge.
    browser.wait_for(
        "[...document.querySelectorAll('#charts .chart')].every((chart) => \
         [...chart.querySelectorAll('.line')].some((line) => \
         line.getAttribute('d').split('L').length > 3 && line.getTotalLength() > 3))",
    );
    let cells =
        "[...document.querySelectorAll('#charts .chart')][0].querySelectorAll('tbody tr').length";
    assert_eq!(browser.value(cells), 4);
    let reasons = "[...[...document.querySelectorAll('#charts .chart')][2].querySelectorAll('tbody tr')]\
                   .map((row) => row.cells[0].textContent.trim()).join()";
    assert_eq!(browser.value(reasons), "unknown_destination");
    assert_talkers(&mut browser);
    let rest = "getComputedStyle(document.querySelector('.line')).stroke !== 'none'";
    assert_eq!(browser.value(rest), true);
    traffic.stop();

    assert_same_numbers(&relay, &mut browser);
    assert_eq!(browser.complaints(), [] as [String; 0]);

    looks(&mut browser);
    assert_eq!(browser.complaints(), [] as [String; 0]);

    // Another process at the same address: the page says so, and goes on by itself.
    let admin = relay.admin.to_string();
    drop(relay);
    browser.wait_for("document.getElementById('link').textContent.startsWith('disconnected')");
    assert_eq!(browser.value("document.title"), "(disconnected) beacon-relay");
    relay = start(&["--admin-bind", &admin]);
    browser.wait_for(LIVE);
    Traffic::start(&relay, 1, false).stop();
    assert_same_numbers(&relay, &mut browser);
    let complaints = browser.complaints();
    let refused = |complaint: &String| complaint.contains("net::ERR_");
    assert!(complaints.iter().all(refused), "{complaints:?}");

    // What the policy forbids does not pass unseen.
    browser.value("document.body.setAttribute('style', 'color: red')");
    browser.wait_for("violations.length === 1");
    assert_ne!(browser.complaints(), [] as [String; 0]);
}

/// The page says of which commit the relay is.
fn assert_build(relay: &Relay, browser: &mut Browser) {
    let status: Value = serde_json::from_str(&http_get(relay.admin, "/status").1).unwrap();
    let of = |key: &str| status[key].as_str().unwrap().to_owned();
    let [version, commit, date, target] = ["version", "commit", "commit_date", "target"].map(of);

    let foot = browser.value("document.querySelector('footer').textContent");

    let expected = format!("beacon-relay {version}, commit {commit} of {date}, {target}. ");
    assert!(foot.as_str().unwrap().starts_with(&expected), "{foot}");
}

/// Waits until the relay has kept so many points of its charts, which nobody has seen.
fn wait_for_points(relay: &Relay, count: usize) {
    let kept = || {
        let (status, text) = http_get(relay.admin, "/history");
        assert_eq!(status, 200);
        let points: Value = serde_json::from_str(&text).unwrap();
        points["uptime_seconds"].as_array().unwrap().len()
    };
    let end = Instant::now() + PATIENCE;
    look_until(end, || (kept() >= count).then_some(())).expect("points are kept");
}

/// The page that was just opened has drawn what was before: more seconds than it is old.
fn assert_history(browser: &mut Browser) {
    browser.wait_for(
        "(() => { \
         const line = document.querySelector('#charts .line')?.getAttribute('d'); \
         if (!line) return false; \
         const places = line.slice(1).split('L').map((place) => Number(place.split(',')[0])); \
         const width = document.querySelector('#charts svg').viewBox.baseVal.width - 64; \
         const seconds = (places.at(-1) - places[0]) / width * 300; \
         return seconds > 1.5 + performance.now() / 1000; })()",
    );
}

/// What talkers send is, by their estimates, what came in, to a tenth.
fn assert_talkers(browser: &mut Browser) {
    browser.wait_for(
        "(() => { \
         const rows = [...document.querySelectorAll('#top_talkers tbody tr')]; \
         const cells = rows.map((row) => [...row.cells].map((cell) => cell.textContent)); \
         if (!cells.every((row) => row[2].startsWith('≈') && row[3].startsWith('≈'))) return false; \
         const sent = cells.filter((row) => row[1] === 'sends').map((row) => parseFloat(row[2].slice(1))); \
         const sum = sent.reduce((sum, rate) => sum + rate, 0); \
         const rate = parseFloat(document.querySelector('[data-rate=pilot_beacon_packets_in_total]').textContent); \
         return rate > 600 && Math.abs(sum - rate) < rate / 10; })()",
    );
}

#[test]
fn page_of_a_relay_that_is_not_ready_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, away) = (folder.path().join("wss.sock"), folder.path().join("away.sock"));
    let bind = format!("unix:{}", socket.display());
    let relay = Relay::start(["--wss-bind", &bind, "--canary-interval", "10ms"]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", relay.admin));
    let is_ready = "document.getElementById('verdict').textContent === 'ready' \
                    && document.getElementById('reasons').hidden";
    browser.wait_for(is_ready);
    let colour = "getComputedStyle(document.querySelector('header')).backgroundColor";
    let good = browser.value(colour);

    std::fs::rename(&socket, &away).unwrap();
    browser.wait_for(
        "document.getElementById('verdict').textContent === 'not ready' && \
         document.getElementById('reasons').textContent.startsWith('canary: cannot connect') && \
         document.getElementById('reasons').textContent.includes(' → let the relay')",
    );
    assert_ne!(browser.value(colour), good);
    std::fs::rename(&away, &socket).unwrap();
    browser.wait_for(is_ready);
    assert_eq!(browser.value(colour), good);
}

/// Light and dark, by the system and by the button, and on a phone.
fn looks(browser: &mut Browser) {
    const COLOUR: &str = "getComputedStyle(document.body).backgroundColor";
    const BUTTON: &str = "document.getElementById('theme')";
    let light = browser.value(COLOUR);
    browser.prefer("dark");
    let dark = browser.value(COLOUR);
    assert_ne!(light, dark);
    browser.value(&format!("{BUTTON}.click()"));
    assert_eq!(browser.value(&format!("{BUTTON}.textContent")), "theme: light");
    assert_eq!(browser.value(COLOUR), light);
    let here = browser.value("location.href");
    browser.open(here.as_str().unwrap());
    browser.wait_for(LIVE);
    assert_eq!(browser.value(COLOUR), light, "the choice is kept");
    browser.value(&format!("{BUTTON}.click()"));
    assert_eq!(browser.value(COLOUR), dark);
    browser.value(&format!("{BUTTON}.click()"));
    assert_eq!(browser.value("localStorage.getItem('theme')"), "system");

    browser.resize(PHONE, 740, true);
    let width = "document.documentElement.scrollWidth";
    assert_eq!(browser.value(width), PHONE);
    assert_eq!(browser.value("innerWidth"), PHONE);
    browser.resize(1_280, 900, false);
}

#[test]
fn page_is_for_browsers_and_the_list_for_everybody_else() {
    let relay = start(&[]);
    let (status, list) = http_get(relay.admin, "/");
    assert_eq!(status, 200);
    assert!(list.starts_with("beacon-relay ") && list.contains("\n/metrics "), "{list}");

    let page = watchers::request(relay.admin, "/", "Accept: text/html,*/*;q=0.8\r\n");
    assert!(page.contains("<!doctype html>"), "{page}");
    let head = page.to_ascii_lowercase();
    for header in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header} is not in\n{page}");
    }
    // Nothing is loaded from elsewhere, and nothing is inline.
    let text = page.split("<!doctype html>").nth(1).unwrap();
    assert!(!text.contains("//") && !text.contains("style=") && !text.contains(" on"), "{text}");
}

#[test]
fn reader_that_reads_nothing_is_among_the_slow_ones_and_a_quick_one_is_not() {
    let relay = start(&["--relay-rate", "0", "--outbox-age", "1h"]);
    let [sender, stuck] = traffic::WSS.map(Node::new);
    let mut wss = Peer::log_in(relay.wss, &sender);
    let slow = Peer::log_in(relay.wss, &stuck);
    // More than the kernel's buffers and the outbox can hold together.
    let packet = frame(0x82, &relay_packet(sender.id, stuck.id, &[0x5a; 1_000]));
    (0..100).for_each(|_| wss.write(&packet.repeat(100)));
    let readers = || {
        let (status, text) = http_get(relay.admin, "/status");
        assert_eq!(status, 200);
        serde_json::from_str::<Value>(&text).unwrap()["slow_readers"].clone()
    };
    let end = Instant::now() + PATIENCE;
    let is_full = |readers: &Value| {
        readers[0]["waiting_bytes"].as_u64().is_some_and(|b| (200_000..=262_144).contains(&b))
    };
    let found = look_until(end, || Some(readers()).filter(is_full));
    let found = found.unwrap_or_else(|| panic!("nobody is slow: {}", readers()));
    assert_eq!((found.as_array().unwrap().len(), &found[0]["node"]), (1, &stuck.id.into()));
    drop(slow);
    let empty = || (readers() == Value::Array(Vec::new())).then_some(());
    look_until(end, empty).expect("who is gone is not slow");
}

#[test]
fn page_shows_topics_and_requests_of_a_relay_with_the_middleman_door() {
    let site = middleman::Site::start(&[]);
    let mut browser = Browser::start();
    browser.resize(1_280, 900, false);
    browser.open(&format!("http://{}/", site.relay.admin));
    browser.wait_for(LIVE);
    browser.wait_for("document.querySelectorAll('#charts .chart').length === 12");

    let _talking = site.converse();

    for (sample, value) in [
        ("subscriptions", "1"),
        ("topics", "2"),
        ("requests", "1"),
        ("requests_total{result=\"answered\"}", "1"),
        ("requests_total{result=\"refused\"}", "1"),
        ("requests_total{result=\"failed\"}", "0"),
    ] {
        let sample = format!("'[data-metric=\\'beacon_relay_middleman_{sample}\\']'");
        browser.wait_for(&format!("document.querySelector({sample}).textContent === '{value}'"));
    }
    let rows = "[...document.querySelectorAll('#topics tbody tr')].map((row) => \
                [...row.cells].map((cell) => cell.textContent).join()).join(';')";
    browser.wait_for(&format!("{rows} === 'Svc,publish,0,1,1;Chat,publish, subscribe,1,0,0'"));
    assert_same_numbers(&site.relay, &mut browser);
    browser.resize(PHONE, 740, true);
    assert_eq!(browser.value("document.documentElement.scrollWidth"), PHONE);
    assert_eq!(browser.complaints(), [] as [String; 0]);
}

#[test]
fn page_shows_the_message_bus_of_a_relay_that_has_one() {
    let site = Site::start(&[]);
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", site.relay.admin));
    browser.wait_for(LIVE);

    site.leave_one();

    let number = |family: &str| format!("document.querySelector('[data-metric={family}]')");
    browser.wait_for(&format!("{}?.textContent === '1'", number("beacon_relay_bus_messages")));
    browser.wait_for(&format!("{}.textContent === '2'", number("beacon_relay_bus_names")));
    browser.wait_for("document.querySelectorAll('#charts .chart').length === 10");
    browser.wait_for("!document.getElementById('bus_tiles')");
}

#[test]
fn page_shows_which_relay_of_a_cluster_leads_its_message_bus() {
    let engine = Engine::start();
    let site = engine.site_of_a_cluster();
    let mut browser = Browser::start();
    browser.resize(1_280, 900, false);
    browser.open(&format!("http://{}/", site.relay.admin));
    browser.wait_for(LIVE);

    let text = |id: &str| format!("document.getElementById('{id}')?.textContent");
    let own = "document.querySelector('#members tbody tr').cells[0].textContent";
    browser.wait_for(&format!("{} === {own}", text("bus_leader")));
    browser.wait_for(&format!("{}.startsWith('this relay, epoch 1, for ')", text("bus_role")));
    browser.wait_for(&format!("{} === 'connected'", text("bus_nats")));
    // Those of every relay, those of the bus, and what waits for the leader.
    browser.wait_for("document.querySelectorAll('#charts .chart').length === 11");
    assert_same_numbers(&site.relay, &mut browser);
    browser.resize(PHONE, 740, true);
    assert_eq!(browser.value("document.documentElement.scrollWidth"), PHONE);
    assert_eq!(browser.complaints(), [] as [String; 0]);
}
