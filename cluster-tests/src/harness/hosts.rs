//! Hosts of their own: network namespaces on one bridge, each with its own loopback. The bridge is in a
//! namespace, too, where no firewall of this machine looks at what it carries.

use std::net::Ipv4Addr;
use std::process::Command;

use nix::unistd::Uid;

/// The namespace of the bridge that joins them, and the bridge.
const SWITCH: &str = "quorate-test-switch";
const BRIDGE: &str = "switch";

/// Network namespaces; deleted when this is dropped. One set exists at a time on a machine, under the
/// lock that clusters hold.
#[derive(Debug)]
pub struct Hosts {
    count: u8,
}

impl Hosts {
    /// Whether this machine lets this process make network namespaces.
    #[must_use]
    pub fn are_possible() -> bool {
        Uid::effective().is_root()
            && Command::new("ip")
                .args(["netns", "list"])
                .output()
                .is_ok_and(|out| out.status.success())
    }

    /// So many hosts, numbered from 1, which reach each other.
    ///
    /// # Panics
    ///
    /// If that fails.
    #[must_use]
    pub fn new(count: u8) -> Self {
        let hosts = Self { count };
        hosts.delete();
        ip(&["netns", "add", SWITCH]);
        ip(&["-n", SWITCH, "link", "add", BRIDGE, "type", "bridge"]);
        ip(&["-n", SWITCH, "link", "set", BRIDGE, "up"]);
        for host in 1..=count {
            let (name, inside, outside) = (name(host), format!("qti{host}"), format!("qto{host}"));
            ip(&["netns", "add", &name]);
            ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside]);
            ip(&["link", "set", &outside, "netns", SWITCH]);
            ip(&["-n", SWITCH, "link", "set", &outside, "master", BRIDGE, "up"]);
            ip(&["link", "set", &inside, "netns", &name]);
            let address = format!("{}/24", address(host));
            ip(&["-n", &name, "address", "add", &address, "dev", &inside]);
            ip(&["-n", &name, "link", "set", &inside, "up"]);
            ip(&["-n", &name, "link", "set", "lo", "up"]);
        }
        hosts
    }

    /// Where the others reach a host.
    #[must_use]
    pub fn address(&self, host: u8) -> Ipv4Addr {
        address(host)
    }

    /// A program on a host.
    #[must_use]
    pub fn command(&self, host: u8, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name(host)]).arg(program);
        command
    }

    fn delete(&self) {
        // What isn't there can't be deleted, which is no error.
        for host in 1..=self.count {
            let _ = Command::new("ip").args(["netns", "delete", &name(host)]).output();
        }
        let _ = Command::new("ip").args(["netns", "delete", SWITCH]).output();
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.delete();
    }
}

fn name(host: u8) -> String {
    format!("quorate-test-{host}")
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 77, host)
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("start ip");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {error}", arguments.join(" "));
}
