//! Nodes whose logs hold something else than the others', with every checksum right.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use quorate_cluster_tests::harness::{Cluster, ClusterOptions, RECOVERY_LIMIT, Role, poll};
use quorate_cluster_tests::http;
use quorate_cluster_tests::resp::Value;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};
use quorate_protocol::record::{
    Frame, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentTrailer, SyncMark,
};
use quorate_protocol::types::{Chain, Seq};

use crate::common::{metric, settle, wait_for_writes};

const EXTRA: &str = "[health]\nchain_check_period = \"1s\"\n";

/// Longer than any client's value is by chance.
const TRUTH: &[u8] = b"this is what the client wrote";
const LIE: &[u8] = b"this is what the client hated";

fn start(name: &str) -> Cluster {
    let options = ClusterOptions { extra: EXTRA, ..ClusterOptions::default() };
    let cluster = Cluster::start_with(name, &options);
    let mut client = cluster.connect(cluster.wait_until_writable());
    let reply = client.command(&[b"SET".as_slice(), b"k", TRUTH]).expect("a reply");
    assert_eq!(reply, Value::Simple("OK".into()));
    // What a stop then flushes.
    cluster.wait_until_equal();
    cluster
}

/// Exchanges the value in a stopped node's journal and makes every checksum and chain right again.
fn forge(data_dir: &Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(data_dir.join("journal"))
        .expect("the journal's folder")
        .map(|file| file.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "qj"))
        .collect();
    files.sort();
    let mut log = Forged { chains: HashMap::new(), last: None, lies: 0 };
    for path in files {
        let mut bytes = fs::read(&path).expect("readable");
        log.rewrite(&mut bytes);
        fs::write(&path, bytes).expect("writable");
    }
    assert_eq!(log.lies, 1, "the journal holds the value once");
}

/// A batch in an entry: length of its body, number of commands, CRC32C of the body; then the body.
fn make_batches_right(mut payload: &mut [u8]) {
    const HEADER: usize = 12;
    while payload.len() >= HEADER {
        let (head, rest) = payload.split_at_mut(HEADER);
        let length = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
        let (body, others) = rest.split_at_mut(length);
        head[8..].copy_from_slice(&crc32c::crc32c(body).to_le_bytes());
        payload = others;
    }
}

struct Forged {
    /// The new chain at each position.
    chains: HashMap<Seq, Chain>,
    last: Option<Chain>,
    lies: usize,
}

impl Forged {
    fn rewrite(&mut self, bytes: &mut [u8]) {
        let mut header = SegmentHeader::decode(bytes).expect("a segment");
        let first = self.last.unwrap_or(header.preceding_chain);
        header.preceding_chain = first;
        self.chains.insert(header.preceding.seq, first);
        bytes[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
        let (mut chain, mut at) = (first, SEGMENT_HEADER_BYTES);
        while let Some(head) = bytes[at..].first_chunk::<RECORD_HEADER_BYTES>() {
            let end = at + RECORD_HEADER_BYTES;
            let encoded = match Frame::decode(head) {
                Ok(Frame::Entry(mut record)) => {
                    let payload = &mut bytes[end..end + record.payload_len as usize];
                    let found = payload.windows(TRUTH.len()).position(|window| window == TRUTH);
                    if let Some(place) = found {
                        payload[place..place + LIE.len()].copy_from_slice(LIE);
                        make_batches_right(payload);
                        self.lies += 1;
                    }
                    record.payload_crc = crc32c::crc32c(payload);
                    chain = record.chain_after(chain);
                    record.chain = chain;
                    self.chains.insert(record.id.seq, chain);
                    bytes[at..end].copy_from_slice(&record.encode());
                    at = end + record.payload_len as usize;
                    continue;
                }
                Ok(Frame::SyncMark(mark)) => {
                    let chain = self.chains.get(&mark.id.seq).copied().unwrap_or(mark.chain);
                    SyncMark { chain, ..mark }.encode()
                }
                Ok(Frame::Trailer(trailer)) => {
                    let encoded = SegmentTrailer { chain, ..trailer }.encode();
                    bytes[at..end].copy_from_slice(&encoded);
                    break;
                }
                Err(_) => break,
            };
            bytes[at..end].copy_from_slice(&encoded);
            at = end;
        }
        self.last = Some(chain);
    }
}

fn log_of(cluster: &Cluster, id: u64) -> String {
    fs::read_to_string(cluster.settings(id).log_file()).expect("read the log")
}

/// What a node says of divergence in `/status`.
fn told(cluster: &Cluster, id: u64) -> Option<String> {
    let admin = cluster.settings(id).ports.admin;
    let status = http::get(admin, "/status", std::time::Duration::from_secs(5)).ok()?;
    let status: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
    status["divergence"].as_str().map(str::to_owned)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make the folder");
    for file in fs::read_dir(from).expect("the folder") {
        let path = file.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copy");
    }
}

/// What a node says itself, once it knows that it is near enough to the primary.
fn value_at(cluster: &Cluster, id: u64) -> Vec<u8> {
    poll(RECOVERY_LIMIT, "the node to serve reads", || {
        let mut client = cluster.connect(id);
        client.command(&["READONLY"]).ok()?;
        client.command(&["GET", "k"]).ok()?.bytes().map(<[u8]>::to_vec)
    })
}

fn wait_until_it_follows(cluster: &Cluster, id: u64, incarnation: u64) {
    poll(RECOVERY_LIMIT, "the node to follow", || {
        let status = cluster.status(id).filter(|status| status.incarnation >= incarnation)?;
        let committed = cluster.status(cluster.primary()?)?.committed_seq;
        (status.role == Role::Replica && status.applied_seq >= committed).then_some(())
    });
}

#[test]
fn a_journal_that_lies_beside_a_true_state_is_set_aside_and_the_node_keeps_its_vote() {
    let mut cluster = start("lying-journal");
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    assert!(cluster.stop(replica).success());
    let data_dir = cluster.settings(replica).data_dir();
    forge(&data_dir);
    let began = Instant::now();
    cluster.start_node(replica);
    // Once to ask, once to go on.
    wait_until_it_follows(&cluster, replica, 3);
    println!("it follows {:?} after its start", began.elapsed());
    let log = log_of(&cluster, replica);
    assert!(log.contains("the journal was set aside in divergent/"), "{log}");
    let cut = fs::read_dir(data_dir.join("divergent")).expect("the folder").count();
    assert!(cut > 0, "what it held is kept");
    assert!(!data_dir.join("SUSPECT").exists());
    assert_eq!(value_at(&cluster, replica), TRUTH);
    poll(RECOVERY_LIMIT, "all to hold the same", || {
        let equal = |id: &u64| metric(&cluster, *id, "quorate_chain_different_nodes") == 0;
        cluster.ids().iter().all(equal).then_some(())
    });
    // The state held all that it had acknowledged: its vote elects.
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 100);
    cluster.kill(primary);
    wait_for_writes(&writers, 100);
    cluster.start_node(primary);
    settle(&cluster, writers);
}

