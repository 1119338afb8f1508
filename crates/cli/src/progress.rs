//! Progress on the terminal for what takes long: shown on standard error, only when that is a terminal, and wiped away.
//!
//! Invariant: nothing is shown for what is done within [`PATIENCE`], and never anything in a log.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Shorter work needs no sign of life.
const PATIENCE: Duration = Duration::from_millis(200);

/// Another patience, in milliseconds, for the project's own tests: with none everything is shown, however short.
const PATIENCE_VARIABLE: &str = "MEMCHECK_PATIENCE";

/// One picture of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// A sign of life, until it is dropped.
pub struct Spinner {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Spinner {
    /// Shows soon that `what` goes on.
    pub fn start(what: &'static str) -> Self {
        if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            return Self { done: None, thread: None };
        }
        let set = std::env::var(PATIENCE_VARIABLE).ok().and_then(|text| text.parse().ok());
        let patience = set.map_or(PATIENCE, Duration::from_millis);
        let (done, is_done) = mpsc::channel::<()>();
        // Without a thread there is no spinner, and the work is done all the same.
        let thread = thread::Builder::new().spawn(move || {
            if patience.is_zero() || is_done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                let spinner = spinner(what);
                spinner.tick();
                spinner.enable_steady_tick(TICK);
                let _ = is_done.recv();
                spinner.finish_and_clear();
            }
        });
        Self { done: Some(done), thread: thread.ok() }
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // Until it has wiped its line.
            let _ = thread.join();
        }
    }
}

/// Does the work, with a spinner and `what` when it takes long.
pub fn during<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let _spinner = Spinner::start(what);
    work()
}

fn spinner(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("memcheck: {spinner} {msg} ({elapsed})");
    let spinner = ProgressBar::new_spinner().with_message(what);
    match style {
        Ok(style) => spinner.with_style(style),
        Err(_) => spinner,
    }
}
