//! The server as its clients see it, over real sockets of this machine.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::net::bind::FreeBind;
use crate::udp::open;

/// A plain request: a Binding without attributes, whose transaction is all sevens.
const PLAIN: [u8; 20] = [0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];

fn server(addresses: &[&str]) -> Server {
    let sockets = addresses
        .iter()
        .flat_map(|address| open(address.parse().unwrap(), 1, FreeBind::Off).unwrap());
    let sockets: Vec<_> = sockets.collect();
    Server::start(&sockets, Translators::default()).unwrap()
}

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

/// What the server answers this client.
fn ask(client: &UdpSocket, server: SocketAddr, request: &[u8]) -> Vec<u8> {
    client.send_to(request, server).unwrap();
    let mut buffer = [0; 1_500];
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(from, server);
    buffer[..length].to_vec()
}

/// The address of a successful answer to the plain request.
fn told(answer: &[u8]) -> SocketAddr {
    assert_eq!(answer[..2], [1, 1]);
    assert_eq!(answer[4..20], PLAIN[4..]);
    assert_eq!(answer[20..22], [0, 0x20]);
    let port = u16::from_be_bytes([answer[26], answer[27]]) ^ 0x2112;
    let address = answer[28..].iter().zip(&PLAIN[4..]).map(|(byte, mask)| byte ^ mask);
    let address: Vec<_> = address.collect();
    match *address {
        [a, b, c, d] => ([a, b, c, d], port).into(),
        _ => (<[u8; 16]>::try_from(address).unwrap(), port).into(),
    }
}

fn counted(server: &Server, wanted: Outcome, count: u64) {
    let end = Instant::now() + Duration::from_secs(10);
    while server.answers.outcomes.value(wanted) < count {
        assert!(Instant::now() < end, "{:?}", server.answers.outcomes.iter().collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.answers.outcomes.value(wanted), count);
}

#[test]
fn client_is_told_where_it_comes_from_at_each_address() {
    let server = server(&["127.0.0.1:0", "[::1]:0", "[::]:0"]);
    let addresses: Vec<_> = server.addresses().collect();
    let (ipv4, ipv6) = (client("127.0.0.1:0"), client("[::1]:0"));
    let everywhere = SocketAddr::from(([127, 0, 0, 1], addresses[2].port()));
    for (client, at) in [(&ipv4, addresses[0]), (&ipv6, addresses[1]), (&ipv4, everywhere)] {
        assert_eq!(told(&ask(client, at, &PLAIN)), client.local_addr().unwrap());
    }
    counted(&server, Outcome::Answered, 3);
    server.stop();
}

#[test]
fn what_is_no_request_is_counted_and_nobody_s_to_answer() {
    let server = server(&["127.0.0.1:0"]);
    let address = server.addresses().next().unwrap();
    let client = client("127.0.0.1:0");
    let with = |at: usize, byte: u8| {
        let mut other = PLAIN.to_vec();
        other[at] = byte;
        other
    };
    let attribute = |attribute: &[u8]| {
        let mut longer = [&PLAIN[..], attribute].concat();
        longer[3] = u8::try_from(attribute.len()).unwrap();
        longer
    };
    for (datagram, outcome) in [
        (b"".to_vec(), Outcome::NotStun),
        (with(4, 0), Outcome::NotStun),
        (with(1, 0x11), Outcome::NoRequest),
        (with(0, 1), Outcome::NoRequest),
        (attribute(&[0x80, 0x22, 0, 9]), Outcome::BadAttributes),
        (attribute(&[0x80, 0x28, 0, 4, 0, 0, 0, 0]), Outcome::BadFingerprint),
    ] {
        let before = server.answers.outcomes.value(outcome);
        client.send_to(&datagram, address).unwrap();
        counted(&server, outcome, before + 1);
    }
    // The first answer that comes is that to the first request.
    let unknown = attribute(&[0, 3, 0, 4, 0, 0, 0, 6]);
    assert_eq!(ask(&client, address, &unknown)[..2], [1, 0x11]);
    counted(&server, Outcome::UnknownAttribute, 1);
}

#[test]
fn client_has_so_many_answers_and_others_have_theirs() {
    let server = server(&["127.0.0.1:0"]);
    let address = server.addresses().next().unwrap();
    let answers = Answers { translators: Translators::default(), outcomes: Sharded::default() };
    let mut worker = answers.worker(1);
    let now = Instant::now();
    let judge = |worker: &mut Worker, host: u8, now: Instant| {
        answers.judge(worker, SocketAddr::from(([192, 0, 2, host], 9)), &PLAIN, now)
    };
    let outcomes: Vec<_> = (0..1_500).map(|_| judge(&mut worker, 1, now)).collect();
    let answered = outcomes.iter().filter(|outcome| outcome.is_answer()).count();
    assert_eq!(answered, 1_000);
    assert!(judge(&mut worker, 2, now).is_answer());
    assert!(judge(&mut worker, 1, now + Duration::from_secs(1)).is_answer());
    for from in ["0.0.0.0:9", "192.0.2.1:0", "224.0.0.1:9", "255.255.255.255:9", "[ff02::1]:9"] {
        let outcome = answers.judge(&mut worker, from.parse().unwrap(), &PLAIN, now);
        assert!(matches!(outcome, Outcome::BadSource), "{from}");
    }
    drop(server);
    assert_ne!(address.port(), 0);
}
