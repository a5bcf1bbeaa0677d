//! When to ask the server, to write a STATE, and to end. Handed the time, so that it needs no clock.

use std::time::Duration;

use tokio::time::Instant;

use crate::pg::Lsn;

/// A STATE follows at the first commit after this, or after so many changes as [`Limits`] says.
const STATE_INTERVAL: Duration = Duration::from_secs(10);
/// On an idle stream a keepalive is asked for after this; the wait doubles with each question, up to [`IDLE`].
const FIRST_ASK: Duration = Duration::from_millis(20);
/// The longest wait between two questions, and the time without a message after which buffered lines are handed over.
const IDLE: Duration = Duration::from_secs(1);
/// After so many answers that bring nothing new a server stands still.
const STANDSTILL: u32 = 2;
/// How long a server may be at work without getting on when the time is over and there is still something to be reached.
const WORK: Duration = Duration::from_secs(600);

/// What bounds a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// When the run began.
    pub(super) began: Instant,
    /// When the run ends, with the first message after it; `None` for never.
    pub(super) give_up: Option<Instant>,
    /// After so long without a change the run ends; `None` where silence means nothing.
    pub(super) poll: Option<Duration>,
    /// How long the server may take to answer; `None` where it can't be asked.
    pub(super) patience: Option<Duration>,
    /// Whether the run has an end to get to, for which an idle server is asked at once.
    pub(super) bounded: bool,
    /// A STATE follows at the first commit after so many changes.
    pub(super) state_changes: u64,
}

/// What the loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Waits for the next message.
    Continue,
    /// Asks the server how far it is.
    Ask,
    /// Hands the lines over that are complete.
    HandOver,
    /// Moves the bookmarks and writes a STATE.
    WriteState,
    /// Ends.
    End(Why),
}

/// Why a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Everything has come.
    Reached,
    /// Its time is over.
    OutOfTime,
    /// Nothing came for as long as it was to wait.
    Quiet,
    /// The server has left a question unanswered for so long that the connection must be dead.
    Unanswered(Duration),
}

/// Decides what the loop does next.
#[derive(Debug)]
pub(super) struct Pace {
    limits: Limits,
    /// The time as of the last commit or pause. What the server needs before it sends anything does not count: a bulk read
    /// that takes longer than the run may still brings its first transaction.
    now: Instant,
    /// Whether anything has come.
    came: bool,
    /// Since the last STATE.
    changes: u64,
    last_state: Instant,
    silence: Silence,
    /// What is to be done, the first of it first.
    due: [Option<Step>; 2],
}

/// A stretch of time in which no change came.
#[derive(Debug)]
struct Silence {
    since: Instant,
    wait: Duration,
    /// When the wait is over. Keepalives, of which a server with busy neighbours sends many, don't put it off.
    wake: Instant,
    /// When the question was asked that is not answered yet.
    asked: Option<Instant>,
    /// The position of the last answer, and how many have brought no other since.
    last_answer: Lsn,
    standstill: u32,
    /// When it was last known to move.
    moved: Instant,
}

impl Silence {
    fn new(now: Instant) -> Silence {
        Silence {
            since: now,
            wait: FIRST_ASK,
            wake: now + FIRST_ASK,
            asked: None,
            last_answer: Lsn::INVALID,
            standstill: 0,
            moved: now,
        }
    }
}

impl Pace {
    /// Begins to wait. Where the server can be asked, a first question is due.
    pub(super) fn new(limits: Limits) -> Pace {
        let (now, due) = (limits.began, [limits.patience.map(|_| Step::Ask), None]);
        Pace { limits, now, came: false, changes: 0, last_state: now, silence: Silence::new(now), due }
    }

    /// Returns how long to wait for a message.
    #[inline]
    pub(super) fn wait(&self) -> Duration {
        self.silence.wait
    }

    /// Takes note that records were written.
    #[inline]
    pub(super) fn changed(&mut self, records: u64) {
        self.changes += records;
    }

    /// Takes note that a message with changes came; asks for the time only after a silence.
    #[inline]
    pub(super) fn message(&mut self, now: impl FnOnce() -> Instant) {
        self.came = true;
        if self.silence.wait != FIRST_ASK || self.silence.asked.is_some() {
            self.silence = Silence::new(now());
        }
    }

