//! Where entries are: shared by the writer, which changes it, and readers on any thread.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_protocol::record::{SEGMENT_HEADER_BYTES, SegmentHeader};
use quorate_protocol::types::{EntryId, Seq};

use super::scan::INDEX_STEP;
use super::segment::ActiveSegment;

#[derive(Debug)]
pub(super) struct Table {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// In order; never empty. A segment ends where the next one begins, whatever it holds
    /// beyond that.
    segments: Vec<Segment>,
    /// The last entry that was written.
    last: EntryId,
}

/// One segment as readers need it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    /// First byte behind its last frame.
    pub(super) end: u64,
    /// Position and offset of some of its entries, in order.
    pub(super) index: Vec<(Seq, u64)>,
}

/// Where to start reading for a position.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
    /// A frame starts here, at or before the position's own.
    pub(super) offset: u64,
    pub(super) end: u64,
    /// The first position that another segment holds.
    pub(super) next: Option<Seq>,
}

/// The range that a table covers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) first: Seq,
    pub(super) last: EntryId,
}

impl Table {
    pub(super) fn new(segments: Vec<Segment>, last: EntryId) -> Self {
        assert!(!segments.is_empty(), "an open journal has a segment");
        Self { state: Mutex::new(State { segments, last }) }
    }

    pub(super) fn bounds(&self) -> Bounds {
        let state = self.state.lock();
        Bounds { first: state.segments[0].header.first(), last: state.last }
    }

    /// Where the entry at `seq` is to be looked for; `seq` lies within the bounds.
    pub(super) fn place(&self, seq: Seq) -> Option<Place> {
        let state = self.state.lock();
        let after = state.segments.partition_point(|s| s.header.first() <= seq);
        let segment = &state.segments[after.checked_sub(1)?];
        let before = segment.index.partition_point(|(indexed, _)| *indexed <= seq);
        let offset = match before.checked_sub(1) {
            Some(at) => segment.index[at].1,
            None => SEGMENT_HEADER_BYTES as u64,
        };
        Some(Place {
            file: Arc::clone(&segment.file),
            path: segment.path.clone(),
            offset,
            end: segment.end,
            next: state.segments.get(after).map(|s| s.header.first()),
        })
    }

    /// The writer has appended to the last segment: an entry at `first` starting at `offset`,
    /// and others up to `last`, which end at `end`.
    pub(super) fn appended(&self, first: (Seq, u64), end: u64, last: EntryId) {
        let mut state = self.state.lock();
        state.last = last;
        let segment = state.segments.last_mut().expect("an open journal has a segment");
        segment.end = end;
        if segment.index.last().is_none_or(|(_, at)| first.1 - at >= INDEX_STEP) {
            segment.index.push(first);
        }
    }

    /// The last segment got frames that aren't entries.
    pub(super) fn extended(&self, end: u64) {
        let mut state = self.state.lock();
        state.segments.last_mut().expect("an open journal has a segment").end = end;
    }

    /// Replaces all segments.
    pub(super) fn replace(&self, segments: Vec<Segment>, last: EntryId) {
        assert!(!segments.is_empty(), "an open journal has a segment");
        *self.state.lock() = State { segments, last };
    }

    /// The segments as they are now.
    pub(super) fn segments(&self) -> Vec<Segment> {
        self.state.lock().segments.clone()
    }

    /// First position and bytes of each segment.
    pub(super) fn sizes(&self) -> Vec<(Seq, u64)> {
        let state = self.state.lock();
        state.segments.iter().map(|segment| (segment.header.first(), segment.end)).collect()
    }

    /// Forgets the oldest segment, if it isn't the only one.
    pub(super) fn forget_first(&self) {
        let mut state = self.state.lock();
        if state.segments.len() > 1 {
            state.segments.remove(0);
        }
    }
}

impl Segment {
    pub(super) fn of(active: &ActiveSegment) -> Self {
        Self {
            file: Arc::clone(&active.file),
            path: active.path.clone(),
            header: active.header,
            end: active.position,
            index: active.index.places.clone(),
        }
    }
}
