//! The proxy that the environment names, read as curl does.

use std::net::IpAddr;

use super::{InvalidProxy, ProxyError, ProxyUrl};
use crate::Target;

/// What the environment says of the way to a target.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) proxy: Option<ProxyUrl>,
    /// The variable for all programs that names a proxy of another kind.
    pub(super) passed_over: Option<&'static str>,
}

/// The proxy on the way to `target`, by the variables that `variable` returns.
pub(super) fn proxy(
    variable: impl Fn(&'static str) -> Option<String>,
    target: &Target,
) -> Result<Named, ProxyError> {
    let set = |name: &&'static str| variable(name).filter(|text| !text.trim().is_empty());
    // A request's header `Proxy` becomes HTTP_PROXY in a CGI program: curl does not read it.
    let own: &[_] = if target.tls { &["https_proxy", "HTTPS_PROXY"] } else { &["http_proxy"] };
    let exceptions = ["no_proxy", "NO_PROXY"].iter().find_map(set).unwrap_or_default();
    if is_this_machine(&target.host) || excepts(&exceptions, &target.host, target.port) {
        return Ok(Named::default());
    }
    for name in own {
        if let Some(text) = set(name) {
            let url = text.parse().map_err(|reason| ProxyError::Variable { name, reason })?;
            return Ok(Named { proxy: Some(url), passed_over: None });
        }
    }
    let mut passed_over = None;
    for name in ["all_proxy", "ALL_PROXY"] {
        let Some(text) = set(&name) else { continue };
        match text.parse() {
            Ok(url) => return Ok(Named { proxy: Some(url), passed_over }),
            // It is for all programs of the machine, and most of those take SOCKS as well: it was
            // not meant for us.
            Err(InvalidProxy::Scheme) => passed_over = Some(name),
            Err(reason) => return Err(ProxyError::Variable { name, reason }),
        }
    }
    Ok(Named { proxy: None, passed_over })
}

fn is_this_machine(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether a list of exceptions has this host. Its items, between commas or blanks, are `*`, a
/// name (of itself and all below it, with a leading dot or without), an address, or a network
/// such as 10.0.0.0/8; a name or an address may have a port.
fn excepts(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
    let items = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty());
    items.into_iter().any(|item| {
        if item == "*" {
            return true;
        }
        if let Some((network, prefix)) = item.split_once('/') {
            return ip.is_some_and(|ip| is_in(ip, network, prefix));
        }
        let (name, only_port) = without_port(item);
        if only_port.is_some_and(|only| only != port) {
            return false;
        }
        match ip {
            Some(ip) => name.parse().is_ok_and(|item: IpAddr| item.to_canonical() == ip),
            None => is_below(&host, name),
        }
    })
}

/// Takes the port off, and the brackets of an IPv6 address.
fn without_port(item: &str) -> (&str, Option<u16>) {
    if item.parse::<IpAddr>().is_ok() {
        return (item, None);
    }
    let (name, port) = match item.rsplit_once(':') {
        Some((name, port)) => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (item, None),
        },
        None => (item, None),
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    (bare.unwrap_or(name), port)
}

fn is_below(host: &str, name: &str) -> bool {
    let name = name.strip_prefix('*').unwrap_or(name);
    let name = name.trim_matches('.').to_ascii_lowercase();
    let Some(before) = host.strip_suffix(&*name) else { return false };
    !name.is_empty() && (before.is_empty() || before.ends_with('.'))
}

fn is_in(ip: IpAddr, network: &str, prefix: &str) -> bool {
    let (Ok(network), Ok(prefix)) = (network.parse::<IpAddr>(), prefix.parse::<u32>()) else {
        return false;
    };
    let (differs, bits) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (u128::from(ip.to_bits() ^ network.to_bits()), 32),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits() ^ network.to_bits(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    };
    match u32::checked_sub(bits, prefix) {
        Some(rest) => differs.checked_shr(rest).unwrap_or(0) == 0,
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, ProxyError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(set, _)| *set == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        let named = proxy(variable, &Target::parse(url).unwrap())?;
        Ok(named.proxy.map(|url| url.to_string()))
    }

    #[test]
    fn variable_of_the_scheme_comes_first_and_lower_case_before_upper() {
        let all = [
            ("https_proxy", "http://a:1"),
            ("HTTPS_PROXY", "http://b:1"),
            ("http_proxy", "http://c:1"),
            ("HTTP_PROXY", "http://never:1"),
            ("all_proxy", "http://d:1"),
            ("ALL_PROXY", "http://e:1"),
        ];
        for (without, url, expected) in [
            (&[][..], "wss://r.test", "http://a:1"),
            (&["https_proxy"], "wss://r.test", "http://b:1"),
            (&["https_proxy", "HTTPS_PROXY"], "wss://r.test", "http://d:1"),
            (&[], "ws://r.test", "http://c:1"),
            (&["http_proxy"], "ws://r.test", "http://d:1"),
            (&["http_proxy", "all_proxy"], "ws://r.test", "http://e:1"),
        ] {
            let set: Vec<_> =
                all.iter().copied().filter(|(name, _)| !without.contains(name)).collect();
            assert_eq!(chosen(&set, url).unwrap().as_deref(), Some(expected), "{without:?} {url}");
        }
        assert_eq!(chosen(&[], "wss://r.test").unwrap(), None);
        assert_eq!(chosen(&[("HTTP_PROXY", "http://a")], "ws://r.test").unwrap(), None);
        let empty = [("https_proxy", " "), ("ALL_PROXY", "http://e:1")];
        assert_eq!(chosen(&empty, "wss://r.test").unwrap().as_deref(), Some("http://e:1"));
    }

    #[test]
    fn useless_variable_is_named_and_not_shown() {
        for (name, url, expected) in [
            ("HTTPS_PROXY", "socks5://me:secret@s", InvalidProxy::Scheme),
            ("ALL_PROXY", "http://me:secret@a b", InvalidProxy::Form),
        ] {
            let error = chosen(&[(name, url)], "wss://r.test").unwrap_err();
            let text = error.to_string();
            let ProxyError::Variable { name: named, reason } = error else { panic!("{text}") };
            assert_eq!((named, reason), (name, expected));
            assert!(text.contains(name) && !text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn all_proxy_for_socks_made_a_relay_unreachable_that_is_reached_directly() {
        let socks = ("all_proxy", "socks5://me:secret@s:1080");
        for url in ["wss://r.test", "ws://r.test"] {
            assert_eq!(chosen(&[socks], url).unwrap(), None);
            let upper = ("ALL_PROXY", "http://e:1");
            assert_eq!(chosen(&[socks, upper], url).unwrap().as_deref(), Some("http://e:1"));
        }
        let own = ("https_proxy", "http://a:1");
        assert_eq!(chosen(&[own, socks], "wss://r.test").unwrap().as_deref(), Some("http://a:1"));
    }

    #[test]
    fn this_machine_is_reached_without_a_proxy() {
        let set = [("all_proxy", "http://a:1")];
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert_eq!(chosen(&set, &format!("wss://{host}")).unwrap(), None, "{host}");
        }
        assert!(chosen(&set, "wss://localhost.test").unwrap().is_some());
    }

    #[test]
    fn exceptions_are_names_suffixes_addresses_networks_and_ports() {
        for (list, host, excepted) in [
            ("*", "r.test", true),
            ("a.test, r.test", "r.test", true),
            ("a.test r.test", "R.test.", true),
            ("test", "r.test", true),
            (".test", "r.test", true),
            ("*.test", "r.test", true),
            (".r.test", "r.test", true),
            ("r.test.", "x.r.test", true),
            ("r.test", "bar.test", false),
            ("x.r.test", "r.test", false),
            ("r.test:443", "r.test", true),
            ("r.test:8443", "r.test", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1:443", "192.0.2.1", true),
            ("192.0.2.1:8443", "192.0.2.1", false),
            ("192.0.2.0/24", "192.0.2.77", true),
            ("192.0.2.9/24", "192.0.2.77", true),
            ("192.0.2.0/25", "192.0.2.200", false),
            ("0.0.0.0/0", "192.0.2.200", true),
            ("0.0.0.0/33", "192.0.2.200", false),
            ("192.0.2.0/24", "r.test", false),
            ("2.1", "192.0.2.1", false),
            ("2001:db8::1", "2001:db8::1", true),
            ("[2001:db8::1]:443", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:7::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "192.0.2.1", false),
            ("", "r.test", false),
            (", ,.,", "r.test", false),
        ] {
            assert_eq!(excepts(list, host, 443), excepted, "{list:?} {host}");
        }
        let set = [("https_proxy", "http://a"), ("NO_PROXY", "x"), ("no_proxy", "r.test")];
        assert_eq!(chosen(&set, "wss://r.test").unwrap(), None);
    }
}