    /// Takes note of the end of a transaction.
    pub(super) fn commit(&mut self, now: Instant) {
        self.now = now;
        if self.changes >= self.limits.state_changes || self.is_state_old() {
            self.push(Step::WriteState);
        }
    }

    /// Takes note of a keepalive. `may_stop_short`: the server may never get further than it is. Returns whether it stands
    /// still there.
    pub(super) fn keepalive(&mut self, now: Instant, wal_end: Lsn, may_stop_short: bool) -> bool {
        let silence = &mut self.silence;
        if silence.asked.is_none() || wal_end != silence.last_answer {
            if wal_end != silence.last_answer {
                silence.moved = now;
            }
            (silence.last_answer, silence.standstill) = (wal_end, 0);
            return false;
        }
        silence.standstill += 1;
        may_stop_short && silence.standstill >= STANDSTILL && now - silence.since >= IDLE
    }

    /// Takes note that a question was answered: the connection is alive.
    pub(super) fn answered(&mut self, now: Instant, in_transaction: bool) {
        self.silence.asked = None;
        (self.came, self.now) = (true, now);
        if now >= self.silence.wake {
            self.quiet(now, in_transaction);
        }
    }

    /// Takes note that nothing came for as long as [`wait`](Self::wait) says.
    pub(super) fn quiet(&mut self, now: Instant, in_transaction: bool) {
        (self.came, self.now) = (true, now);
        let silence = &mut self.silence;
        if silence.wait == FIRST_ASK {
            (silence.since, silence.moved) = (now, now);
        }
        let silent = now - silence.since;
        if !in_transaction && self.limits.poll.is_some_and(|poll| silent >= poll) {
            return self.push(Step::End(Why::Quiet));
        }
        if let (Some(asked), Some(patience)) = (silence.asked, self.limits.patience)
            && now - asked >= patience
        {
            return self.push(Step::End(Why::Unanswered(patience)));
        }
        silence.wait = (silence.wait * 2).min(IDLE);
        silence.wake = now + silence.wait;
        let idle = silence.wait == IDLE;
        let asks = silence.asked.is_none() && (self.limits.bounded || silent >= STATE_INTERVAL);
        if asks && self.limits.patience.is_some() {
            self.push(Step::Ask);
        }
        if idle {
            self.push(if !in_transaction && self.is_state_old() { Step::WriteState } else { Step::HandOver });
        }
    }

    /// Returns what the loop does next. The time is over only after something has come, and not inside a transaction; nor before the
    /// log was read far enough, unless the server does not get on.
    #[inline]
    pub(super) fn step(&mut self, in_transaction: bool, far_enough: bool) -> Step {
        if let Some(step) = self.due[0].take() {
            self.due.swap(0, 1);
            return step;
        }
        let over = self.came && !in_transaction && self.limits.give_up.is_some_and(|give_up| self.now >= give_up);
        if over && (far_enough || self.stands_still()) { Step::End(Why::OutOfTime) } else { Step::Continue }
    }

    /// Takes note that the server was asked.
    pub(super) fn asked(&mut self, now: Instant) {
        self.silence.asked = Some(now);
    }

    /// Takes note that a STATE was written.
    pub(super) fn wrote_state(&mut self, now: Instant) {
        (self.changes, self.last_state, self.now) = (0, now, now);
    }

    fn stands_still(&self) -> bool {
        self.silence.wait != FIRST_ASK && self.now - self.silence.moved >= WORK
    }

    fn is_state_old(&self) -> bool {
        self.now - self.last_state >= STATE_INTERVAL
    }

