//! What a test does beside itself until it is told to stop: an application that writes, say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A thread that goes on until [`Background::stop`], or until the test fails.
pub(crate) struct Background<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Background<T> {
    /// Starts a thread that works as long as the flag is not set.
    pub(crate) fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Background<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Background { stop, thread: Some(thread::spawn(move || work(&stopped))) }
    }

    /// Tells it to stop and waits until it has.
    #[track_caller]
    pub(crate) fn stop(mut self) -> T {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("only taken here").join().expect("the thread beside the test")
    }
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
