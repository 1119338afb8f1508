//! The launcher's ear for `memcheck ctl`: a socket with a name made of the launcher's id, which only its user and root
//! are answered at.
//!
//! ```text
//!  → leaks new|all plain|color PID\n
//!  ← ok\n or failed\n, then text up to the end
//! ```
//! Runs on threads of its own: a client that is slow, or says nothing, keeps nobody waiting.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use memcheck_report::Color;
use nix::{
    sys::{
        eventfd::EventFd,
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::geteuid,
};

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a process may take to answer: stopping threads may take twenty seconds.
const SEARCH: Duration = Duration::from_secs(30);
/// Longer requests are none.
const REQUEST_MAX: u64 = 100;

/// Which loss records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// What is new, or has grown, since the last call.
    New,
    /// All.
    All,
}

/// A text, or why there is none.
pub type Answer = Result<String, String>;

/// A question about a process.
#[derive(Debug)]
pub struct Question {
    /// The process, or the launcher itself for the program it started.
    pub pid: u32,
    /// What is wanted.
    pub wanted: Wanted,
    /// How the text is.
    pub color: Color,
    answer: mpsc::Sender<Answer>,
}

impl Question {
    /// Answers it.
    pub fn answer(self, answer: Answer) {
        // A client that waited too long is gone.
        let _ = self.answer.send(answer);
    }
}

/// The name of a launcher's socket: in the abstract namespace, so that nothing is left behind.
pub fn address(launcher: u32) -> std::io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("memcheck-{launcher}"))
}

/// The user at the other end.
pub fn peer(stream: &UnixStream) -> Option<u32> {
    getsockopt(stream, PeerCredentials).ok().map(|credentials| credentials.uid())
}

/// The request of [`parse`].
pub fn request(pid: u32, wanted: Wanted, color: Color) -> String {
    let wanted = if wanted == Wanted::New { "new" } else { "all" };
    let color = if color == Color::Ansi { "color" } else { "plain" };
    format!("leaks {wanted} {color} {pid}\n")
}

fn parse(line: &str) -> Option<(u32, Wanted, Color)> {
    let mut words = line.split_whitespace();
    if words.next()? != "leaks" {
        return None;
    }
    let wanted = match words.next()? {
        "new" => Wanted::New,
        "all" => Wanted::All,
        _ => return None,
    };
    let color = if words.next()? == "color" { Color::Ansi } else { Color::Plain };
    Some((words.next()?.parse().ok()?, wanted, color))
}

/// Listens, rings the bell for each question, and passes on what is answered. Where nobody can listen there are no
/// questions.
pub fn listen(bell: &Arc<EventFd>) -> mpsc::Receiver<Question> {
    let (ask, questions) = mpsc::channel();
    let bell = Arc::clone(bell);
    if let Ok(listener) = address(std::process::id()).and_then(|address| UnixListener::bind_addr(&address)) {
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (ask, bell) = (ask.clone(), Arc::clone(&bell));
                thread::spawn(move || {
                    let answer = serve(&client, &ask, &bell);
                    let (head, text) = match &answer {
                        Ok(text) => ("ok", text),
                        Err(reason) => ("failed", reason),
                    };
                    let _ = (&client).write_all(format!("{head}\n{text}").as_bytes());
                });
            }
        });
    }
    questions
}

fn serve(client: &UnixStream, ask: &mpsc::Sender<Question>, bell: &EventFd) -> Answer {
    if !peer(client).is_some_and(|user| user == 0 || user == geteuid().as_raw()) {
        return Err("the process belongs to another user".to_owned());
    }
    let _ = client.set_read_timeout(Some(PATIENCE));
    let _ = client.set_write_timeout(Some(PATIENCE));
    let mut line = String::new();
    let _ = BufReader::new(client.take(REQUEST_MAX)).read_line(&mut line);
    let (pid, wanted, color) = parse(&line).ok_or("the request makes no sense")?;
    let (answer, answered) = mpsc::channel();
    let question = Question { pid, wanted, color, answer };
    let gone = |_| "the program has ended".to_owned();
    ask.send(question).map_err(|_| gone(()))?;
    let _ = bell.write(1);
    match answered.recv_timeout(SEARCH) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!(
            "process {pid} did not answer within {} seconds: its threads block all signals, or it is stopped",
            SEARCH.as_secs()
        )),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_they_were_written() {
        for (wanted, color) in [(Wanted::New, Color::Ansi), (Wanted::All, Color::Plain)] {
            assert_eq!(parse(&request(7, wanted, color)), Some((7, wanted, color)));
        }
        for line in
            ["", "leaks", "leaks some plain 7", "leaks all plain", "leaks all plain x", "blocks all plain 7"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
