//! Whether all of the page can be read: on a phone and on a wall, in light and in dark, by people
//! and by what reads it to them (WCAG 2.2 AA, as axe checks it).

use std::fs;

use serde_json::Value;

use super::browser::Browser;
use super::traffic::{self, Traffic};
use super::{LIVE, nodes};
use crate::cluster::{Cluster, Fabric};
use crate::deploy::tools;
use crate::harness::Node;
use crate::peer::Peer;

/// Width and height in CSS pixels, and whether it is a phone.
pub(super) const SCREENS: [(u32, u32, bool); 4] =
    [(320, 568, true), (390, 844, true), (1_280, 800, false), (3_840, 2_160, false)];

const VIEWS: [&str; 5] = ["overview", "doors", "cluster", "peers", "events"];

/// What does not fit: texts that are cut, what reaches beyond the window, labels of a chart that
/// touch each other or its edge.
const MISFITS: &str = r"(() => {
    const found = [];
    const seen = (element) => element.getClientRects().length > 0;
    const name = (element) => `${element.tagName} ${element.id} ${element.textContent.slice(0, 40)}`;
    for (const element of document.querySelectorAll('body *')) {
        if (!seen(element) || element.closest('svg')) continue;
        const { left, right } = element.getBoundingClientRect();
        // Heads of tables are for screen readers where each cell has its own.
        if (element.closest('thead') && getComputedStyle(element.closest('thead')).position === 'absolute') continue;
        if (left < 0 || right > innerWidth + 0.5) found.push(`beyond the window: ${name(element)}`);
        const { clientWidth, clientHeight, scrollWidth, scrollHeight } = element;
        if (clientWidth > 0 && (scrollWidth > clientWidth + 1 || scrollHeight > clientHeight + 2)) found.push(`cut: ${name(element)}`);
    }
    for (const chart of [...document.querySelectorAll('svg')].filter(seen)) {
        const edge = chart.getBoundingClientRect();
        const labels = [...chart.querySelectorAll('text')].map((text) => [text.textContent, text.getBoundingClientRect()]);
        for (const [index, [text, box]] of labels.entries()) {
            if (box.left < edge.left || box.right > edge.right || box.bottom > edge.bottom + 1) found.push(`label beyond the chart: ${text}`);
            for (const [other, rival] of labels.slice(index + 1)) {
                const apart = box.right <= rival.left || rival.right <= box.left || box.bottom <= rival.top + 2 || rival.bottom <= box.top + 2;
                if (!apart) found.push(`labels ${text} and ${other}`);
            }
        }
    }
    return found;
})()";

