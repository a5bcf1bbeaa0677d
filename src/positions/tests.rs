//! Random histories: interleaved transactions, streams at different bookmarks, copies with and without a position and in slices,
//! runs that are cut at any step and resumed from any STATE that they wrote. Whatever happens, each transaction reaches each stream,
//! or what came after it of the same row does; and the last that comes of a row is what it is.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

const STREAMS: usize = 3;
/// The keys that rows have.
const KEYS: usize = 6;
/// The pages of a table.
const PAGES: u64 = 4;

/// Decisions, taken from a string of random bytes so that proptest can shrink a history.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    /// A number below `n`; 0 once the bytes have run out.
    fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |&byte| usize::from(byte) % n)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

/// A committed transaction in the log.
#[derive(Clone, Copy, Debug)]
struct Committed {
    xid: u32,
    commit_lsn: Lsn,
    end_lsn: Lsn,
    changes: Changes,
}

/// What a transaction does, to the row of one key.
#[derive(Clone, Copy, Debug)]
struct Changes {
    /// Whether it changes each stream's table.
    of: [bool; STREAMS],
    key: usize,
    /// In which page it leaves the row; `None`: it deletes it.
    page: Option<u64>,
}

/// The server: its log, and its slot.
struct Server {
    log: Vec<Committed>,
    end: Lsn,
    next_xid: u32,
    running: Vec<(u32, Changes)>,
    /// Committed, but no snapshot sees them: they wait for a synchronous standby, with their locks.
    invisible: Vec<(u32, Changes)>,
    confirmed_flush: Lsn,
}

impl Server {
    fn new() -> Server {
        Server {
            log: Vec::new(),
            end: Lsn(1000),
            next_xid: 10,
            running: Vec::new(),
            invisible: Vec::new(),
            confirmed_flush: Lsn(1000),
        }
    }

    /// Something happens on the server.
    fn work(&mut self, dice: &mut Dice<'_>) {
        match dice.below(6) {
            0 | 1 => {
                let of = [dice.below(2) == 0, dice.below(2) == 0, dice.below(2) == 0];
                let page = dice.below(PAGES as usize + 1) as u64;
                let page = (page < PAGES).then_some(page);
                let is_locked =
                    |key: &usize| self.running.iter().chain(&self.invisible).any(|(_, other)| other.key == *key);
                let first = dice.below(KEYS);
                if let Some(key) = (0..KEYS).map(|n| (first + n) % KEYS).find(|key| !is_locked(key)) {
                    self.running.push((self.next_xid, Changes { of, key, page }));
                    self.next_xid += 1;
                }
            }
            2 | 3 => self.commit(dice),
            // Records of no transaction.
            4 => self.end.0 += dice.below(20) as u64,
            _ => self.invisible.clear(),
        }
    }

    fn commit(&mut self, dice: &mut Dice<'_>) {
        if self.running.is_empty() {
            return;
        }
        let (xid, changes) = self.running.swap_remove(dice.below(self.running.len()));
        let end_lsn = Lsn(self.end.0 + 1 + dice.below(3) as u64);
        self.log.push(Committed { xid, commit_lsn: self.end, end_lsn, changes });
        self.end = end_lsn;
        if dice.one_in(6) {
            self.invisible.push((xid, changes));
        }
    }

    fn settle(&mut self, dice: &mut Dice<'_>) {
        while !self.running.is_empty() {
            self.commit(dice);
        }
        self.invisible.clear();
    }

    fn slot(&self) -> Slot {
        Slot { confirmed_flush: self.confirmed_flush, wal_end: self.end }
    }

    fn acknowledge(&mut self, stored: Stored, given: &[Resume]) {
        for resume in given {
            assert!(resume.lsn().is_some_and(|lsn| lsn >= stored.lsn()), "{stored} is not in {given:?}");
        }
        assert!(
            stored.lsn() >= self.confirmed_flush && stored.lsn() <= self.end,
            "the slot goes back, or past the log"
        );
        self.confirmed_flush = stored.lsn();
    }