    fn push(&mut self, step: Step) {
        if let Some(free) = self.due.iter_mut().find(|due| due.is_none()) {
            *free = Some(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE_CHANGES: u64 = 1000;

    /// A pace with a clock that only these tests move.
    struct Clocked {
        pace: Pace,
        now: Instant,
    }

    fn limits() -> Limits {
        Limits {
            began: Instant::now(),
            give_up: None,
            poll: None,
            patience: Some(Duration::from_secs(60)),
            bounded: true,
            state_changes: STATE_CHANGES,
        }
    }

    /// Before that the time is over only for a server that does not get on.
    #[test]
    fn the_log_is_read_far_enough() {
        let mut clocked = Clocked::new(|began| Limits { give_up: Some(began), patience: None, ..limits() });
        clocked.pace.message(|| clocked.now);
        clocked.pace.commit(clocked.now);
        assert_eq!(clocked.pace.step(false, false), Step::Continue);
        assert_eq!(clocked.pace.step(false, true), Step::End(Why::OutOfTime));
        let mut quiet = |seconds: u64, wal_end: u64| {
            let until = clocked.now + Duration::from_secs(seconds);
            while clocked.now < until {
                clocked.now += Duration::from_secs(1);
                clocked.pace.quiet(clocked.now, false);
                clocked.pace.keepalive(clocked.now, Lsn(wal_end), false);
                while !matches!(clocked.pace.step(false, false), Step::Continue | Step::End(_)) {}
            }
            clocked.pace.step(false, false)
        };
        assert_eq!(quiet(595, 1), Step::Continue);
        assert_eq!(quiet(595, 2), Step::Continue, "it moved");
        assert_eq!(quiet(10, 2), Step::End(Why::OutOfTime));
    }

    impl Clocked {
        fn new(limits: impl FnOnce(Instant) -> Limits) -> Clocked {
            let now = Instant::now();
            let mut clocked = Clocked { pace: Pace::new(Limits { began: now, ..limits(now) }), now };
            clocked.steps(false);
            clocked
        }

        /// What the loop would do until it waits again; the server does not answer.
        fn steps(&mut self, in_transaction: bool) -> Vec<Step> {
            let mut steps = Vec::new();
            loop {
                match self.pace.step(in_transaction, true) {
                    Step::Continue => return steps,
                    step => {
                        steps.push(step);
                        match step {
                            Step::Ask => self.pace.asked(self.now),
                            Step::WriteState => self.pace.wrote_state(self.now),
                            Step::End(_) => return steps,
                            _ => {}
                        }
                    }
                }
            }
        }

        /// Nothing comes for as long as the loop waits.
        fn wait(&mut self, in_transaction: bool) -> Vec<Step> {
            self.now += self.pace.wait();
            self.pace.quiet(self.now, in_transaction);
            self.steps(in_transaction)
        }

        fn answer(&mut self, wal_end: u64, may_stop_short: bool) -> bool {
            let stuck = self.pace.keepalive(self.now, Lsn(wal_end), may_stop_short);
            self.pace.answered(self.now, false);
            stuck
        }
    }

    #[test]
    fn a_server_is_asked_at_the_start_and_dead_if_it_never_answers() {
        let mut pace = Pace::new(limits());
        assert_eq!(pace.step(false, true), Step::Ask);
        let mut clocked = Clocked::new(|_| limits());
        let mut waited = Duration::ZERO;
        let last = loop {
            waited += clocked.pace.wait();
            let steps = clocked.wait(false);
            assert!(!steps.contains(&Step::Ask), "asked again before an answer");
            if let Some(Step::End(why)) = steps.last() {
                break *why;
            }
        };
        assert_eq!(last, Why::Unanswered(Duration::from_secs(60)));
        assert!((60..63).contains(&waited.as_secs()), "{waited:?}");
    }

    #[test]
    fn questions_come_further_and_further_apart() {
        let mut clocked = Clocked::new(|_| limits());
        let mut waits = Vec::new();
        for _ in 0..9 {
            clocked.answer(1, false);
            waits.push(clocked.pace.wait().as_millis());
            assert!(clocked.wait(false).contains(&Step::Ask));
        }
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1000, 1000, 1000]);
    }

    #[test]
    fn a_run_without_an_end_asks_only_when_it_has_been_quiet_for_long() {
        let mut clocked = Clocked::new(|_| Limits { bounded: false, ..limits() });
        clocked.answer(1, false);
        let start = clocked.now;
        while !clocked.wait(false).contains(&Step::Ask) {}
        assert!(clocked.now - start >= STATE_INTERVAL);
    }

    #[test]
    fn lines_leave_after_a_second_and_a_state_after_ten() {
        let mut clocked = Clocked::new(|_| limits());
        let start = clocked.now;
        let (mut handed_over, mut state) = (None, None);
        while state.is_none() {
            clocked.answer(1, false);
            let steps = clocked.wait(false);
            let passed = clocked.now - start;
            handed_over = handed_over.or_else(|| steps.contains(&Step::HandOver).then_some(passed));
            state = steps.contains(&Step::WriteState).then_some(passed);
        }
        assert!(handed_over.unwrap() < Duration::from_millis(1400), "{handed_over:?}");
        assert!((10..12).contains(&state.unwrap().as_secs()), "{state:?}");
    }

    #[test]
    fn no_state_is_written_and_nothing_ends_inside_a_transaction() {
        let give_up = Duration::from_secs(30);
        let mut clocked = Clocked::new(|now| Limits {
            give_up: Some(now + give_up),
            poll: Some(Duration::from_secs(20)),
            ..limits()
        });
        let start = clocked.now;
        while clocked.now - start < 2 * give_up {
            clocked.pace.asked(clocked.now);
            clocked.pace.silence.asked = None;
            for step in clocked.wait(true) {
                assert!(matches!(step, Step::Ask | Step::HandOver), "{step:?}");
            }
        }
        assert_eq!(clocked.steps(false), [Step::End(Why::OutOfTime)]);
    }

    #[test]
    fn a_state_follows_many_changes_or_a_long_time() {
        let mut clocked = Clocked::new(|_| limits());
        clocked.pace.changed(STATE_CHANGES - 1);
        clocked.pace.commit(clocked.now);
        assert_eq!(clocked.steps(false), []);
        clocked.pace.changed(1);
        clocked.pace.commit(clocked.now);
        assert_eq!(clocked.steps(false), [Step::WriteState]);
        clocked.pace.changed(1);
        clocked.now += STATE_INTERVAL;
        clocked.pace.commit(clocked.now);
        assert_eq!(clocked.steps(false), [Step::WriteState]);
    }

    #[test]
    fn a_run_ends_when_its_time_is_over_or_nothing_comes() {
        let mut clocked = Clocked::new(|now| Limits { give_up: Some(now + Duration::from_secs(5)), ..limits() });
        clocked.now += Duration::from_secs(5);
        assert_eq!(clocked.steps(false), [], "nothing has come");
        let now = clocked.now;
        clocked.pace.message(|| now);
        assert_eq!(clocked.steps(false), [], "nothing is complete");
        clocked.pace.changed(STATE_CHANGES);
        clocked.pace.commit(clocked.now);
        assert_eq!(clocked.steps(false), [Step::WriteState, Step::End(Why::OutOfTime)]);

        let mut clocked =
            Clocked::new(|_| Limits { poll: Some(Duration::from_secs(3)), bounded: false, patience: None, ..limits() });
        let start = clocked.now;
        let ended = loop {
            if let Some(Step::End(why)) = clocked.wait(false).last() {
                break *why;
            }
        };
        assert_eq!(ended, Why::Quiet);
        assert!((clocked.now - start).as_secs_f32() < 4.5);
    }

    #[test]
    fn a_server_that_stands_still_short_of_the_end_is_found_out() {
        let mut clocked = Clocked::new(|_| limits());
        assert!(!clocked.answer(7, true));
        let start = clocked.now;
        loop {
            clocked.wait(false);
            if clocked.answer(7, true) {
                break;
            }
            assert!(clocked.now - start < Duration::from_secs(5));
        }
        assert!(clocked.now - start >= IDLE);
        clocked.wait(false);
        assert!(!clocked.answer(7, false), "elsewhere it is only busy");
        clocked.wait(false);
        assert!(!clocked.answer(8, true), "it moves");
    }

    #[test]
    fn changes_end_a_silence() {
        let mut clocked = Clocked::new(|_| limits());
        clocked.wait(false);
        clocked.wait(false);
        assert!(clocked.pace.wait() > FIRST_ASK);
        let now = clocked.now;
        clocked.pace.message(|| now);
        assert_eq!(clocked.pace.wait(), FIRST_ASK);
        clocked.pace.message(|| panic!("the time is not needed while messages come"));
    }
}
