//! A kernel that refuses all socket options that the relay works without, as sandboxes do.
//!
//! A seccomp filter is that kernel: it lets the relay set the family and the sharing of its
//! sockets, and refuses the rest.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use libc::{sock_filter, sock_fprog};

use crate::cells::assert_balance;
use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode};

// What a step of a filter does (linux/bpf_common.h): load a word, jump if equal, return.
const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

// Where `seccomp_data` has the number of the call and its arguments' lower halves.
const NUMBER: u32 = 0;
const LEVEL: u32 = 16 + 8;
const OPTION: u32 = 16 + 2 * 8;

const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOPROTOOPT as u32;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn step(code: u32, k: u32, jump_if: u8, jump_else: u8) -> sock_filter {
    sock_filter { code: code.try_into().unwrap(), jt: jump_if, jf: jump_else, k }
}

fn equal(value: i64, jump_if: u8, jump_else: u8) -> sock_filter {
    step(JUMP, value.try_into().unwrap(), jump_if, jump_else)
}

/// Refuses buffers, drop counters, and all that is particular to TCP and IP.
fn filter() -> [sock_filter; 13] {
    [
        step(LOAD, NUMBER, 0, 0),
        equal(libc::SYS_setsockopt, 0, 10),
        step(LOAD, LEVEL, 0, 0),
        equal(libc::IPPROTO_TCP.into(), 7, 0),
        equal(libc::IPPROTO_IP.into(), 6, 0),
        equal(libc::IPPROTO_IPV6.into(), 5, 0),
        equal(libc::SOL_SOCKET.into(), 0, 5),
        step(LOAD, OPTION, 0, 0),
        equal(libc::SO_RXQ_OVFL.into(), 2, 0),
        equal(libc::SO_RCVBUF.into(), 1, 0),
        equal(libc::SO_SNDBUF.into(), 0, 1),
        step(RETURN, REFUSE, 0, 0),
        step(RETURN, ALLOW, 0, 0),
    ]
}

fn refuse_options() -> io::Result<()> {
    let mut steps = filter();
    let program = sock_fprog { len: steps.len().try_into().unwrap(), filter: steps.as_mut_ptr() };
    // SAFETY: both calls only read their arguments, which live here.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program),
        ]
    };
    if results == [0, 0] { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[test]
fn refused_socket_options_are_warnings_and_packets_pass() {
    let node = Node::new(11);
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(refuse_options) };

    let relay = Relay::with_nodes_by(command, &[&node], &[]);

    let mut wss = Peer::log_in(relay.wss, &node);
    let udp = UdpNode::register(relay.udp, 21);
    udp.relay(11, b"to a session");
    assert_eq!(wss.delivery(), (21, b"to a session".to_vec()));
    wss.relay(11, 21, b"to an endpoint");
    assert_eq!(udp.delivery(), (11, b"to an endpoint".to_vec()));
    for option in ["SO_RXQ_OVFL", "MTU_DISCOVER", "TCP_NODELAY", "TCP_NOTSENT_LOWAT", "SO_RCVBUF"] {
        let line = relay.wait_for_line(option);
        assert!(line.contains("WARN"), "{line}");
    }
    assert_balance(&relay);
}
