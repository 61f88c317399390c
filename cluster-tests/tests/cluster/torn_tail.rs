//! What a crash in the middle of a write leaves at the end of the journal.

use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use quorate_cluster_tests::harness::Cluster;
use quorate_cluster_tests::workload::{UniqueWriters, WriterOptions};

use crate::common::{settle, wait_for_writes};

/// The segment that is written now.
fn last_segment(data_dir: &Path) -> PathBuf {
    let mut segments: Vec<PathBuf> = fs::read_dir(data_dir.join("journal"))
        .expect("the journal's directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "qj"))
        .collect();
    segments.sort();
    segments.pop().expect("a segment")
}

/// One past the last byte that is not zero: segments are preallocated.
fn end_of_data(segment: &Path) -> u64 {
    let bytes = fs::read(segment).expect("read the segment");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn overwrite(segment: &Path, offset: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(segment).expect("open the segment");
    file.seek(SeekFrom::Start(offset)).expect("seek");
    file.write_all(bytes).expect("write");
    file.sync_all().expect("sync");
}

#[test]
fn a_torn_tail_is_cut_and_the_node_catches_up() {
    let mut cluster = Cluster::start("torn-tail");
    let writers = UniqueWriters::start("w", &cluster.client_addresses(), WriterOptions::default());
    // A record of which only the beginning reached the disk, whole garbage, and a few bytes.
    let tails: [&[u8]; 3] = [&[0xa5; 4096], &[0x51; 100], &[0xff; 7]];
    for (round, tail) in tails.iter().enumerate() {
        wait_for_writes(&writers, 300);
        // Round by round another node, the primary among them.
        let victim = cluster.ids()[round % cluster.ids().len()];
        cluster.kill(victim);
        let segment = last_segment(&cluster.settings(victim).data_dir());
        overwrite(&segment, end_of_data(&segment), tail);
        wait_for_writes(&writers, 100);
        cluster.start_node(victim);
        quorate_cluster_tests::harness::poll(
            quorate_cluster_tests::harness::RECOVERY_LIMIT,
            "the node with the torn tail",
            || cluster.status(victim),
        );
        wait_for_writes(&writers, 100);
        cluster.wait_until_writable();
    }
    settle(&cluster, writers);
}