    fn snapshot(&self) -> TransactionSnapshot {
        let running: Vec<u32> = self.running.iter().chain(&self.invisible).map(|(xid, _)| *xid).collect();
        let xmin = running.iter().copied().min().unwrap_or(self.next_xid);
        let list: Vec<String> = running.iter().map(u32::to_string).collect();
        TransactionSnapshot::parse(&format!("{xmin}:{}:{}", self.next_xid, list.join(","))).unwrap()
    }

    fn of_stream(&self, stream: usize, holds: impl Fn(&Committed) -> bool) -> Vec<u32> {
        self.log.iter().filter(|tx| tx.changes.of[stream] && holds(tx)).map(|tx| tx.xid).collect()
    }

    /// What is in these pages: of each row the last change.
    fn in_pages(&self, stream: usize, pages: std::ops::Range<u64>, holds: impl Fn(&Committed) -> bool) -> Vec<u32> {
        let last = |key: usize| self.log.iter().rfind(|tx| tx.changes.of[stream] && tx.changes.key == key && holds(tx));
        let rows = (0..KEYS).filter_map(last);
        rows.filter(|tx| tx.changes.page.is_some_and(|page| pages.contains(&page))).map(|tx| tx.xid).collect()
    }
}

/// The bookmarks of a state.
#[derive(Clone, Debug, PartialEq)]
struct State {
    resume: [Resume; STREAMS],
    /// The first page that a copy in slices has not sent.
    page: [u64; STREAMS],
}

#[derive(Clone, Debug)]
enum Line {
    /// A copy begins under a new version: in its end the target drops what it has of others.
    Begin(usize),
    /// Rows of these transactions.
    Rows(usize, Vec<u32>),
    State(State),
}

/// What a run wrote: the lines that a target has, and those that are buffered.
#[derive(Default)]
struct Written {
    lines: Vec<Line>,
    buffer: Vec<Line>,
    /// How much of the buffer is complete.
    cut: usize,
    /// The last line that was handed over is of a transaction of which more is to come.
    torn: bool,
    /// A buffered line lacks a value.
    hole: bool,
    /// The lines up to here are stored: a state behind them came back while the run went on.
    stored: usize,
}

impl Written {
    fn hand_over(&mut self, ledger: &mut Ledger, state: &mut State) {
        self.hole = false;
        if ledger.is_open() && self.cut > 0 {
            let rest = self.buffer.split_off(self.cut);
            self.lines.append(&mut self.buffer);
            self.buffer = rest;
            self.torn = false;
        } else {
            if ledger.is_open() && !self.torn {
                move_bookmarks(ledger, Upto::LastCommit, state);
                self.lines.push(Line::State(state.clone()));
            }
            self.torn = ledger.is_open();
            self.lines.append(&mut self.buffer);
        }
        self.cut = 0;
        ledger.handed_over();
    }

    /// As a run ends that fails or is interrupted.
    fn cut_short(&mut self, ledger: &mut Ledger, state: &mut State) {
        if self.hole {
            ledger.forget();
            self.cut = 0;
        }
        self.buffer.truncate(self.cut);
        self.torn &= self.cut == 0;
        move_bookmarks(ledger, Upto::Reached, state);
        self.lines.append(&mut self.buffer);
        if !self.torn {
            self.lines.push(Line::State(state.clone()));
        }
    }
}

fn last_state(lines: &[Line]) -> Option<&State> {
    lines.iter().rev().find_map(|line| match line {
        Line::State(state) => Some(state),
        Line::Begin(_) | Line::Rows(..) => None,
    })
}

fn move_bookmarks(ledger: &mut Ledger, upto: Upto, state: &mut State) {
    for (id, position) in ledger.bookmarks(upto) {
        let stream: usize = id.parse().unwrap();
        if let Some(known) = state.resume[stream].lsn() {
            assert!(position.lsn() > known, "a bookmark goes back");
        }
        state.resume[stream] = match state.resume[stream] {
            Resume::Copying(_) => Resume::Copying(position.lsn()),
            _ => Resume::At(position.lsn()),
        };
    }
}

/// Whether a copy holds a transaction.
type Holds = Box<dyn Fn(&Committed) -> bool>;

/// What became of a transaction.
enum Outcome {
    Complete,
    /// The run ends before it.
    End,
    /// The run was killed or interrupted inside of it.
    Cut,
}

