//! How far the streams of a run are.

use std::ops::ControlFlow;

use super::slot::least;
use super::{Bookmarkable, CopySnapshot, Resume, Slices, Slot, Stored};
use crate::pg::Lsn;

/// A server whose log ends inside a record that is not complete stops within a page of it.
const PAGE: u64 = 8192;

/// Where the log ended when the run began (rule 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The position.
    pub(crate) lsn: Lsn,
    /// Whether it is the end of a record, so that decoding is sure to get there.
    pub(crate) of_record: bool,
}

/// Where the changes of a stream begin that this run reads.
#[derive(Clone, Debug)]
pub(crate) enum Track {
    /// With the transactions that committed at or after this position.
    From(Lsn),
    /// With whatever the slot brings.
    AtSlot,
    /// With the transactions that a copy of this run does not hold.
    AfterCopy(CopySnapshot),
    /// With the bookmark of a copy in slices.
    Slices(Slices),
}

impl Track {
    /// Whether the stream is being copied, or this run has copied it.
    pub(crate) fn is_of_copy(&self) -> bool {
        match self {
            Track::AfterCopy(_) | Track::Slices(_) => true,
            Track::From(_) | Track::AtSlot => false,
        }
    }
}

/// How far bookmarks are to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upto {
    /// To the end of the last transaction: the same place whichever way the log is read.
    LastCommit,
    /// To the last position that is known to be complete.
    Reached,
}

/// A copy may lack a transaction: its commit waited for a synchronous standby when the copy was made, and the slot was past it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldBack {
    /// The stream.
    pub(crate) stream: String,
}

/// The positions of a run that streams changes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    streams: Vec<Stream>,
    /// The places of those that were copied in this run in one snapshot: few, where there may be thousands of streams.
    copied: Vec<usize>,
    /// Where the run ends; `None` for never.
    end: Option<End>,
    open: Option<Transaction>,
    /// The end of the last transaction.
    committed: Lsn,
    /// The last position up to which the server says that it has sent everything.
    heard: Lsn,
    /// The position reached when lines were last handed over.
    handed_over: Lsn,
    /// What the server knows to be stored: it brings nothing from before.
    acknowledged: Lsn,
    /// Up to where it was checked that what came is all there is, where that has to be.
    checked: Option<Lsn>,
}

#[derive(Debug)]
struct Stream {
    id: String,
    /// Transactions that committed before this are in the target already.
    from: Lsn,
    /// The copy of this run that is not yet known to be complete.
    copy: Option<CopySnapshot>,
    /// The slices of a copy that its bookmark is not known to be past, or of which more are to come.
    slices: Option<Slices>,
    /// What its bookmark holds; `None` for "where the slot stands".
    bookmark: Option<Lsn>,
    /// Where its part in the run ended, if it failed: its bookmark never gets past this.
    failed: Option<Lsn>,
}

/// The transaction that is being received.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    commit_lsn: Lsn,
    xid: u32,
}

impl Ledger {
    /// Begins with these streams; they are known by their place from here on. `acknowledged`: what this run acknowledges at
    /// its start.
    pub(crate) fn new(
        streams: Vec<(String, Track)>,
        slot: Slot,
        acknowledged: Option<Stored>,
        end: Option<End>,
    ) -> Ledger {
        let stream = |(id, track)| {
            let (bookmark, copy, slices) = match track {
                Track::From(lsn) => (Some(lsn), None, None),
                Track::AtSlot => (None, None, None),
                Track::AfterCopy(copy) => (None, Some(copy), None),
                Track::Slices(slices) => (Some(slices.start()), None, Some(slices)),
            };
            Stream { id, from: bookmark.unwrap_or(Lsn::INVALID), copy, slices, bookmark, failed: None }
        };
        let streams: Vec<Stream> = streams.into_iter().map(stream).collect();
        Ledger {
            copied: (0..streams.len()).filter(|place| streams[*place].copy.is_some()).collect(),
            streams,
            end,
            acknowledged: slot.floor(acknowledged).0,
            ..Ledger::default()
        }
    }

    /// Returns the position to ask the server for (rule 2): the least of the streams'; the invalid one for "where the slot
    /// stands".
    pub(crate) fn start(&self) -> Lsn {
        self.streams.iter().map(|stream| stream.from).min().unwrap_or(Lsn::INVALID)
    }

    /// Takes the start of a transaction. Breaks where the run ends before it (rule 5): transactions come in the order of their
    /// commits, so that all before the end have come.
    pub(crate) fn begin(&mut self, commit_lsn: Lsn, xid: u32) -> ControlFlow<()> {
        if let Some(end) = self.end.filter(|end| commit_lsn >= end.lsn) {
            self.heard = self.heard.max(end.lsn);
            return ControlFlow::Break(());
        }
        for place in &self.copied {
            if let Some(copy) = &mut self.streams[*place].copy {
                copy.came(xid);
            }
        }
        self.open = Some(Transaction { commit_lsn, xid });
        ControlFlow::Continue(())
    }

