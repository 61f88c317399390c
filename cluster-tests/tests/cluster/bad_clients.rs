//! Clients that send nonsense, too much, or nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RedisServer, poll};
use quorate_cluster_tests::resp::{Client, Value};

const REPLY_LIMIT: Duration = Duration::from_secs(5);
/// A well-behaved client's longest wait while others misbehave.
const PATIENCE: Duration = Duration::from_secs(1);

/// Everything a server answers to these bytes, and whether it then closes the connection.
fn exchange(address: SocketAddr, bytes: &[u8]) -> (String, bool) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_millis(700))).expect("set a timeout");
    // The server may close before it has read everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let closed = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(count) => answer.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break true,
            Err(_) => break false,
        }
    };
    (answer.escape_ascii().to_string(), closed)
}

/// Requests that both servers must answer alike, and then close or stay alike.
const MALFORMED: &[&[u8]] = &[
    b"*abc\r\n",
    b"*9999999999999999999\r\n",
    b"*-1\r\nPING\r\n",
    b"*0\r\n*1\r\n$4\r\nPING\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$9999999999999999999\r\n",
    b"*2\r\n$3\r\nGET\r\n*1\r\n",
    b"*1\r\n\r\n",
    b"PING\r\n",
    b"PING\n",
    b"   PING   \r\n",
    b"\r\n\r\nPING\r\n",
    b"SET k \"unbalanced\r\n",
    b"ECHO \"a\\x41\\n\"\r\n",
    b"ECHO 'single \\' quote'\r\n",
    b"ECHO \"a\"b\r\n",
    b"NOSUCH a b\r\n",
    b"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n*1\r\nGET\r\n",
];

#[test]
fn malformed_requests_are_answered_as_redis_does() {
    let cluster = Cluster::start("malformed");
    let primary = cluster.wait_for_primary();
    let redis = RedisServer::start(&cluster.dir().join("redis"), &[]);
    let mut others = cluster.connect(primary);
    let mut differences = Vec::new();
    for request in MALFORMED {
        let expected = exchange(redis.address(), request);
        let found = exchange(cluster.client_address(primary), request);
        if found != expected {
            differences
                .push(format!("{}: redis {expected:?}, here {found:?}", request.escape_ascii()));
        }
        assert_eq!(others.command(&["PING"]).expect("served"), Value::Simple("PONG".into()));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_line_without_an_end_is_cut_off() {
    let cluster = Cluster::start("endless-line");
    let address = cluster.client_address(cluster.wait_for_primary());
    for request in [vec![b'a'; 128 << 10], [b"*1\r\n$".to_vec(), vec![b'1'; 128 << 10]].concat()] {
        let (answer, closed) = exchange(address, &request);
        assert!(answer.starts_with("-ERR Protocol error") && closed, "{answer:?}, {closed}");
    }
}

#[test]
fn oversized_lengths_are_refused_without_being_trusted() {
    let mut cluster = Cluster::start("oversized");
    let primary = cluster.wait_for_primary();
    let address = cluster.client_address(primary);
    let before = resident_bytes(cluster.process(primary).pid());
    // Within what Redis allows, far above what this cluster is configured to take.
    for request in [
        &b"*1048576\r\n$536870912\r\n"[..],
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$400000000\r\n",
        b"*2\r\n$3\r\nGET\r\n$500000000\r\n",
    ] {
        let mut held = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.write_all(request).expect("send");
            held.push(stream);
        }
        let (answer, closed) = exchange(address, request);
        println!("{}: {answer:?}, closed: {closed}", request.escape_ascii());
        let mut client = cluster.connect(primary);
        assert_eq!(client.command(&["SET", "k", "v"]).expect("served"), Value::Simple("OK".into()));
    }
    let grown = resident_bytes(cluster.process(primary).pid()).saturating_sub(before);
    assert!(grown < 64 << 20, "{} MiB more for promises of bytes", grown >> 20);

    let mut client = cluster.connect(primary);
    let too_long = vec![b'v'; (16 << 20) + 1];
    let reply = client.command(&[b"SET".as_slice(), b"k", &too_long]);
    println!("a value of 16 MiB and a byte: {reply:?}");
    let mut client = cluster.connect(primary);
    assert_eq!(client.command(&["GET", "k"]).expect("served"), Value::Bulk(b"v".to_vec()));
    let long_key = "k".repeat((64 << 10) + 1);
    let reply = client.command(&["SET", &long_key, "v"]).expect("a reply");
    assert!(reply.error().is_some(), "a key of 64 KiB and a byte: {reply:?}");
    assert_eq!(client.command(&["PING"]).expect("served"), Value::Simple("PONG".into()));
}

#[test]
fn many_connections_of_garbage_do_not_make_others_wait() {
    let cluster = Cluster::start("garbage");
    let primary = cluster.wait_for_primary();
    let address = cluster.client_address(primary);
    let mut client = Client::connect(address, REPLY_LIMIT).expect("connect");
    let mut held = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut longest = Duration::ZERO;
    for index in 0..400 {
        let mut garbage = vec![0; 1 << (index % 14)];
        for byte in &mut garbage {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *byte = random as u8;
        }
        let mut stream = TcpStream::connect(address).expect("connect");
        // It may be closed while we write: that is the point.
        let _ = stream.write_all(&garbage);
        held.push(stream);
        if index % 8 == 0 {
            let began = Instant::now();
            let reply = client.command(&["SET", "served", &index.to_string()]).expect("served");
            assert_eq!(reply, Value::Simple("OK".into()));
            longest = longest.max(began.elapsed());
        }
    }
    println!("the longest of the writes between took {longest:?}");
    assert!(longest < PATIENCE, "{longest:?}");
}

/// What a process holds in memory, from /proc.
fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("KiB");
    kib << 10
}

