//! Conversations of cores, as text: what happens goes in, what the cores say and do comes out,
//! and is compared with what was reviewed once. `UPDATE_GOLDEN=1 cargo test -p quorate-protocol
//! --test conversations` writes the answers anew; the difference is then read like code.

mod conversation;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use conversation::Cluster;

const SEPARATOR: &str = "----";

#[test]
fn conversations_go_as_written() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut count = 0;
    for path in scripts() {
        let written = std::fs::read_to_string(&path).expect("a golden file can be read");
        let played = play(&written);
        if update {
            std::fs::write(&path, &played).expect("a golden file can be written");
        } else {
            assert_same(&path, &written, &played);
        }
        count += 1;
    }
    assert!(count >= 10, "only {count} conversations found");
}

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the golden folder exists")
        .map(|entry| entry.expect("a folder entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths
}

/// Plays the orders of a script and returns it with the answers that came. A block is orders, the
/// separator, the answer, and an empty line; lines that begin with `#` are remarks.
fn play(script: &str) -> String {
    let mut cluster = Cluster::default();
    let mut played = String::new();
    let mut answering = false;
    for line in script.lines() {
        if answering {
            answering = !line.is_empty();
        } else if line == SEPARATOR {
            writeln!(played, "{SEPARATOR}\n{}", cluster.take_answer()).expect("a string grows");
            answering = true;
        } else {
            writeln!(played, "{line}").expect("a string grows");
            if !line.is_empty() && !line.starts_with('#') {
                cluster.carry_out(line);
            }
        }
    }
    while played.ends_with("\n\n") {
        played.pop();
    }
    played
}

fn assert_same(path: &Path, written: &str, played: &str) {
    let lines = written.lines().zip(played.lines()).enumerate();
    for (index, (expected, found)) in lines {
        assert_eq!(expected, found, "{}:{}", path.display(), index + 1);
    }
    assert_eq!(written, played, "{}", path.display());
}
