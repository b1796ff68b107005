//! Who a client is, behind proxies (SPEC §3.4).

use std::net::{IpAddr, SocketAddr};

use hyper::HeaderMap;

use crate::config::IpNet;

/// The header that proxies name the client in.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Those that proxies name it in together, where there is not the other.
const REAL: [&str; 2] = ["x-real-ip", "x-real-port"];

/// A client's address, as far as it can be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Client {
    /// The address; the port is 0 where only a proxy knows it.
    pub(super) address: SocketAddr,
    /// A trusted proxy passed the request on without saying for whom.
    pub(super) unnamed: bool,
}

/// Finds the client of a request that came from `remote`: the rightmost forwarded address
/// that is no trusted proxy, believed only if `remote` is one. Without any, it is the address in
/// X-Real-Ip and X-Real-Port, if both are there once.
pub(super) fn find(remote: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let is_proxy = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
    let direct = Client { address: crate::net::udp::canonical(remote), unnamed: false };
    if !is_proxy(direct.address.ip()) {
        return direct;
    }
    // All lines are one list. As bytes: what a client has written into its left end must not
    // make the right end unreadable.
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut nearest = None;
    for hop in hops {
        match Hop::parse(hop.trim_ascii()) {
            Hop::Here => {}
            Hop::At(address) => {
                nearest = Some(address);
                if !is_proxy(address.ip()) {
                    break;
                }
            }
            // What stands to the left of it may be the client's own words.
            Hop::Unknown => break,
        }
    }
    match nearest.or_else(|| real(headers)) {
        Some(address) => Client { address, unnamed: false },
        None => Client { unnamed: true, ..direct },
    }
}

/// The address in the headers that name it without a list, where there is no list.
fn real(headers: &HeaderMap) -> Option<SocketAddr> {
    if headers.contains_key(FORWARDED_FOR) {
        return None;
    }
    let [ip, port] = REAL.map(|name| {
        let mut values = headers.get_all(name).iter();
        // Of two, one may be the client's own.
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    });
    let ip: IpAddr = ip?.trim().parse().ok()?;
    Some(SocketAddr::new(ip.to_canonical(), port?.trim().parse().ok()?))
}

/// Whom a proxy has had a request from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hop {
    /// Another proxy of this machine, or nobody: nginx writes `unix:` for a Unix socket, and some
    /// write nothing.
    Here,
    /// Whoever is there.
    At(SocketAddr),
    /// Somebody who is not to be known (`unknown`), or cannot be read.
    Unknown,
}

impl Hop {
    fn parse(text: &[u8]) -> Self {
        if text.is_empty() || text.starts_with(b"unix:") {
            return Self::Here;
        }
        let text = std::str::from_utf8(text).ok();
        text.and_then(parse).map_or(Self::Unknown, Self::At)
    }
}

