//! What was cut from the log: the files of the divergent folder, read without changing them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::SEGMENT_HEADER_BYTES;
use quorate_protocol::types::{ClusterId, ClusterTime, EntryId, Generation, Seq};

use super::cut::Reason;
use super::scan::{Item, Scanner};
use super::segment::parse_file_name;
use super::survey::read_header;

/// A file in the divergent folder. It is the whole segment, of which only the entries from `cut`
/// on were cut from the log; what stands before them is in the log still.
#[derive(Clone, Debug)]
pub struct DivergentFile {
    /// Where it is.
    pub path: PathBuf,
    /// Why it was cut.
    pub reason: Reason,
    /// The first position that was cut.
    pub cut: Seq,
    /// What it takes on disk, in bytes.
    pub bytes: u64,
    /// When it was put there.
    pub at: SystemTime,
    /// Of which cluster it is, and how many lossy recoveries that had gone through; `None` where
    /// the header can't be read.
    pub origin: Option<(ClusterId, Generation)>,
    /// What was cut, as far as it can be read; `None` where nothing can.
    pub tail: Option<TailSummary>,
    /// Why it can't be read further; `None` at a regular end.
    pub damage: Option<String>,
}

/// Entries that were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailSummary {
    /// The first of them.
    pub first: EntryId,
    /// The last of them.
    pub last: EntryId,
    /// How many they are.
    pub entries: u64,
    /// When the first was sealed.
    pub from: ClusterTime,
    /// When the last was.
    pub to: ClusterTime,
}

/// Describes the files of a divergent folder, oldest first.
///
/// # Errors
/// As the system reports them.
pub fn divergent(folder: &Path) -> io::Result<Vec<DivergentFile>> {
    let mut files =
        list(folder)?.iter().map(|path| divergent_file(path)).collect::<io::Result<Vec<_>>>()?;
    files.sort_by(|a, b| (a.at, &a.path).cmp(&(b.at, &b.path)));
    Ok(files)
}

/// Describes one file of a divergent folder.
///
/// # Errors
/// As the system reports them; `InvalidInput` for a file whose name isn't such a file's.
pub fn divergent_file(path: &Path) -> io::Result<DivergentFile> {
    let (cut, reason) = parse_name(path).ok_or_else(|| {
        let text = format!("{} isn't a file that was cut from a log", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let meta = fs::metadata(path)?;
    let changed = u64::try_from(meta.ctime()).unwrap_or_default();
    let origin = read_header(&File::open(path)?)?.map(|header| (header.cluster, header.generation));
    let mut tail: Option<TailSummary> = None;
    let damage = read_entries(path, cut, |entry| {
        let (id, time) = (entry.id, entry.time);
        let known = TailSummary { first: id, last: id, entries: 0, from: time, to: time };
        let so_far = tail.get_or_insert(known);
        *so_far = TailSummary { last: id, entries: so_far.entries + 1, to: time, ..*so_far };
        true
    })?;
    Ok(DivergentFile {
        path: path.to_owned(),
        reason,
        cut,
        bytes: meta.blocks() * 512,
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(changed),
        origin: origin.ok(),
        tail,
        damage,
    })
}

/// Hands out the entries of a segment file from a position on, in order, while `each` says so.
/// Checksums and the order of entries are verified. Returns what is wrong with the file where it
/// can't be read to its end.
///
/// # Errors
/// As the system reports them.
pub fn read_entries(
    path: &Path,
    from: Seq,
    mut each: impl FnMut(Entry) -> bool,
) -> io::Result<Option<String>> {
    let file = File::open(path)?;
    let header = match read_header(&file)? {
        Ok(header) => header,
        Err(fault) => return Ok(Some(fault.to_string())),
    };
    let mut scanner = Scanner::new(&file, SEGMENT_HEADER_BYTES as u64)?;
    let mut last = header.preceding;
    loop {
        let offset = scanner.offset();
        let fault = match scanner.next()? {
            Item::Mark(_) => continue,
            Item::Trailer(_) | Item::End => return Ok(None),
            Item::Bad(fault) => fault.to_string(),
            Item::Entry(header, _) if header.id.seq != last.seq.next() => {
                format!("entry {} follows entry {last}", header.id)
            }
            Item::Entry(header, payload) => {
                last = header.id;
                if header.id.seq < from {
                    continue;
                }
                match Entry::from_parts(&header, Bytes::copy_from_slice(payload)) {
                    Ok(entry) => {
                        if each(entry) {
                            continue;
                        }
                        return Ok(None);
                    }
                    Err(fault) => fault.to_string(),
                }
            }
        };
        return Ok(Some(format!("byte {offset}: {fault}")));
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = Vec::new();
    for file in files {
        let path = file?.path();
        if parse_name(&path).is_some() {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// From which position on a file was cut, and why: `<segment>-cut<position>-<reason>-<number>.qj`.
fn parse_name(path: &Path) -> Option<(Seq, Reason)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".qj")?;
    let mut parts = name.split('-');
    parse_file_name(&format!("{}.qj", parts.next()?))?;
    let cut = parts.next()?.strip_prefix("cut")?.parse().ok()?;
    let reason = Reason::parse(parts.next()?)?;
    parts.next()?.parse::<u32>().ok()?;
    parts.next().is_none().then_some((Seq(cut), reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_cut_files_are_read_and_others_are_not() {
        let stem = "00000000000000000041";
        for (name, expected) in [
            (format!("{stem}-cut57-truncated-0.qj"), Some((Seq(57), Reason::Truncated))),
            (format!("{stem}-cut57-torn-12.qj"), Some((Seq(57), Reason::Torn))),
            (format!("{stem}-cut57-superseded-1.qj"), Some((Seq(57), Reason::Superseded))),
            (format!("{stem}-cut57-corrupt-1.qj"), Some((Seq(57), Reason::Corrupt))),
            (format!("{stem}.qj"), None),
            (format!("{stem}-cut57-lost-1.qj"), None),
            (format!("{stem}-cut57-torn.qj"), None),
            ("notes.txt".to_owned(), None),
        ] {
            assert_eq!(parse_name(Path::new(&name)), expected, "{name}");
        }
    }
}