#[test]
fn a_replica_that_lies_in_journal_and_state_is_found_named_and_shut_out() {
    let mut cluster = start("lying-replica");
    let primary = cluster.wait_for_primary();
    let replica = cluster.others(primary)[0];
    assert!(cluster.stop(replica).success());
    let data_dir = cluster.settings(replica).data_dir();
    let kept = cluster.dir().join("kept-journal");
    copy_folder(&data_dir.join("journal"), &kept);
    forge(&data_dir);
    // Made anew from the journal, the state tells the same lie.
    fs::remove_dir_all(data_dir.join("state")).expect("remove the state");
    let began = Instant::now();
    // Whoever compares first acts: at first only the others do.
    let off = ("QUORATE_HEALTH__CHAIN_CHECK_PERIOD".to_owned(), "0s".to_owned());
    cluster.settings_mut(replica).environment.push(off);
    cluster.start_node(replica);
    let mut text = String::new();
    poll(RECOVERY_LIMIT, "the comparison to name it", || {
        text = told(&cluster, primary)?;
        Some(())
    });
    println!("named {:?} after its start: {text}", began.elapsed());
    assert!(text.starts_with(&format!("node {replica} differs at ")), "{text}");
    assert_eq!(text.matches(" with chain ").count(), 3, "{text}");
    assert_eq!(metric(&cluster, primary, "quorate_chain_different_nodes"), 1);
    assert!(log_of(&cluster, primary).contains("nodes hold different logs"));
    // It asks the voters itself, and goes no further on what it has.
    cluster.kill(replica);
    cluster.settings_mut(replica).environment.clear();
    cluster.start_node(replica);
    let end = cluster.process(replica).wait_for_end(RECOVERY_LIMIT).expect("it ends");
    assert_eq!(end.code(), Some(1));
    println!("out {:?} after its start", began.elapsed());
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    wait_for_writes(&writers, 300);
    let log = log_of(&cluster, replica);
    assert!(log.contains("this node's journal is not what most voters hold"), "{log}");

    // With its true journal back, only the state is wrong: that is given up, and nothing else.
    fs::remove_dir_all(data_dir.join("journal")).expect("remove the journal");
    copy_folder(&kept, &data_dir.join("journal"));
    fs::write(data_dir.join("SUSPECT"), "unverified\n1\nput there by a test\n").expect("write");
    assert_eq!(cluster.restart_ended(), [replica]);
    poll(RECOVERY_LIMIT, "the node to follow", || {
        let status = cluster.status(replica)?;
        let committed = cluster.status(cluster.primary()?)?.committed_seq;
        (status.role == Role::Replica && status.applied_seq >= committed).then_some(())
    });
    assert!(log_of(&cluster, replica).contains("the state is damaged: it is set aside"));
    assert_eq!(value_at(&cluster, replica), TRUTH);
    settle(&cluster, writers);
}
