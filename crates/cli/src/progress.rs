//! Progress on the terminal for what takes long: shown on standard error, only when that is a terminal, and wiped away.
//!
//! Invariant: nothing is shown for what is done within [`PATIENCE`], and never anything in a log.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// Shorter work needs no sign of life.
const PATIENCE: Duration = Duration::from_millis(400);

/// One picture of the spinner.
const TICK: Duration = Duration::from_millis(120);

/// Does the work, with a spinner and `what` when it takes long.
pub fn during<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        return work();
    }
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Without a thread there is no spinner, and the work is done all the same.
        let _ = thread::Builder::new().spawn_scoped(scope, move || {
            if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let spinner = spinner(what);
                spinner.enable_steady_tick(TICK);
                let _ = is_done.recv();
                spinner.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}

fn spinner(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("memcheck: {spinner} {msg} ({elapsed})");
    let spinner = ProgressBar::new_spinner().with_message(what);
    match style {
        Ok(style) => spinner.with_style(style),
        Err(_) => spinner,
    }
}
