//! The demo's transfer in all four cells, with and without loss.

use std::time::Duration;

use beacon_relay::cli::demo::{self, Addresses, Nodes, Row, carry};

use super::PATIENCE;
use super::relay::Relay;

fn addresses(relay: &Relay) -> Addresses {
    let admin = "127.0.0.1:9464".parse().unwrap();
    Addresses {
        wss_url: relay.url.clone(),
        udp: relay.udp,
        admin,
        netbird: None,
        bus: None,
        topics: None,
        hub: None,
    }
}

/// Carries 1,000 packets and a bit in each cell, through a relay that drops some.
async fn rows(drop_every: u32, deadline: Duration) -> Vec<Row> {
    let relay = Relay::start(drop_every).await;
    let nodes = Nodes::generate().unwrap();
    let file: Vec<u8> = (0..300_025_u32).flat_map(u32::to_be_bytes).collect();
    let mut rows = Vec::new();
    carry(&addresses(&relay), &nodes, &file, deadline, |row| rows.push(row)).await;
    let cells: Vec<_> = rows.iter().map(|row| row.cell.to_string()).collect();
    assert_eq!(cells, ["WSS→WSS", "WSS→UDP", "UDP→WSS", "UDP→UDP"]);
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_arrives_whole_in_all_four_cells() {
    for row in rows(u32::MAX, PATIENCE).await {
        assert_eq!(row.verdict, Ok(()), "{row}");
        assert_eq!(row.bytes, 1_200_100);
        assert_eq!(row.packets, 1_001 + row.lost, "{row}");
        assert!(row.latency(50).unwrap() <= row.latency(99).unwrap(), "{row}");
        let line = row.to_string();
        assert!(line.starts_with(&row.cell.to_string()) && line.ends_with("  ok"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn file_arrives_whole_although_every_tenth_packet_is_dropped() {
    for row in rows(10, 3 * PATIENCE).await {
        assert_eq!(row.verdict, Ok(()), "{row}");
        // Of 100 packets 10 are dropped on the way there and 9 of the 90 acknowledgements.
        assert!((10.0..30.0).contains(&row.loss()), "{row}");
        assert!(row.to_string().ends_with("  ok"), "{row}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cell_that_takes_too_long_says_how_far_it_came() {
    for row in rows(1, Duration::from_millis(300)).await {
        let line = row.to_string();
        assert!(line.contains("0 of 1001 packets arrived"), "{line}");
        assert!(!line.ends_with("ok"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_prints_a_row_for_each_cell_and_where_to_look() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, [7; 5_000]).unwrap();
    let relay = Relay::start(u32::MAX).await;
    let addresses = addresses(&relay);
    let args = demo::Args { file: Some(path.clone()), once: true };
    let nodes = Nodes::generate().unwrap();

    let mut out = Vec::new();
    assert!(demo::show(&args, &addresses, &nodes, &mut out).await.unwrap());
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], Row::HEADER);
    let cells = ["WSS→WSS", "WSS→UDP", "UDP→WSS", "UDP→UDP"];
    for (line, cell) in lines[1..].iter().zip(cells) {
        assert!(line.starts_with(cell) && line.ends_with(" ok"), "{line}");
    }
    assert!(out.contains("http://127.0.0.1:9464/metrics"), "{out}");

    for (content, reason) in [(&b""[..], "is empty"), (&vec![7; (64 << 20) + 1], "64 MiB")] {
        std::fs::write(&path, content).unwrap();
        let error = demo::show(&args, &addresses, &nodes, &mut Vec::new()).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}
