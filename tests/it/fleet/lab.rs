//! A hub and hosts around it, each in a network namespace of its own. The hub forwards nothing.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::veth::ip;

/// Where the hub serves. All of the lab lies in namespaces, so that these addresses are free.
pub(super) const HUB: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// The hub's name in every host's `/etc/hosts`.
pub(super) const HUB_NAME: &str = "relay.test";

/// The namespaces of one test; all go when this is dropped.
pub(super) struct Lab {
    hub: String,
    hosts: AtomicU32,
}

/// A namespace with one link, to the hub.
pub(super) struct Host {
    namespace: String,
    /// Its address.
    pub(super) address: Ipv4Addr,
}

impl Lab {
    /// Runs a test whose thread, with all that it starts, is in the hub's namespace.
    pub(super) fn run(test: impl FnOnce(&Self) + Send) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hub = format!("fleet{}-{number}", std::process::id());
        let lab = Self { hub, hosts: AtomicU32::new(0) };
        ip(&format!("netns add {}", lab.hub));
        ip(&format!("-n {} link set lo up", lab.hub));
        ip(&format!("-n {} address add {HUB}/32 dev lo", lab.hub));
        // A thread of its own: one that has moved into a namespace is of no use to other tests.
        let ended = thread::scope(|scope| {
            let body = || {
                enter(&lab.hub);
                // A new namespace inherits this from the machine.
                fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
                test(&lab);
            };
            scope.spawn(body).join()
        });
        if let Err(panicked) = ended {
            panic::resume_unwind(panicked);
        }
    }

    /// Another host.
    pub(super) fn host(&self) -> Host {
        let number = self.hosts.fetch_add(1, Ordering::Relaxed) + 1;
        let third = u8::try_from(number).unwrap();
        let gateway = Ipv4Addr::new(198, 18, third, 1);
        let namespace = format!("{}-{number}", self.hub);
        let host = Host { namespace, address: Ipv4Addr::new(198, 18, third, 2) };
        let Host { namespace: name, address } = &host;
        let hub = &self.hub;
        ip(&format!("netns add {name}"));
        ip(&format!("-n {hub} link add h{number} type veth peer name eth0 netns {name}"));
        ip(&format!("-n {hub} address add {gateway}/30 dev h{number}"));
        ip(&format!("-n {hub} link set h{number} up"));
        ip(&format!("-n {name} address add {address}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        ip(&format!("-n {name} link set lo up"));
        // Packets for other hosts leave, and the hub drops them, as a NAT would.
        ip(&format!("-n {name} route add 198.18.0.0/16 via {gateway}"));
        let etc = host.etc();
        fs::create_dir_all(&etc).unwrap();
        fs::write(etc.join("hosts"), format!("127.0.0.1 localhost\n{HUB} {HUB_NAME}\n")).unwrap();
        // Refuses at once, where the machine's own name server would be waited for.
        fs::write(etc.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        host
    }
}

/// Moves this thread into a namespace; what it starts from here on is there as well.
fn enter(namespace: &str) {
    let file = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

impl Drop for Lab {
    fn drop(&mut self) {
        // What is left of a failed test goes with the namespace.
        let _ = Command::new("ip").args(["netns", "delete", &self.hub]).status();
    }
}

impl Host {
    /// A command of this host, with an environment of its own.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// A UDP socket of this host.
    pub(super) fn udp_socket(&self) -> UdpSocket {
        let bind = || {
            enter(&self.namespace);
            UdpSocket::bind((self.address, 0)).unwrap()
        };
        thread::scope(|scope| scope.spawn(bind).join()).unwrap()
    }

    /// What `ip netns exec` lays over /etc.
    fn etc(&self) -> PathBuf {
        PathBuf::from("/etc/netns").join(&self.namespace)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
        let _ = fs::remove_dir_all(self.etc());
    }
}
