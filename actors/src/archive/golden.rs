//! Files of an archive as they are written by format 1: what reads them must go on to.

use serde::{Deserialize, Serialize};

use super::catalogue::{Head, SegmentManifest, SnapshotManifest, decode, encode};

#[track_caller]
fn unchanged<T: Serialize + for<'a> Deserialize<'a>>(golden: &str) {
    let read = decode::<T>("golden", golden.as_bytes()).expect("it is read");
    assert_eq!(String::from_utf8(encode(&read)).expect("JSON"), golden);
}

#[test]
fn files_of_an_archive_are_fixed() {
    unchanged::<Head>(include_str!("golden/head.json"));
    unchanged::<SegmentManifest>(include_str!("golden/segment.json"));
    unchanged::<SnapshotManifest>(include_str!("golden/snapshot.json"));
}
