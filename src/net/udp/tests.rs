//! Both sockets do the same: batches, sizes, source addresses, errors.

use super::super::calls::{Call, made_here};
use super::*;

fn sockets(address: &str) -> Vec<Box<dyn Datagrams>> {
    let open = || open(address.parse().unwrap()).unwrap();
    vec![
        Box::new(PortableSocket::new(open()).unwrap()),
        #[cfg(target_os = "linux")]
        Box::new(BatchSocket::new(open()).unwrap()),
    ]
}

fn receive(socket: &dyn Datagrams, count: usize) -> Vec<(SocketAddr, Option<IpAddr>, Vec<u8>)> {
    let mut received = Received::new();
    let mut found = Vec::new();
    for _ in 0..50 {
        socket.receive(&mut received).unwrap();
        found.extend(received.iter().map(|(d, bytes)| (d.from, d.to, bytes.to_vec())));
        if found.len() >= count {
            break;
        }
    }
    assert_eq!(found.len(), count);
    found
}

fn loopback(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

#[test]
fn runs_arrive_packet_by_packet_in_order() {
    for sender in sockets("[::]:0") {
        for receiver in sockets("[::]:0") {
            let bytes: Vec<u8> = [[0; 1_000], [1; 1_000], [2; 1_000]].concat()[..2_500].to_vec();
            let to = loopback(receiver.address());
            let run = Run { to, from: None, bytes: &bytes, segment: 1_000 };
            let small = Run { to, from: None, bytes: b"last", segment: 4 };
            let empty = Run { to, from: None, bytes: b"", segment: 0 };
            let mut packets = [0; 3];
            sender.send(&[run, small, empty], &mut |index, count, result| {
                assert_eq!(result, Ok(()));
                packets[index] += count;
            });
            assert_eq!(packets, [3, 1, 1]);
            let found = receive(&*receiver, 5);
            let lengths: Vec<_> = found.iter().map(|(.., bytes)| bytes.len()).collect();
            assert_eq!(lengths, [1_000, 1_000, 500, 4, 0]);
            assert_eq!(found[2].2[0], 2);
            assert!(found.iter().all(|(from, ..)| *from == loopback(sender.address())));
        }
    }
}

#[test]
fn largest_datagram_passes_and_a_larger_one_is_refused_alone() {
    for sender in sockets("127.0.0.1:0") {
        let receiver = &sockets("127.0.0.1:0")[0];
        let bytes = vec![7; MAX_RUN + 1];
        let to = receiver.address();
        let run = |length: usize| Run { to, from: None, bytes: &bytes[..length], segment: length };
        let mut results = Vec::new();
        let runs = [run(MAX_RUN + 1), run(MAX_RUN), run(1)];
        sender.send(&runs, &mut |index, _, result| results.push((index, result.is_ok())));
        assert_eq!(results, [(0, false), (1, true), (2, true)]);
        let found = receive(&**receiver, 2);
        assert_eq!(found[0].2.len(), MAX_RUN);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn reply_leaves_from_the_address_that_was_asked() {
    for (bind, asked) in [("[::]:0", "127.0.0.5"), ("0.0.0.0:0", "127.0.0.6"), ("[::]:0", "::1")] {
        let socket = BatchSocket::new(open(bind.parse().unwrap()).unwrap()).unwrap();
        let asked: IpAddr = asked.parse().unwrap();
        let client = std::net::UdpSocket::bind(match asked {
            IpAddr::V4(_) => "127.0.0.1:0",
            IpAddr::V6(_) => "[::1]:0",
        })
        .unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        client.send_to(b"?", (asked, socket.address().port())).unwrap();
        let (from, to, _) = receive(&socket, 1).remove(0);
        assert_eq!(to, Some(asked));
        let reply = vec![1; 2_000];
        let run = Run { to: from, from: to, bytes: &reply, segment: 1_000 };
        socket.send(&[run], &mut |_, count, result| assert_eq!((count, result), (2, Ok(()))));
        for _ in 0..2 {
            let mut buffer = [0; 2_000];
            let (length, source) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((length, source.ip()), (1_000, asked));
        }
    }
}

/// The run of each packet that was sent, and what became of it.
#[cfg(target_os = "linux")]
type Sent = Vec<(usize, Result<(), SendError>)>;

/// What becomes of each packet, and how many calls it took.
#[cfg(target_os = "linux")]
fn send(socket: &BatchSocket, runs: &[Run<'_>]) -> (Sent, u64) {
    let before = made_here(Call::Send);
    let mut results = Vec::new();
    socket.send(runs, &mut |index, packets, result| {
        results.extend(std::iter::repeat_n((index, result), packets));
    });
    (results, made_here(Call::Send) - before)
}

#[test]
#[cfg(target_os = "linux")]
fn refused_segmentation_is_not_tried_again_for_every_run() {
    let socket = open("127.0.0.1:0".parse().unwrap()).unwrap();
    // Without checksums of its own, a socket gets no segmentation.
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let sender = BatchSocket::new(socket).unwrap();
    let receiver = &sockets("127.0.0.1:0")[0];
    let bytes = [7; 2_500];
    let run = Run { to: receiver.address(), from: None, bytes: &bytes, segment: 1_000 };
    let passed = [(0, Ok(())), (0, Ok(())), (0, Ok(())), (1, Ok(())), (1, Ok(())), (1, Ok(()))];

    assert_eq!(send(&sender, &[run, run]), (passed.to_vec(), 2));
    assert_eq!(send(&sender, &[run, run]), (passed.to_vec(), 1));

    let found = receive(&**receiver, 12);
    let lengths: Vec<_> = found.iter().map(|(.., bytes)| bytes.len()).collect();
    assert_eq!(lengths, [1_000, 1_000, 500].repeat(4));
}

/// A socket on a machine with these addresses, as far as it knows.
#[cfg(target_os = "linux")]
fn knowing(bind: &str, addresses: &[&str]) -> BatchSocket {
    let socket = BatchSocket::new(open(bind.parse().unwrap()).unwrap()).unwrap();
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    socket.use_local(&Arc::new(LocalAddresses::of(addresses, std::time::Instant::now())));
    socket
}

#[test]
#[cfg(target_os = "linux")]
fn packets_from_an_address_that_is_gone_leave_from_another() {
    for (bind, gone) in
        [("[::]:0", "192.0.2.99"), ("0.0.0.0:0", "192.0.2.99"), ("[::]:0", "2001:db8::99")]
    {
        // The list may be older than the loss, or not have been read.
        let unknowing = BatchSocket::new(open(bind.parse().unwrap()).unwrap()).unwrap();
        for sender in [knowing(bind, &["192.0.2.1"]), knowing(bind, &[gone]), unknowing] {
            let from: IpAddr = gone.parse().unwrap();
            let own = if from.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
            let receiver = &sockets(own)[0];
            let to = receiver.address();
            let single = Run { to, from: Some(from), bytes: &[1; 700], segment: 700 };
            let long = Run { to, from: Some(from), bytes: &[2; 2_500], segment: 1_000 };
            let passed = [(0, Ok(())), (1, Ok(())), (1, Ok(())), (1, Ok(()))];

            let (results, calls) = send(&sender, &[single, long]);
            assert_eq!((results, calls), (passed.to_vec(), 4), "{bind} {gone}");
            assert_eq!(send(&sender, &[single, long]).0, passed, "{bind} {gone}");

            let found = receive(&**receiver, 8);
            assert!(found.iter().all(|(source, ..)| source.ip() == to.ip()));
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn refused_segments_leave_from_their_own_address() {
    let socket = open("0.0.0.0:0".parse().unwrap()).unwrap();
    sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    let sender = BatchSocket::new(socket).unwrap();
    let receiver = &sockets("127.0.0.1:0")[0];
    let asked = IpAddr::from([127, 0, 0, 5]);
    let run = Run { to: receiver.address(), from: Some(asked), bytes: &[7; 2_500], segment: 1_000 };

    let (results, _) = send(&sender, &[run]);

    assert_eq!(results, [(0, Ok(())); 3]);
    assert!(receive(&**receiver, 3).iter().all(|(source, ..)| source.ip() == asked));
}

#[test]
#[cfg(target_os = "linux")]
fn full_send_buffer_is_asked_once_for_all_that_is_left() {
    // A stream is a socket whose buffer a test can fill: it takes the same calls.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let _silent_reader = listener.accept().unwrap();
    let sender = BatchSocket::new(stream.into()).unwrap();
    let bytes = vec![7; 1_000_000];
    let run = Run { to: sender.address(), from: None, bytes: &bytes, segment: bytes.len() };

    let (results, calls) = send(&sender, &[run; 150]);
    let full = results.iter().filter(|(_, result)| *result == Err(SendError::Full)).count();
    assert_eq!(results.len(), 150);
    assert!((65..150).contains(&full), "{full}");
    assert!(calls <= 3, "{calls}");

    let (results, calls) = send(&sender, &[run; 150]);
    let expected: Vec<_> = (0..150).map(|index| (index, Err(SendError::Full))).collect();
    assert_eq!((results, calls), (expected, 1));
}

#[test]
#[cfg(target_os = "linux")]
fn batch_smaller_than_a_call_takes_is_filled_no_further() {
    let receiver = &sockets("127.0.0.1:0")[1];
    let sender = &sockets("127.0.0.1:0")[0];
    let mut received = Received { buffer: vec![0; 3 * SLOT], ..Received::new() };
    let run = Run { to: receiver.address(), from: None, bytes: b"abcde", segment: 1 };
    sender.send(&[run], &mut |_, _, result| assert_eq!(result, Ok(())));

    let mut found = Vec::new();
    while found.len() < 5 {
        receiver.receive(&mut received).unwrap();
        assert!(received.iter().count() <= 3);
        found.extend(received.iter().map(|(_, bytes)| bytes.to_vec()));
    }

    assert_eq!(found.concat(), b"abcde");
}

#[test]
fn receive_gives_up_after_a_while_without_a_datagram() {
    for socket in sockets("127.0.0.1:0") {
        let mut received = Received::new();
        socket.receive(&mut received).unwrap();
        assert_eq!(received.iter().count(), 0);
    }
}

#[test]
fn buffers_are_as_large_as_the_kernel_allows() {
    let socket = open("127.0.0.1:0".parse().unwrap()).unwrap();
    let (receive, send) = buffer_sizes(&socket).unwrap();
    assert!(receive > 100_000 && send > 100_000, "{receive} {send}");
}