struct History<'a, 'd> {
    server: Server,
    dice: &'a mut Dice<'d>,
    /// The transactions that the target has, each as often as it came.
    target: [Vec<u32>; STREAMS],
    state: State,
    /// What lies before the state that came back: it must not come again.
    settled: [BTreeSet<u32>; STREAMS],
    /// Which streams failed in a run: what they have past their bookmarks comes again.
    failed: [bool; STREAMS],
    /// Which streams were copied in slices: of a row, what its last change there replaced did not come.
    sliced: [bool; STREAMS],
    /// Whether a run did not end by itself, so that transactions may come again.
    repeats: bool,
}

impl History<'_, '_> {
    /// A run; `cut`: it may be cut, the target may die, and others write meanwhile.
    fn run(&mut self, cut: bool) {
        let mut written = Written::default();
        let given = self.state.clone();
        self.sync(given.clone(), &mut written, cut);
        let kept = if cut && self.dice.one_in(3) {
            self.repeats = true;
            written.stored + self.dice.below(written.lines.len() - written.stored + 1)
        } else {
            written.lines.len()
        };
        for line in &written.lines[..kept] {
            match line {
                Line::Begin(stream) => self.target[*stream].clear(),
                Line::Rows(stream, xids) => self.target[*stream].extend(xids),
                Line::State(_) => {}
            }
        }
        // Which of the states that it took the target printed, or the scheduler kept.
        let known = if cut && self.dice.one_in(4) {
            self.repeats = true;
            written.stored + self.dice.below(kept - written.stored + 1)
        } else {
            kept
        };
        if let Some(place) = written.lines[..known].iter().rposition(|line| matches!(line, Line::State(_))) {
            self.settle(&written.lines[..=place]);
        }
        self.state = last_state(&written.lines[..known]).cloned().unwrap_or(given);
    }

    /// Takes note of what is before a state that came back.
    fn settle(&mut self, lines: &[Line]) {
        let state = last_state(lines).unwrap();
        for (settled, resume) in self.settled.iter_mut().zip(&state.resume) {
            if !resume.is_copied() {
                settled.clear();
            }
        }
        for line in lines {
            let Line::Rows(stream, xids) = line else { continue };
            let complete = |xid: &&u32| match state.resume[*stream] {
                _ if !self.failed[*stream] => true,
                Resume::At(lsn) => self.server.log.iter().any(|tx| tx.xid == **xid && tx.end_lsn <= lsn),
                _ => false,
            };
            if state.resume[*stream].is_copied() {
                self.settled[*stream].extend(xids.iter().filter(complete));
            }
        }
    }

    /// Returns early where the run is killed.
    fn sync(&mut self, mut state: State, written: &mut Written, cut: bool) {
        let slot = self.server.slot();
        for resume in &state.resume {
            assert_eq!(slot.gap(*resume), None, "the slot can't serve what it promised");
        }
        let given: Vec<Resume> = state.resume.iter().copied().filter(|resume| *resume != Resume::Copy).collect();
        let acknowledged = slot.stored(given.iter().copied());
        let floor = slot.floor(acknowledged);
        let mut tracks = Vec::new();
        for stream in 0..STREAMS {
            match state.resume[stream] {
                Resume::Copy if self.dice.below(2) == 0 => {
                    written.lines.push(Line::State(state.clone()));
                    let track = self.copy(stream, written, floor, &mut state, cut);
                    self.sliced[stream] = false;
                    if cut && self.dice.one_in(20) {
                        self.repeats = true;
                        return;
                    }
                    written.lines.push(Line::State(state.clone()));
                    tracks.extend(track.map(|track| (stream, track)));
                }
                Resume::Copy | Resume::Copying(_) => {
                    written.lines.push(Line::State(state.clone()));
                    match self.slices(stream, written, floor, &mut state, cut) {
                        Some(slices) => tracks.push((stream, Track::Slices(slices))),
                        None => return,
                    }
                }
                Resume::AtSlot => tracks.push((stream, Track::AtSlot)),
                Resume::At(lsn) => tracks.push((stream, Track::From(lsn))),
            }
        }
        if !tracks.is_empty() {
            self.stream(tracks, &given, slot, acknowledged, &mut state, written, cut);
        }
    }

