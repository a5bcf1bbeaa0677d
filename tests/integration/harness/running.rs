//! A tap that runs beside the test: read along or not, send a signal, look how it ends.

use std::io::{self, BufRead, BufReader};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::tap::{collect, wait};
use super::{Message, Output, Tap};

/// A sync under way.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<io::Result<String>>,
    stdout: String,
    messages: Vec<Message>,
    stderr: Option<JoinHandle<()>>,
    /// What has come of it so far.
    log: Arc<Mutex<String>>,
    /// Holds the program's files.
    tap: Tap,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(tap: Tap) -> Running {
        let mut child = tap.command().spawn().expect("run the tap");
        let stdout = BufReader::new(child.stdout.take().expect("a piped stdout"));
        let stderr = BufReader::new(child.stderr.take().expect("a piped stderr"));
        let log = Arc::new(Mutex::new(String::new()));
        let logged = Arc::clone(&log);
        let stderr = thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.expect("the tap logs UTF-8") + "\n";
                logged.lock().expect("only strings are put there").push_str(&line);
            }
        });
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                // The test may have lost interest.
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines, stdout: String::new(), messages: Vec::new(), stderr: Some(stderr), log, tap }
    }

    /// The next message; `None` at the end of stdout. Fails where neither comes in time.
    #[track_caller]
    pub(crate) fn next_message(&mut self, timeout: Duration) -> Option<&Message> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => {
                let line = line.expect("read a line of UTF-8 from the tap");
                self.messages.push(Message::parse(&line).unwrap_or_else(|error| panic!("{error}")));
                self.stdout.push_str(&line);
                self.stdout.push('\n');
                self.messages.last()
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no message within {timeout:?}; so far: {:?}", self.messages),
        }
    }

    /// Reads until a message is as wanted and returns it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, timeout: Duration, wanted: impl Fn(&Message) -> bool) -> Message {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next_message(left) {
                Some(message) if wanted(message) => return message.clone(),
                Some(_) => {}
                None => panic!("the tap ended before the message that was waited for: {:?}", self.messages),
            }
        }
    }

    /// Waits until the log holds this text.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + self.tap.time_limit();
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} never came; the log:\n{}", self.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        self.log.lock().expect("only strings are put there").clone()
    }

    /// What has been read so far.
    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its files.
    pub(crate) fn tap(&self) -> &Tap {
        &self.tap
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("send a signal to the tap");
    }

    /// Waits for the end and returns all it printed, what was read before included.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let timeout = self.tap.time_limit();
        let status = wait(&mut self.child, timeout);
        while self.next_message(timeout).is_some() {}
        self.stderr.take().expect("only taken here").join().expect("the thread that reads stderr");
        let stderr = self.log();
        let Some(status) = status else { panic!("the tap did not end within {timeout:?}; stderr:\n{stderr}") };
        let (messages, stdout) = (std::mem::take(&mut self.messages), std::mem::take(&mut self.stdout));
        Output { messages, stdout, stderr, status }
    }
}

/// A sync whose output nobody reads: it stands still once the pipe is full.
pub(crate) struct Stalled {
    child: Child,
    /// Holds the program's files.
    tap: Tap,
}

impl Stalled {
    #[track_caller]
    pub(crate) fn start(tap: Tap) -> Stalled {
        Stalled { child: tap.command().spawn().expect("run the tap"), tap }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("send a signal to the tap");
    }

    /// Reads everything and waits for the end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        collect(&mut self.child, self.tap.time_limit()).parsed()
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
