//! One line of a stack, and which lines are shown.
//!
//! Invariant: a stack in a finding never holds a frame of the shim; below the outermost `main` it holds frames
//! only when [`Trim::show_below_main`] asks for them.

use memcheck_model::Addr;
use serde::{Deserialize, Serialize};

use crate::serial;

/// One call, innermost first in a stack. What is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    /// Where in the running program: the instruction, or the return address of a call.
    #[serde(with = "serial::addr")]
    pub pc: Addr,
    /// The path of the executable or library.
    pub module: Option<String>,
    /// `pc` as the file of the module states it (before it was loaded at its address).
    #[serde(with = "serial::optional_hex")]
    pub offset: Option<u64>,
    /// The function, demangled.
    pub function: Option<String>,
    /// The path of the source file, as the compiler was given it and joined with its directory.
    pub file: Option<String>,
    /// The line in that file, from 1.
    pub line: Option<u32>,
    /// The column in that line, from 1.
    pub column: Option<u32>,
    /// Whether the compiler inlined this call into the next frame's function.
    pub inlined: bool,
}

impl Frame {
    /// The module's file name without directories.
    #[must_use]
    pub fn module_name(&self) -> Option<&str> {
        self.module.as_deref().map(base_name)
    }

    /// The source file's name without directories.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        self.file.as_deref().map(base_name)
    }

    fn is_shim(&self) -> bool {
        self.module_name().is_some_and(|name| name.starts_with("libmemcheck_preload"))
    }

    /// Whether this is the C library's way to `main` or to a thread's first function.
    fn is_start(&self) -> bool {
        const STARTS: [&str; 8] = [
            "__libc_start_call_main",
            "__libc_start_main",
            "__libc_start_main_impl",
            "start_thread",
            "clone",
            "clone3",
            "__clone",
            "__clone3",
        ];
        self.is_c_library() && self.function.as_deref().is_some_and(|name| STARTS.contains(&name))
    }

    fn is_c_library(&self) -> bool {
        self.module_name().is_some_and(|name| name.starts_with("libc.so") || name.starts_with("libc-2"))
    }

    fn is_system(&self) -> bool {
        const SYSTEM: [&str; 6] =
            ["/lib/", "/lib64/", "/lib32/", "/usr/lib/", "/usr/lib64/", "/usr/libexec/"];
        self.module.as_deref().is_none_or(|path| SYSTEM.iter().any(|prefix| path.starts_with(prefix)))
    }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// How many frames are at or above `main`, or a thread's first function. They need not have names.
fn above_main(stack: &[Frame]) -> usize {
    if let Some(main) = stack.iter().rposition(|frame| frame.function.as_deref() == Some("main")) {
        return main + 1;
    }
    let start = stack.iter().position(Frame::is_start).unwrap_or(stack.len());
    // Those of the library's own functions that only its debug file names.
    let nameless = |frame: &Frame| frame.function.is_none() && frame.is_c_library();
    let named = stack[..start].iter().rposition(|frame| !nameless(frame)).map_or(0, |index| index + 1);
    match stack[..named].last() {
        Some(last) if last.function.as_deref() == Some("_start") => named - 1,
        _ => named,
    }
}

/// The frame that a reader wants to see first: the innermost with a source line in the program's own code,
/// else the innermost with a source line anywhere above `main`.
#[must_use]
pub(crate) fn primary(stack: &[Frame]) -> Option<&Frame> {
    let stack = &stack[..above_main(stack)];
    let with_line = || stack.iter().filter(|frame| frame.file.is_some() && frame.line.is_some());
    with_line().find(|frame| !frame.is_system()).or_else(|| with_line().next())
}

/// Which frames of a stack are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Whether frames below `main`, and below a thread's first function, are kept.
    pub show_below_main: bool,
    /// How many frames are kept at most; none is no limit.
    pub num_callers: Option<usize>,
}

impl Trim {
    /// Drops the frames that are not shown.
    #[must_use]
    pub fn apply(self, mut stack: Vec<Frame>) -> Vec<Frame> {
        stack.retain(|frame| !frame.is_shim());
        if !self.show_below_main {
            stack.truncate(above_main(&stack).max(1));
        }
        if let Some(most) = self.num_callers {
            stack.truncate(most.max(1));
        }
        stack
    }
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    /// A function.
    Function,
    /// A variable.
    Variable,
}