    fn copy(
        &mut self,
        stream: usize,
        written: &mut Written,
        floor: Bookmarkable,
        state: &mut State,
        cut: bool,
    ) -> Option<Track> {
        let (holds, position): (Holds, _) = if self.dice.below(2) == 0 {
            let point = self.server.end;
            (Box::new(move |tx| tx.commit_lsn < point), CopyPosition::Exact(point))
        } else {
            let held = self.server.invisible.iter().map(|(xid, _)| *xid).collect();
            let snapshot = self.server.snapshot();
            let seen = snapshot.clone();
            let copy = CopySnapshot::new(snapshot, self.server.end, held);
            (Box::new(move |tx| seen.sees(tx.xid)), CopyPosition::Visible(copy))
        };
        let bookmark = position.bookmark(floor);
        written.lines.push(Line::Begin(stream));
        assert_eq!(self.server.slot().gap(Resume::At(bookmark.lsn())), None);
        // What comes to be visible while rows are read does not change what the snapshot sees.
        let rows = self.server.of_stream(stream, &*holds);
        for _ in 0..if cut { self.dice.below(3) } else { 0 } {
            self.server.work(self.dice);
        }
        written.lines.push(Line::Rows(stream, rows));
        match position {
            CopyPosition::Exact(_) => {
                state.resume[stream] = Resume::At(bookmark.lsn());
                None
            }
            CopyPosition::Visible(copy) => Some(Track::AfterCopy(copy)),
            CopyPosition::Replayed(_) => unreachable!("no secondary was asked"),
        }
    }