/// What axe finds wrong, and how many rules it found to hold.
const AXE: &str = r"axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'],
    rules: { 'target-size': { enabled: true } },
}).then(({ violations, passes }) => ({
    passes: passes.length,
    wrong: violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html + ' ' + node.failureSummary).join('; ')}`),
}))";

#[test]
fn page_can_be_read_on_all_screens_in_both_themes_and_by_screen_readers() {
    let far = Node::new(41);
    let mut all = nodes();
    all.push(far.clone());
    let mut cluster = Cluster::of_three(Fabric::Mesh, &all.iter().collect::<Vec<_>>(), &[]);
    let relay = &cluster.relays[0];
    let traffic = Traffic::start(relay, 4, false);
    let _far = Peer::log_in(cluster.relays[1].wss, &far);
    let axe = fs::read_to_string(tools().join("axe_playwright_python/axe.min.js"))
        .expect("axe is missing; `make setup` installs it");
    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);
    browser.value(&format!("{axe}; 0"));
    browser.wait_for("document.querySelectorAll('#charts .line').length > 8");

    for (width, height, is_phone) in SCREENS {
        browser.resize(width, height, is_phone);
        for view in VIEWS {
            let place = format!("{view} at {width} pixels");
            show(&mut browser, view);
            assert_eq!(browser.value(MISFITS), Value::Array(Vec::new()), "{place}");
            // The layouts are those of a phone and of a large screen, the colours the same in both.
            let schemes: &[&str] = match width {
                320 => &["light"],
                1_280 => &["light", "dark"],
                _ => &[],
            };
            for scheme in schemes {
                assert_accessible(&mut browser, scheme, &place);
            }
        }
    }

    // The same with a header that says what is wrong: two relays are lost, and a file is broken.
    let colour = "getComputedStyle(document.querySelector('header')).backgroundColor";
    browser.prefer("light");
    fs::write(cluster.folder().join("keys.json"), "{").unwrap();
    cluster.relays.truncate(1);
    browser.wait_for(
        "document.getElementById('verdict').textContent === 'degraded' && \
         ['cluster: ', 'keys: '].every((part) => [...document.querySelectorAll('#reasons li')]\
         .some((reason) => reason.textContent.startsWith(part)))",
    );
    assert_eq!(browser.value(colour), "rgb(255, 241, 214)", "amber");
    let states = "[...document.querySelectorAll('#members tbody tr')]\
                  .map((row) => row.cells[1].textContent).join()";
    browser.wait_for(&format!("{states} === 'this one,lost,lost'"));
    for (width, height, is_phone) in SCREENS {
        browser.resize(width, height, is_phone);
        show(&mut browser, "overview");
        let place = format!("degraded, at {width} pixels");
        assert_eq!(browser.value(MISFITS), Value::Array(Vec::new()), "{place}");
    }
    for scheme in ["light", "dark"] {
        assert_accessible(&mut browser, scheme, "degraded");
    }
    assert_eq!(browser.complaints(), [] as [String; 0]);
    traffic.stop();
}

/// Axe finds nothing wrong where the system prefers these colours.
fn assert_accessible(browser: &mut Browser, scheme: &str, place: &str) {
    browser.prefer(scheme);
    let found = browser.value(AXE);
    assert_eq!(found["wrong"], Value::Array(Vec::new()), "{place}, {scheme}");
    assert!(found["passes"].as_u64().unwrap() > 10, "{place}: {found}");
}

/// Turns to a view, and waits until it is drawn.
fn show(browser: &mut Browser, view: &str) {
    browser.value(&format!("location.hash = '{view}'; 0"));
    browser.wait_for(&format!("!document.getElementById('{view}').hidden"));
    browser.value("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))");
}

#[test]
fn cards_with_nothing_to_show_are_as_small_as_what_they_say() {
    let relay = super::start(&[]);
    let mut browser = Browser::start();
    browser.resize(1_280, 900, false);
    browser.open(&format!("http://{}/", relay.admin));
    browser.wait_for(LIVE);
    let quiet = |id: &str| format!("document.getElementById('{id}').closest('.card')");
    let is_small =
        |card: &str| format!("{card}.classList.contains('quiet') && {card}.offsetHeight < 90");
    let talkers = quiet("top_talkers");
    let packets = "document.querySelector('#charts .chart')";
    browser.wait_for(&is_small(&talkers));
    browser.wait_for(&is_small(packets));
    // A relay on its own has no view of a cluster, and no card of its members.
    browser.wait_for(&format!("{}.hidden", quiet("members")));
    browser.wait_for("document.querySelector('nav a[href=\"#cluster\"]').hidden");
    let order = format!("getComputedStyle({packets}).order");
    assert_eq!(browser.value(&order), "1");

    let traffic = Traffic::start(&relay, 2, false);

    browser.wait_for(&format!(
        "!{packets}.classList.contains('quiet') && {packets}.offsetHeight > 200"
    ));
    browser.wait_for(&format!("!{talkers}.classList.contains('quiet')"));
    assert_eq!(browser.value(&order), "0");
    let first = traffic::WSS[0];
    browser.wait_for(&format!(
        "[...document.querySelectorAll('#top_talkers a')].some((a) => a.hash === '#peers/{first}')"
    ));
    traffic.stop();
}