/// What an address in a module's code or data belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddress {
    /// What kind of thing.
    pub symbol: Symbol,
    /// Its name, demangled.
    pub name: String,
    /// How many bytes from its start the address lies.
    pub offset: u64,
    /// How many bytes it has; zero when that is not known.
    pub size: u64,
    /// The path of the module.
    pub module: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> Frame {
        Frame {
            function: (!function.is_empty()).then(|| function.to_owned()),
            module: Some(module.to_owned()),
            ..Frame::default()
        }
    }

    fn names(stack: &[Frame]) -> Vec<&str> {
        stack.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
    }

    #[test]
    fn frames_of_the_shim_and_below_main_are_dropped() {
        let stack = vec![
            frame("hook", "/home/u/.cache/memcheck/libmemcheck_preload-1.so"),
            frame("fill", "/tmp/a.out"),
            frame("main", "/tmp/a.out"),
            frame("__libc_start_call_main", "/lib/x86_64-linux-gnu/libc.so.6"),
            frame("_start", "/tmp/a.out"),
        ];
        assert_eq!(names(&Trim::default().apply(stack.clone())), ["fill", "main"]);
        let all = Trim { show_below_main: true, num_callers: None }.apply(stack);
        assert_eq!(names(&all), ["fill", "main", "__libc_start_call_main", "_start"]);
    }

    #[test]
    fn main_that_calls_itself_keeps_its_outermost_call() {
        let stack = vec![frame("main", "a"), frame("f", "a"), frame("main", "a"), frame("_start", "a")];
        assert_eq!(names(&Trim::default().apply(stack)), ["main", "f", "main"]);
    }

    #[test]
    fn the_bottom_of_a_thread_is_dropped_but_never_the_whole_stack() {
        let libc = "/lib/x86_64-linux-gnu/libc.so.6";
        let stack = vec![frame("work", "a"), frame("", libc), frame("clone3", libc)];
        assert_eq!(names(&Trim::default().apply(stack)), ["work"]);
        assert_eq!(Trim::default().apply(vec![frame("", libc), frame("clone", libc)]).len(), 1);
    }

    #[test]
    fn frames_below_a_main_without_a_name_are_dropped() {
        let libc = "/lib/x86_64-linux-gnu/libc.so.6";
        let bottom = [frame("__libc_start_main", libc), frame("", "a"), frame("_start", "a")];
        for call_main in ["", "__libc_start_call_main"] {
            let mut stack = vec![frame("", "a"), frame("exit", libc), frame("", "a"), frame(call_main, libc)];
            stack.extend(bottom.clone());
            assert_eq!(names(&Trim::default().apply(stack)), ["?", "exit", "?"]);
        }
        assert_eq!(names(&Trim::default().apply(vec![frame("f", "a"), frame("_start", "a")])), ["f"]);
        let of_the_program = vec![frame("f", "a"), frame("clone", "a"), frame("", "a")];
        assert_eq!(Trim::default().apply(of_the_program).len(), 3);
    }

    #[test]
    fn what_is_below_main_is_never_shown_first() {
        let libc = "/lib/x86_64-linux-gnu/libc.so.6";
        let lined = |function| Frame { file: Some("f.c".into()), line: Some(1), ..frame(function, libc) };
        assert_eq!(primary(&[frame("", "a"), lined("__libc_start_call_main")]), None);
        let stack = [frame("", "a"), lined("qsort"), frame("", "a"), lined("__libc_start_main")];
        assert_eq!(primary(&stack), Some(&stack[1]));
    }

    #[test]
    fn the_first_frame_shown_is_the_programs_own() {
        let lined = |module: &str| Frame { file: Some("f.c".into()), line: Some(1), ..frame("f", module) };
        let stack = [lined("/lib/x86_64-linux-gnu/libc.so.6"), lined("/home/u/a.out")];
        assert_eq!(primary(&stack), Some(&stack[1]));
        assert_eq!(primary(&stack[..1]), Some(&stack[0]));
        assert_eq!(primary(&[frame("f", "a")]), None);
    }
}