    /// Whether a transaction is open.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the changes of the open transaction are still to be sent to the stream at this place (rules 2 and 6).
    #[inline]
    pub(crate) fn wants(&self, stream: usize) -> bool {
        let (Some(transaction), Some(stream)) = (self.open, self.streams.get(stream)) else { return false };
        let holds = || stream.copy.as_ref().is_some_and(|copy| copy.holds(transaction.xid));
        stream.failed.is_none() && transaction.commit_lsn >= stream.from && !holds()
    }

    /// Ends the part that the stream at this place has in the run (rule 12). Its bookmark gets no further than to what was handed
    /// over, since records behind that may lack values for good; a copy of this run in one snapshot is repeated.
    pub(crate) fn fail(&mut self, stream: usize) {
        let complete = self.handed_over;
        if let Some(stream) = self.streams.get_mut(stream) {
            stream.failed.get_or_insert(complete);
        }
    }

    /// Takes the end of the open transaction; `end_lsn`: the end of its commit record.
    pub(crate) fn commit(&mut self, end_lsn: Lsn) {
        self.open = None;
        self.committed = self.committed.max(end_lsn);
    }

    /// Takes the server's word that it has sent everything that committed before this. It means nothing while a transaction is
    /// open. Breaks where that is the end of the run.
    pub(crate) fn keepalive(&mut self, wal_end: Lsn) -> ControlFlow<()> {
        if self.is_open() {
            return ControlFlow::Continue(());
        }
        self.heard = self.heard.max(wal_end);
        if self.end.is_some_and(|end| wal_end >= end.lsn) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Whether a server that stands still at this position may never get to the end: it lies inside a record that is not
    /// complete.
    pub(crate) fn may_stop_short(&self, wal_end: Lsn) -> bool {
        self.end.is_some_and(|end| !end.of_record && wal_end < end.lsn && end.lsn.0 - wal_end.0 < PAGE)
    }

    /// Takes note that a bulk read brought everything up to the end of the run.
    pub(crate) fn read_all(&mut self) {
        if let Some(end) = self.end.filter(|_| !self.is_open()) {
            self.heard = self.heard.max(end.lsn);
        }
    }

    /// Returns the last position before which everything has come.
    pub(crate) fn reached(&self) -> Lsn {
        self.committed.max(self.heard)
    }

    /// Returns the position that bookmarks can move to.
    pub(crate) fn settled(&self) -> Lsn {
        self.checked.map_or(self.reached(), |checked| checked.min(self.reached()))
    }

    /// Has bookmarks wait for [`checked`](Self::checked) from here on.
    pub(crate) fn wait_for_checks(&mut self) {
        self.checked = Some(Lsn::INVALID);
    }

    /// Takes note that what has come is all there is: no table was read under a name that it had not (rule 11).
    pub(crate) fn checked(&mut self) {
        if self.checked.is_some() {
            self.checked = Some(self.reached());
        }
    }

    /// Takes note that the lines of all that has come were handed over, those of an open transaction aside.
    pub(crate) fn handed_over(&mut self) {
        self.handed_over = self.reached();
    }

    /// Goes back to where lines were last handed over: those since then are forgotten.
    pub(crate) fn forget(&mut self) {
        (self.committed, self.heard) = (self.handed_over, Lsn::INVALID);
        self.open = None;
    }

    /// Returns the bookmarks that move (rule 1), each with its stream. They never go back, nor to where the slot can't serve
    /// them; that of a copy that is not known to be complete stays, and that of slices until the log is past them.
    pub(crate) fn bookmarks(&mut self, upto: Upto) -> impl Iterator<Item = (&str, Bookmarkable)> {
        let position = match upto {
            Upto::LastCommit => self.committed,
            Upto::Reached => self.reached(),
        };
        let position = self.checked.map_or(position, |checked| checked.min(position));
        let acknowledged = self.acknowledged;
        self.streams.iter_mut().filter_map(move |stream| {
            let position = stream.failed.map_or(position, |end| end.min(position));
            let served = position >= acknowledged;
            let copied = stream.copy.is_none() && stream.slices.is_none_or(|slices| slices.is_passed(position));
            let moves = served && copied && stream.bookmark.is_none_or(|known| known < position);
            moves.then(|| {
                stream.bookmark = Some(position);
                (stream.id.as_str(), Bookmarkable(position))
            })
        })
    }

    /// Takes the copies that are complete because the log was read past what their snapshots see (rule 6). Returns their streams
    /// with their first bookmarks, and one of those that may lack a transaction.
    pub(crate) fn finished_copies(&mut self) -> (Vec<(String, Bookmarkable)>, Option<HeldBack>) {
        let (position, settled) = (self.reached(), self.settled());
        let (mut finished, mut held_back) = (Vec::new(), None);
        for stream in self.streams.iter_mut().filter(|stream| stream.failed.is_none()) {
            if stream.slices.is_some_and(|slices| slices.is_complete() && slices.is_passed(settled)) {
                let position = settled.max(stream.from);
                (stream.slices, stream.bookmark) = (None, Some(position));
                finished.push((stream.id.clone(), Bookmarkable(position)));
            }
            match &stream.copy {
                Some(copy) if !copy.is_passed(position) => {}
                Some(copy) if copy.lacks_some() => held_back = Some(HeldBack { stream: stream.id.clone() }),
                Some(_) => {
                    stream.copy = None;
                    stream.bookmark = Some(position);
                    finished.push((stream.id.clone(), Bookmarkable(position)));
                }
                None => {}
            }
        }
        (finished, held_back)
    }

    /// Returns what may be acknowledged now that a state came back with these bookmarks, if that is news (rule 4). Nothing
    /// that this run has not reached.
    pub(crate) fn stored(&mut self, given: impl IntoIterator<Item = Resume>) -> Option<Stored> {
        let lsn = least(given)?.min(self.reached());
        if lsn <= self.acknowledged {
            return None;
        }
        self.acknowledged = lsn;
        Some(Stored(lsn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::positions::TransactionSnapshot;

    #[test]
    fn bookmarks_wait_for_checks() {
        let slot = Slot { confirmed_flush: Lsn(100), wal_end: Lsn(200) };
        let mut ledger = Ledger::new(vec![("a".to_owned(), Track::From(Lsn(100)))], slot, None, None);
        ledger.wait_for_checks();
        let moved = |ledger: &mut Ledger| ledger.bookmarks(Upto::Reached).map(|(_, at)| at.0.0).collect::<Vec<_>>();
        let _ = ledger.keepalive(Lsn(150));
        assert_eq!(moved(&mut ledger), [0; 0]);
        ledger.checked();
        let _ = ledger.keepalive(Lsn(160));
        assert_eq!(moved(&mut ledger), [150]);
        ledger.checked();
        assert_eq!(moved(&mut ledger), [160]);
    }

    #[test]
    fn copies_are_finished_beside_one_that_is_held_back() {
        let copy = |held: &[u32]| {
            let snapshot = TransactionSnapshot::parse("10:12:10").unwrap();
            Track::AfterCopy(CopySnapshot::new(snapshot, Lsn(150), held.to_vec()))
        };
        let tracks = [("a", copy(&[])), ("b", copy(&[10])), ("c", copy(&[]))];
        let tracks = tracks.map(|(id, track)| (id.to_owned(), track)).into();
        let slot = Slot { confirmed_flush: Lsn(100), wal_end: Lsn(200) };
        let mut ledger = Ledger::new(tracks, slot, None, None);
        assert!(ledger.finished_copies().0.is_empty(), "the log was not read past them");
        let _ = ledger.keepalive(Lsn(160));
        let (finished, held_back) = ledger.finished_copies();
        assert_eq!(finished, ["a", "c"].map(|id| (id.to_owned(), Bookmarkable(Lsn(160)))));
        assert_eq!(held_back, Some(HeldBack { stream: "b".to_owned() }));
        // The log brings what was held.
        let _ = ledger.begin(Lsn(160), 10);
        ledger.commit(Lsn(170));
        assert_eq!(ledger.finished_copies(), (vec![("b".to_owned(), Bookmarkable(Lsn(170)))], None));
    }
    #[test]
    fn a_stream_that_fails_stays_where_it_was() {
        let copy = CopySnapshot::new(TransactionSnapshot::parse("10:12:10").unwrap(), Lsn(150), Vec::new());
        let tracks = [("a", Track::From(Lsn(120))), ("b", Track::From(Lsn(120))), ("c", Track::AfterCopy(copy))];
        let tracks = tracks.map(|(id, track)| (id.to_owned(), track)).into();
        let slot = Slot { confirmed_flush: Lsn(100), wal_end: Lsn(200) };
        let mut ledger = Ledger::new(tracks, slot, None, None);
        let _ = ledger.begin(Lsn(125), 12);
        ledger.commit(Lsn(130));
        ledger.handed_over();
        let _ = ledger.begin(Lsn(130), 13);
        ledger.commit(Lsn(140));
        let _ = ledger.begin(Lsn(140), 14);
        assert!((0..3).all(|stream| ledger.wants(stream)));
        ledger.fail(0);
        ledger.fail(2);
        assert!(!ledger.wants(0) && ledger.wants(1) && !ledger.wants(2));
        ledger.commit(Lsn(160));
        let moved: Vec<_> = ledger.bookmarks(Upto::Reached).map(|(id, lsn)| (id.to_owned(), lsn.lsn().0)).collect();
        assert_eq!(moved, [("a", 130), ("b", 160)].map(|(id, lsn)| (id.to_owned(), lsn)));
        assert_eq!(ledger.finished_copies(), (Vec::new(), None));
    }
}