/// An address with or without a port, as proxies write them.
fn parse(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip.to_canonical(), 0));
    ip.or_else(|_| text.parse().map(crate::net::udp::canonical)).ok()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn client(remote: &str, forwarded: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let trusted = ["127.0.0.0/8", "10.0.0.0/8", "::1"].map(|text| text.parse().unwrap());
        let client = find(remote.parse().unwrap(), &headers, &trusted);
        (client.address.to_string(), client.unnamed)
    }

    #[test]
    fn spec_3_4_only_a_trusted_proxy_is_believed() {
        let spoofed = &["203.0.113.9"];
        assert_eq!(client("198.51.100.1:5", spoofed), ("198.51.100.1:5".to_owned(), false));
        assert_eq!(client("127.0.0.1:5", spoofed), ("203.0.113.9:0".to_owned(), false));
        assert_eq!(client("[::ffff:127.0.0.1]:5", spoofed).0, "203.0.113.9:0");
    }

    #[test]
    fn spec_3_4_rightmost_address_that_is_no_proxy_counts() {
        let cases: [(&[&str], &str); 7] = [
            (&["1.1.1.1, 203.0.113.9"], "203.0.113.9:0"),
            (&["1.1.1.1, 203.0.113.9, 10.1.1.1"], "203.0.113.9:0"),
            (&["1.1.1.1", "203.0.113.9 , 10.1.1.1"], "203.0.113.9:0"),
            (&["203.0.113.9:4711"], "203.0.113.9:4711"),
            (&["[2001:db8::1]:4711"], "[2001:db8::1]:4711"),
            (&["[2001:db8::1]"], "[2001:db8::1]:0"),
            (&["10.2.2.2, 10.1.1.1"], "10.2.2.2:0"),
        ];
        for (forwarded, address) in cases {
            assert_eq!(client("127.0.0.1:5", forwarded), (address.to_owned(), false));
        }
    }

    #[test]
    fn address_without_a_list_counts_where_there_is_no_list_and_both_parts_are_there_once() {
        let client = |remote: &str, headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().unwrap());
            }
            let trusted = ["127.0.0.0/8".parse().unwrap()];
            let client = find(remote.parse().unwrap(), &map, &trusted);
            (client.address.to_string(), client.unnamed)
        };
        let ip = ("x-real-ip", "203.0.113.9");
        let port = ("x-real-port", "4711");
        assert_eq!(client("127.0.0.1:5", &[ip, port]), ("203.0.113.9:4711".to_owned(), false));
        assert_eq!(client("198.51.100.1:5", &[ip, port]).0, "198.51.100.1:5");
        let list = ("x-forwarded-for", "192.0.2.7");
        assert_eq!(client("127.0.0.1:5", &[ip, port, list]).0, "192.0.2.7:0");
        let unnamed = ("127.0.0.1:5".to_owned(), true);
        for headers in [
            &[ip][..],
            &[port],
            &[ip, port, ip],
            &[ip, port, ("x-forwarded-for", "unknown")],
            &[("x-real-ip", "not-an-ip"), port],
            &[ip, ("x-real-port", "99999")],
        ] {
            assert_eq!(client("127.0.0.1:5", headers), unnamed, "{headers:?}");
        }
    }

    #[test]
    fn proxy_that_names_nobody_is_noticed() {
        assert_eq!(client("127.0.0.1:5", &[]), ("127.0.0.1:5".to_owned(), true));
        assert!(client("127.0.0.1:5", &["1.1.1.1, garbage"]).1);
        assert_eq!(client("127.0.0.1:5", &["garbage, 10.1.1.1"]).0, "10.1.1.1:0");
    }

    #[test]
    fn spec_3_4_hop_over_a_unix_socket_and_an_empty_element_hide_no_client() {
        let cases: [&[&str]; 8] = [
            &["203.0.113.9, unix:"],
            &["1.1.1.1, 203.0.113.9, unix:, 10.1.1.1"],
            &["203.0.113.9,"],
            &["203.0.113.9, ,"],
            &["203.0.113.9", ""],
            &["203.0.113.9", "unix:"],
            &["203.0.113.9", "unix:/run/front.sock , 127.0.0.1"],
            &["unix:, 203.0.113.9"],
        ];
        for forwarded in cases {
            let (address, unnamed) = client("127.0.0.1:5", forwarded);
            assert_eq!((address.as_str(), unnamed), ("203.0.113.9:0", false), "{forwarded:?}");
        }
        assert!(client("127.0.0.1:5", &["unix:"]).1);
        assert!(client("127.0.0.1:5", &[""]).1);
    }

    #[test]
    fn client_gains_nothing_by_what_it_writes_into_the_header_itself() {
        // The proxy has added the last one. What is unreadable to its left is not looked at.
        let written = [&b"unix:"[..], b"", b",,", b"198.51.100.7", b"garbage", b"\xff\xfe", b"\""];
        for bytes in written {
            let line = [bytes, b", 203.0.113.9"].concat();
            let mut headers = HeaderMap::new();
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(&line).unwrap());
            let trusted = ["127.0.0.0/8".parse().unwrap()];
            let client = find("127.0.0.1:5".parse().unwrap(), &headers, &trusted);
            assert_eq!(client.address.to_string(), "203.0.113.9:0", "{line:?}");
        }
        // A proxy that does not say whom it serves: its client could have written the rest.
        for hidden in ["unknown", "_hidden", "203.0.113.9:99999", "fe80::1%eth0"] {
            assert!(client("127.0.0.1:5", &["198.51.100.7", hidden]).1, "{hidden}");
        }
    }
}
