//! Reading a journal's newest entries while its writer, in another process, goes on.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_protocol::entry::Entry;
use quorate_protocol::record::SEGMENT_HEADER_BYTES;
use quorate_protocol::types::{EntryId, Seq};

use super::scan::{Item, Scanner};
use super::segment::parse_file_name;
use super::survey::read_header;

/// Segments that are looked at for the newest entries: the last one may have just begun.
const NEWEST_SEGMENTS: usize = 2;

/// Bytes of entries that one look returns, unless a single entry is larger.
const LOOK_BYTES_MAX: usize = 4 << 20;

/// Follows a journal's folder. Changes nothing, and needs no lock.
///
/// What it returns was written, not necessarily synced, and may be cut later: then the entries of
/// the new branch come next, at positions that were returned before.
#[derive(Debug)]
pub struct Follower {
    folder: PathBuf,
    /// The newest entry that was returned.
    last: EntryId,
    place: Option<Place>,
}

/// Where the next entry is looked for.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    /// Another nonce means another file of the same name.
    nonce: u64,
    offset: u64,
}

impl Follower {
    /// Starts at the end of the log. Returns its last `count` entries, as far as the two newest
    /// segments hold them.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn open(folder: &Path, count: usize) -> io::Result<(Self, Vec<Entry>)> {
        let mut follower = Self { folder: folder.to_owned(), last: EntryId::ZERO, place: None };
        let segments = follower.segments()?;
        let newest = segments.len().saturating_sub(NEWEST_SEGMENTS);
        if let Some((first, _)) = segments.get(newest) {
            // As if everything before them had been returned.
            follower.last.seq = first.prev();
        }
        let mut entries = VecDeque::new();
        loop {
            let more = follower.look()?;
            // A busy writer always has more; less than a look may return is the end.
            let is_end = more.iter().map(Entry::record_bytes).sum::<usize>() < LOOK_BYTES_MAX;
            for entry in more {
                entries.push_back(entry);
                if entries.len() > count {
                    entries.pop_front();
                }
            }
            if is_end {
                return Ok((follower, entries.into()));
            }
        }
    }

    /// The entries that were written since the last look; empty where there are none yet.
    ///
    /// # Errors
    /// As the system reports them.
    pub fn look(&mut self) -> io::Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        loop {
            // Before the segment is read: it is complete if the list has a later one.
            let segments = self.segments()?;
            let Some(index) = self.current(&segments) else { return Ok(entries) };
            let path = &segments[index].1;
            match self.read(path, &mut entries, &mut bytes) {
                Ok(()) => {}
                // Trimmed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            match segments.get(index + 1) {
                Some((_, next)) if bytes < LOOK_BYTES_MAX => {
                    let Some(place) = Place::start(next)? else { return Ok(entries) };
                    self.place = Some(place);
                }
                Some(_) | None => return Ok(entries),
            }
        }
    }

    /// The segment to go on in: the one that was read last, or the last one that can hold the next
    /// entry.
    fn current(&self, segments: &[(Seq, PathBuf)]) -> Option<usize> {
        if let Some(place) = &self.place
            && let Some(index) = segments.iter().position(|(_, path)| *path == place.path)
        {
            return Some(index);
        }
        let next = self.last.seq.next();
        let behind = segments.partition_point(|(first, _)| *first <= next);
        (!segments.is_empty()).then(|| behind.saturating_sub(1))
    }

    /// Reads a segment on from the place in it.
    fn read(&mut self, path: &Path, entries: &mut Vec<Entry>, bytes: &mut usize) -> io::Result<()> {
        let file = File::open(path)?;
        let Ok(header) = read_header(&file)? else { return Ok(()) };
        let mut place = match self.place.take() {
            Some(place) if place.path == path && place.nonce == header.nonce => place,
            Some(_) | None => {
                let offset = SEGMENT_HEADER_BYTES as u64;
                Place { path: path.to_owned(), nonce: header.nonce, offset }
            }
        };
        let mut scanner = Scanner::new(&file, place.offset)?;
        while *bytes < LOOK_BYTES_MAX {
            // A bad record at the end is one that is just being written.
            let (id, entry) = match scanner.next()? {
                Item::Mark(_) => continue,
                Item::Trailer(_) | Item::End | Item::Bad(_) => break,
                Item::Entry(header, payload) => {
                    (header.id, Entry::from_parts(&header, Bytes::copy_from_slice(payload)))
                }
            };
            // What stands before a cut is copied to the file that replaces the old one.
            if id > self.last {
                let Ok(entry) = entry else { break };
                *bytes += entry.record_bytes();
                entries.push(entry);
                self.last = id;
            }
        }
        place.offset = scanner.offset();
        self.place = Some(place);
        Ok(())
    }

    fn segments(&self) -> io::Result<Vec<(Seq, PathBuf)>> {
        let mut segments = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(first) = parse_file_name(name) {
                segments.push((first, path));
            }
        }
        segments.sort();
        Ok(segments)
    }
}

impl Place {
    /// The first entry of a segment; `None` where it can't be read yet.
    fn start(path: &Path) -> io::Result<Option<Self>> {
        let header = read_header(&File::open(path)?)?;
        let offset = SEGMENT_HEADER_BYTES as u64;
        Ok(header.ok().map(|header| Self { path: path.to_owned(), nonce: header.nonce, offset }))
    }
}