    /// Copies a table in slices, or goes on with it, as far as there is time; `None` where the run is killed.
    fn slices(
        &mut self,
        stream: usize,
        written: &mut Written,
        floor: Bookmarkable,
        state: &mut State,
        cut: bool,
    ) -> Option<Slices> {
        (self.repeats, self.sliced[stream]) = (true, true);
        let mut slices = state.resume[stream].lsn().map(Slices::from);
        while !cut || !self.dice.one_in(6) {
            let (holds, position): (Holds, _) = match self.dice.below(3) {
                0 => {
                    let point = self.server.end;
                    (Box::new(move |tx| tx.commit_lsn < point), CopyPosition::Exact(point))
                }
                1 => {
                    // A standby, which lags behind and shows everything that it has replayed.
                    let from = slices.as_ref().map_or(Lsn::INVALID, Slices::start).max(floor.lsn());
                    let commits = self.server.log.iter().map(|tx| tx.end_lsn).filter(|end| *end >= from);
                    let replayed: Vec<Lsn> = commits.chain([self.server.end]).collect();
                    let point = replayed[self.dice.below(replayed.len())];
                    (Box::new(move |tx| tx.end_lsn <= point), CopyPosition::Replayed(point))
                }
                _ => {
                    let held = self.server.invisible.iter().map(|(xid, _)| *xid).collect();
                    let snapshot = self.server.snapshot();
                    let seen = snapshot.clone();
                    let copy = CopySnapshot::new(snapshot, self.server.end, held);
                    (Box::new(move |tx| seen.sees(tx.xid)), CopyPosition::Visible(copy))
                }
            };
            if !position.holds_until(slices.as_ref().map_or(Lsn::INVALID, Slices::start)) {
                self.server.work(self.dice);
                self.server.invisible.clear();
                continue;
            }
            let of_copy = slices.get_or_insert_with(|| {
                let bookmark = position.bookmark(floor);
                written.lines.push(Line::Begin(stream));
                (state.resume[stream], state.page[stream]) = (Resume::Copying(bookmark.lsn()), 0);
                Slices::from(bookmark.lsn())
            });
            of_copy.add(&position);
            // The pages that are read in this snapshot.
            for _ in 0..1 + self.dice.below(3) {
                let end = state.page[stream] + 1 + self.dice.below(2) as u64;
                for _ in 0..if cut { self.dice.below(3) } else { 0 } {
                    self.server.work(self.dice);
                }
                let pages = state.page[stream]..if end >= PAGES { u64::MAX } else { end };
                written.lines.push(Line::Rows(stream, self.server.in_pages(stream, pages, &*holds)));
                if cut && self.dice.one_in(20) {
                    return None;
                }
                state.page[stream] = end;
                written.lines.push(Line::State(state.clone()));
                if end >= PAGES {
                    of_copy.complete();
                    return slices;
                }
            }
        }
        // No time for a slice: it begins in another run.
        match slices {
            Some(slices) => Some(slices),
            None => {
                let position = CopyPosition::Exact(self.server.end).bookmark(floor);
                written.lines.push(Line::Begin(stream));
                (state.resume[stream], state.page[stream]) = (Resume::Copying(position.lsn()), 0);
                Some(Slices::from(position.lsn()))
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn stream(
        &mut self,
        tracks: Vec<(usize, Track)>,
        given: &[Resume],
        slot: Slot,
        acknowledged: Option<Stored>,
        state: &mut State,
        written: &mut Written,
        cut: bool,
    ) {
        let places: Vec<usize> = tracks.iter().map(|(stream, _)| *stream).collect();
        let of_record = self.dice.below(2) == 0;
        let end = End { lsn: self.server.end, of_record };
        let tracks = tracks.into_iter().map(|(stream, track)| (stream.to_string(), track)).collect();
        let mut ledger = Ledger::new(tracks, slot, acknowledged, Some(end));
        if let Some(stored) = acknowledged {
            self.server.acknowledge(stored, given);
        }
        let from = ledger.start().max(self.server.confirmed_flush);
        let mut next = self.server.log.iter().position(|tx| tx.commit_lsn >= from).unwrap_or(self.server.log.len());
        loop {
            match self.dice.below(12) {
                // 0, which the dice show once the bytes have run out, has to lead to an end.
                1 if cut => self.server.work(self.dice),
                2 if cut && self.dice.one_in(2) => {
                    self.repeats = true;
                    // Killed at once, or interrupted.
                    if self.dice.below(2) == 0 {
                        written.cut_short(&mut ledger, state);
                    }
                    return;
                }
                3 => written.hand_over(&mut ledger, state),
                4 => {
                    if self.write_state(&mut ledger, state, written).is_err() {
                        written.cut_short(&mut ledger, state);
                        self.repeats = true;
                        return;
                    }
                }
                5 => {
                    // A state that the target has printed comes back while the run goes on.
                    let upto = written.stored + self.dice.below(written.lines.len() - written.stored + 1);
                    if let Some(known) = last_state(&written.lines[..upto])
                        && let Some(stored) = ledger.stored(known.resume)
                    {
                        written.stored = upto;
                        self.server.acknowledge(stored, &known.resume);
                    }
                }
                6 => {
                    // From where it began to decode up to the next commit.
                    let upto = self.server.log.get(next).map_or(self.server.end, |tx| tx.commit_lsn);
                    let wal_end = Lsn(upto.0 - (self.dice.below(8) as u64).min(upto.0));
                    if ledger.keepalive(wal_end).is_break() {
                        break;
                    }
                }
                _ => match self.server.log.get(next).copied() {
                    Some(tx) => {
                        next += 1;
                        match self.transaction(tx, &places, &mut ledger, state, written, end, cut) {
                            Outcome::Complete => {}
                            Outcome::End => break,
                            Outcome::Cut => return,
                        }
                    }
                    None if self.dice.below(2) == 0 => {
                        if ledger.keepalive(self.server.end).is_break() {
                            break;
                        }
                    }
                    None => {
                        ledger.read_all();
                        break;
                    }
                },
            }
        }
        // A run that ended by itself has everything that committed before its end.
        assert!(ledger.reached() >= end.lsn);
        for tx in self.server.log.iter().filter(|tx| tx.commit_lsn >= from && tx.commit_lsn < end.lsn) {
            assert!(self.server.log[..next].iter().any(|sent| sent.xid == tx.xid), "ended before {tx:?}");
        }
        if self.write_state(&mut ledger, state, written).is_err() {
            self.repeats = true;
            written.cut_short(&mut ledger, state);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn transaction(
        &mut self,
        tx: Committed,
        places: &[usize],
        ledger: &mut Ledger,
        state: &mut State,
        written: &mut Written,
        end: End,
        cut: bool,
    ) -> Outcome {
        match ledger.begin(tx.commit_lsn, tx.xid) {
            ControlFlow::Break(()) => {
                assert!(tx.commit_lsn >= end.lsn);
                return Outcome::End;
            }
            ControlFlow::Continue(()) => assert!(tx.commit_lsn < end.lsn, "read past the end"),
        }
        for (place, &stream) in places.iter().enumerate() {
            if tx.changes.of[stream] && ledger.wants(place) {
                assert!(!self.settled[stream].contains(&tx.xid), "{tx:?} comes again");
                written.buffer.push(Line::Rows(stream, vec![tx.xid]));
                written.hole |= self.dice.one_in(8);
            }
            match self.dice.below(8) {
                3 => written.hand_over(ledger, state),
                // The server's word while a transaction is open.
                1 => assert!(ledger.keepalive(self.server.end).is_continue()),
                2 if cut && self.dice.one_in(4) => {
                    self.repeats = true;
                    if self.dice.below(2) == 0 {
                        written.cut_short(ledger, state);
                    }
                    return Outcome::Cut;
                }
                // A stream fails, and what it has of what was not handed over comes again.
                4 if cut && self.dice.one_in(4) => {
                    self.repeats = true;
                    self.failed[stream] = true;
                    ledger.fail(place);
                }
                _ => {}
            }
        }
        ledger.commit(tx.end_lsn);
        written.cut = written.buffer.len();
        Outcome::Complete
    }

    fn write_state(&mut self, ledger: &mut Ledger, state: &mut State, written: &mut Written) -> Result<(), HeldBack> {
        // Missing values are read first.
        written.hole = false;
        move_bookmarks(ledger, Upto::Reached, state);
        let (finished, held_back) = ledger.finished_copies();
        for (id, position) in finished {
            state.resume[id.parse::<usize>().unwrap()] = Resume::At(position.lsn());
        }
        if let Some(held_back) = held_back {
            return Err(held_back);
        }
        written.lines.append(&mut written.buffer);
        written.cut = 0;
        written.torn = false;
        written.lines.push(Line::State(state.clone()));
        ledger.handed_over();
        Ok(())
    }
}

fn check(choices: &[u8]) {
    let mut dice = Dice(choices.iter());
    let mut server = Server::new();
    for _ in 0..dice.below(12) {
        server.work(&mut dice);
    }
    server.confirmed_flush = server.end;
    let resume = std::array::from_fn(|_| [Resume::Copy, Resume::AtSlot, Resume::At(server.end)][dice.below(3)]);
    let state = State { resume, page: [0; STREAMS] };
    // What a stream that is not copied has from before.
    let target = std::array::from_fn(|stream| match state.resume[stream] {
        Resume::Copy => Vec::new(),
        _ => server.of_stream(stream, |_| true),
    });
    let (settled, failed, sliced) = Default::default();
    let mut history = History { server, dice: &mut dice, target, state, settled, failed, sliced, repeats: false };
    for _ in 0..1 + history.dice.below(4) {
        for _ in 0..history.dice.below(6) {
            history.server.work(history.dice);
        }
        history.run(true);
    }
    history.server.settle(history.dice);
    history.run(false);
    history.run(false);
    for stream in 0..STREAMS {
        let all: BTreeSet<u32> = history.server.of_stream(stream, |_| true).into_iter().collect();
        let came: BTreeSet<u32> = history.target[stream].iter().copied().collect();
        assert!(came == all || history.sliced[stream], "stream {stream}: {came:?} of {all:?}");
        for key in 0..KEYS {
            let of_key = |xid: &&u32| history.server.log.iter().any(|tx| tx.xid == **xid && tx.changes.key == key);
            let now = history.server.log.iter().rfind(|tx| tx.changes.of[stream] && tx.changes.key == key);
            let last = history.target[stream].iter().rfind(of_key);
            // Nobody tells a target of a row that it never had.
            let is_gone = last.is_none() && now.is_some_and(|tx| tx.changes.page.is_none());
            assert!(is_gone || last == now.map(|tx| &tx.xid), "stream {stream}: of {key} came {last:?}, not {now:?}");
        }
        if !history.repeats {
            assert_eq!(history.target[stream].len(), all.len(), "stream {stream}: something came twice");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn each_transaction_reaches_each_stream(choices in prop::collection::vec(any::<u8>(), 0..300)) {
        check(&choices);
    }
}