/// How many bytes of replies a client leaves unread before it is cut: well above what a socket
/// takes, so that the limit is what cuts it.
const UNREAD_BYTES: u64 = 64 << 20;

#[test]
fn clients_that_read_nothing_are_cut_off_and_nobody_else_notices() {
    let mut cluster = Cluster::prepare("reads-nothing", &ClusterOptions::default());
    for id in cluster.ids() {
        let path = cluster.settings(id).config_file();
        let text = fs::read_to_string(&path).expect("read the configuration");
        let text = text.replace("[client]\n", "[client]\noutput_bytes_max = \"1MiB\"\n");
        fs::write(&path, text).expect("write the configuration");
        cluster.start_node(id);
    }
    let primary = cluster.wait_until_writable();
    let address = cluster.client_address(primary);
    let mut client = cluster.connect(primary);
    let value = vec![b'v'; 256 << 10];
    let set = client.command(&[b"SET".as_slice(), b"large", &value]).expect("a reply");
    assert_eq!(set, Value::Simple("OK".into()));
    let pid = cluster.process(primary).pid();
    let before = resident_bytes(pid);
    let asks = b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n".repeat(UNREAD_BYTES as usize / value.len());
    let mut deaf: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("connect");
            stream.write_all(&asks).expect("send");
            stream
        })
        .collect();
    poll(REPLY_LIMIT, "all of them to be connected", || {
        (clients_connected(&mut client) == deaf.len() + 1).then_some(())
    });
    let began = Instant::now();
    let (mut longest, mut writes, mut most) = (Duration::ZERO, 0, before);
    // What it takes to find that they take nothing, and a busy machine's share.
    let limit = began + Duration::from_secs(20);
    while clients_connected(&mut client) > 1 {
        assert!(Instant::now() < limit, "clients that read nothing are still connected");
        let since = Instant::now();
        let reply = client.command(&["SET", "served", &writes.to_string()]).expect("served");
        assert_eq!(reply, Value::Simple("OK".into()));
        longest = longest.max(since.elapsed());
        writes += 1;
        most = most.max(resident_bytes(pid));
    }
    let grown = most.saturating_sub(before);
    println!(
        "cut off after {:?}; {writes} writes of others, the longest took {longest:?}; {} MiB more \
         memory",
        began.elapsed(),
        grown >> 20
    );
    assert!(longest < PATIENCE, "{longest:?}");
    assert!(grown < 256 << 20, "{} MiB more for what nobody reads", grown >> 20);
    for stream in &mut deaf {
        stream.set_read_timeout(Some(REPLY_LIMIT)).expect("set a timeout");
        let (mut read, mut chunk) = (0, vec![0; 64 << 10]);
        // What the socket holds is still there; then comes the end, in one way or the other.
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            read += count as u64;
        }
        assert!(read < UNREAD_BYTES, "it was answered in full");
    }
}

fn clients_connected(client: &mut Client) -> usize {
    let list = client.command(&["CLIENT", "LIST"]).expect("a reply");
    let text = String::from_utf8_lossy(list.bytes().expect("text")).into_owned();
    text.lines().count()
}
