//! Relays in network namespaces of their own, on one bridge, so that the way between any two
//! can be cut while everybody else still reaches both.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::veth::{free_network, ip};

/// A bridge with namespaces on it; all go when this is dropped.
pub(crate) struct Network {
    name: String,
    network: u32,
    hosts: u32,
}

impl Network {
    /// Makes so many namespaces.
    pub(crate) fn new(hosts: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (number, process) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let name = format!("bc{process}n{number}");
        let network = free_network(Ipv4Addr::new(198, 19, 0, 0), 32, process * 8 + number);
        let made = Self { name, network, hosts };
        ip(&format!("link add {} type bridge", made.name));
        ip(&format!("address add {}/27 dev {}", made.address(29), made.name));
        ip(&format!("link set {} up", made.name));
        for host in 0..hosts {
            let (namespace, end) = (made.namespace(host), format!("{}p{host}", made.name));
            ip(&format!("netns add {namespace}"));
            ip(&format!("link add {end} type veth peer name eth0 netns {namespace}"));
            ip(&format!("link set {end} master {} up", made.name));
            ip(&format!("-n {namespace} address add {}/27 dev eth0", made.address(host)));
            ip(&format!("-n {namespace} link set eth0 up"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        made
    }

    /// The address of a host; ours is the last of the network, that of host 29.
    pub(crate) fn address(&self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + host + 1)
    }

    pub(crate) fn namespace(&self, host: u32) -> String {
        format!("{}-{host}", self.name)
    }

    /// A command that runs a program on a host.
    pub(crate) fn run_on(&self, host: u32, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host), program]);
        command
    }

    /// Cuts the way between two hosts: what either sends to the other is lost.
    pub(crate) fn cut(&self, one: u32, other: u32) {
        self.route("add", one, other);
    }

    /// Heals the way between two hosts.
    pub(crate) fn heal(&self, one: u32, other: u32) {
        self.route("delete", one, other);
    }

    fn route(&self, what: &str, one: u32, other: u32) {
        for (from, to) in [(one, other), (other, one)] {
            let (namespace, to) = (self.namespace(from), self.address(to));
            ip(&format!("-n {namespace} route {what} blackhole {to}/32"));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            // The links go with the namespaces that have their other ends.
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(host)]).status();
        }
        let _ = Command::new("ip").args(["link", "delete", &self.name]).status();
    }
}
