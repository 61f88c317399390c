//! What a node tells systemd.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT};
use quorate_cluster_tests::http;

/// The next message that isn't a sign of life, and how many of those came before it.
fn next(socket: &UnixDatagram) -> (String, usize) {
    let deadline = Instant::now() + RECOVERY_LIMIT;
    let mut signs = 0;
    loop {
        assert!(Instant::now() < deadline, "only {signs} signs of life within {RECOVERY_LIMIT:?}");
        match message(socket).as_str() {
            "WATCHDOG=1" => signs += 1,
            other => return (other.to_owned(), signs),
        }
    }
}

fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 256];
    let length = socket.recv(&mut bytes).expect("a message in time");
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

#[test]
fn systemd_is_told_of_ready_of_stopping_and_of_life_meanwhile() {
    let mut cluster = Cluster::prepare("notify", &ClusterOptions::default());
    let id = 1;
    let path = cluster.dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(RECOVERY_LIMIT)).expect("a socket");
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().expect("a path of ours")),
        // Half of it is the period.
        ("WATCHDOG_USEC", "100000"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    cluster.settings_mut(id).environment.extend(variables);
    // Alone: it is ready once its own recovery is done, whoever else is missing.
    cluster.start_node(id);
    assert_eq!(next(&socket).0, "READY=1");
    let admin = cluster.settings(id).ports.admin;
    let started = http::get(admin, "/health/startup", Duration::from_secs(5)).expect("it answers");
    assert_eq!(started.status, 200, "{}", started.body);
    for _ in 0..3 {
        assert_eq!(message(&socket), "WATCHDOG=1");
    }
    assert!(cluster.stop(id).success());
    assert_eq!(next(&socket).0, "STOPPING=1");

    // Without a limit there are no signs of life.
    cluster.settings_mut(id).environment.retain(|(name, _)| name != "WATCHDOG_USEC");
    // Signs that came after the stop began.
    socket.set_nonblocking(true).expect("a socket");
    while socket.recv(&mut [0; 256]).is_ok() {}
    socket.set_nonblocking(false).expect("a socket");
    cluster.start_node(id);
    assert_eq!(next(&socket), ("READY=1".to_owned(), 0));
    assert!(cluster.stop(id).success());
    assert_eq!(next(&socket), ("STOPPING=1".to_owned(), 0));
}
