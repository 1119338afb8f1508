//! The catalogue of findings: what each kind means, a small program that has it, and what memcheck says.
//!
//! One source for `--explain ID` ([`explain`]) and for docs/FINDINGS.md ([`page`]). The programs and the outputs
//! are files in `catalogue/`, `ID.c` and `ID.txt`; `.ci/findings` runs the programs and writes the outputs.
//!
//! Invariant: every [`ErrorKind`] and every `LeakKind` has exactly one entry, in the order of the vocabulary.

use std::fmt::Write as _;

use memcheck_model::ErrorKind;

use crate::words::wrap;

/// One kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The stable id.
    pub id: &'static str,
    /// What it is, in half a sentence.
    pub title: &'static str,
    /// The cause and the consequences.
    pub cause: &'static str,
    /// What to try.
    pub remedy: &'static str,
    /// Numbers of the Common Weakness Enumeration.
    pub cwe: &'static [u32],
    /// A program that has it.
    pub example: &'static str,
    /// What memcheck says of that program; none where it does not find the kind yet.
    pub output: Option<&'static str>,
}

macro_rules! entry {
    ($id:literal, $title:literal, $cwe:expr, $cause:literal, $remedy:literal, seen) => {
        Entry {
            output: Some(include_str!(concat!("catalogue/", $id, ".txt"))),
            ..entry!($id, $title, $cwe, $cause, $remedy, later)
        }
    };
    ($id:literal, $title:literal, $cwe:expr, $cause:literal, $remedy:literal, later) => {
        Entry {
            id: $id,
            title: $title,
            cause: $cause,
            remedy: $remedy,
            cwe: &$cwe,
            example: include_str!(concat!("catalogue/", $id, ".c")),
            output: None,
        }
    };
}

/// Every entry.
pub const CATALOGUE: &[Entry] = &[
    entry!(
        "heap-buffer-overflow",
        "an access before the start or past the end of a block",
        [122, 787, 125],
        "An index or a length exceeds what was allocated. The neighbouring memory belongs to another block or to the \
         allocator: a write there destroys it, a read gives chance values. Where the access itself was not watched, \
         the bytes around the block show the write later (\"found late\"): when the block is freed or resized, or when \
         the program ends.",
        "Check indices against the number of elements (`i < n`, not `i <= n`), remember that malloc counts bytes \
         (`n * sizeof *p`) and that a string needs one byte more than strlen says.",
        seen
    ),
    entry!(
        "heap-use-after-free",
        "an access to a block after it was freed",
        [416],
        "The program kept a pointer to a block that it gave back. The memory may belong to something else by then. \
         A write that was not watched is found late, when the memory is looked at again.",
        "Free a block after its last use; set the pointers to it to NULL when it is freed.",
        seen
    ),
    entry!(
        "wild-access",
        "an access to an address that belongs to nothing",
        [822, 824],
        "The pointer was never set, was overwritten, or was computed wrongly.",
        "Set pointers where they are declared; look at where this one got its value.",
        seen
    ),
    entry!(
        "null-dereference",
        "a fatal access through a null pointer",
        [476],
        "A function that returns NULL when it fails was not checked, or a pointer was not set. An offset in the message \
         is that of the member or element that was wanted.",
        "Check the pointer before it is used.",
        seen
    ),
    entry!(
        "fatal-signal",
        "a signal that ended the program",
        [754],
        "SIGABRT: the program or a library gave up, as a failed assertion does. SIGFPE: a division by zero. SIGILL and \
         SIGTRAP: an impossible place was reached. SIGBUS: a mapped file became shorter. SIGSEGV: the memory exists but \
         forbids the access (a string constant is written), or the stack overflowed.",
        "Look at the line that the report shows, and at what the program printed just before.",
        seen
    ),
    entry!(
        "double-free",
        "a block freed a second time",
        [415],
        "Two parts of the program each believe that they own the block. Without memcheck the allocator's own lists break, \
         at once or much later.",
        "Decide which part frees the block, and set the pointer to NULL when it is freed (free of NULL does nothing).",
        seen
    ),
    entry!(
        "bad-free",
        "an address freed that no allocator function returned",
        [590, 761],
        "The pointer was moved since malloc returned it, or it points to a local or global variable, a string constant, a \
         function or nothing at all. The message says which.",
        "Keep the pointer that malloc returned, and free that one only.",
        seen
    ),
    entry!(
        "bad-realloc",
        "realloc of an address that is no live block",
        [415, 590],
        "The block was freed before, perhaps by an earlier realloc, whose return value was not kept; or the pointer never \
         came from an allocator function.",
        "Use only what the last realloc returned: `q = realloc(p, n); if (q) p = q;`.",
        seen
    ),
    entry!(
        "alloc-dealloc-mismatch",
        "a block given back through the wrong function, size or alignment",
        [762],
        "What malloc allocates is given back by free, new by delete, new[] by delete[]. Another pairing works by chance \
         only, and skips destructors.",
        "Use the function that belongs to the one that allocated the block.",
        seen
    ),
    entry!(
        "param-overlap",
        "overlapping source and destination where the function forbids it",
        [475],
        "memcpy, strcpy and their like may copy in any order, so that bytes are overwritten before they are read.",
        "Use memmove, or another buffer.",
        later
    ),
    entry!(
        "bad-size",
        "a size that is negative when read as signed, or overflows",
        [131, 190],
        "Sizes are unsigned: a negative number becomes a huge one. calloc and reallocarray multiply; where the product \
         overflows they fail.",
        "Check the arithmetic before the call; check for NULL after it.",
        seen
    ),
    entry!(
        "bad-alignment",
        "an alignment that the function does not allow",
        [628],
        "Alignments are powers of two, for posix_memalign also multiples of a pointer's size.",
        "Use a power of two such as alignof(max_align_t) or 64.",
        seen
    ),
    entry!(
        "realloc-zero",
        "realloc to size zero, whose meaning the C standard leaves open",
        [758],
        "glibc frees the block and returns NULL, other systems return a block of no bytes, and C23 makes it undefined. A \
         note: it does not change the verdict.",
        "Call free.",
        seen
    ),
    entry!(
        "syscall-param",
        "a system call told to read or write memory that it must not",
        [805, 130],
        "The kernel reads or writes as many bytes as it is told, past the end of the block or in a freed one.",
        "Pass the true size of the buffer.",
        seen
    ),
    entry!(
        "use-of-uninitialised",
        "a decision made on a value that was never set",
        [457, 908],
        "What malloc returns and what a local variable holds is left from earlier uses.",
        "Set the value where it is declared, or allocate with calloc.",
        later
    ),
    entry!(
        "stack-buffer-overflow",
        "an access past the end of a variable on the stack",
        [121],
        "An index or a length exceeds a local array.",
        "Check it against the array's size.",
        later
    ),
    entry!(
        "global-buffer-overflow",
        "an access past the end of a global variable",
        [787, 125],
        "An index or a length exceeds a global array.",
        "Check it against the array's size.",
        later
    ),
    entry!(
        "fd-leak",
        "a descriptor left open at exit",
        [775],
        "A program that opens files and never closes them runs out of descriptors. Looked for with --track-fds=yes; the \
         stack is where the descriptor was opened.",
        "Close the descriptor on every path.",
        seen
    ),
    entry!(
        "fd-double-close",
        "a descriptor closed twice",
        [1341],
        "The number may have been given to another file in between, which is closed then. Looked for with \
         --track-fds=yes, and told where the kernel refused the second close.",
        "Close in one place, and set the variable to -1.",
        seen
    ),
    entry!(
        "fd-use-after-close",
        "a descriptor used after it was closed",
        [910],
        "The number is invalid, or belongs to another file by then. Looked for with --track-fds=yes, and told where the \
         kernel refused the call.",
        "Close the descriptor after its last use.",
        seen
    ),
    entry!(
        "forbidden-access",
        "an access to memory that the program itself forbade, by a client request",
        [119],
        "The program, or a library that it uses, contains Valgrind's client requests and said with \
         VALGRIND_MAKE_MEM_NOACCESS, or by the redzones of a pool, that nobody may touch this memory now.",
        "Look at who still uses the memory, or at whether it is allowed again (VALGRIND_MAKE_MEM_UNDEFINED) before it \
         is used again.",
        seen
    ),
    entry!(
        "client-check",
        "memory that the program asked about must not be touched",
        [119],
        "The program contains Valgrind's client request VALGRIND_CHECK_MEM_IS_ADDRESSABLE (or _IS_DEFINED), and not \
         every byte that it asked about may be touched.",
        "Pass the true size; look at where the block came from and whether it was freed.",
        seen
    ),
    entry!(
        "bad-mempool",
        "a client request about a memory pool that does not exist",
        [672],
        "The program told with VALGRIND_MEMPOOL_ALLOC and its like of a pool that VALGRIND_CREATE_MEMPOOL never created, \
         or that was destroyed.",
        "Create the pool before it is used, and forget it when it is destroyed.",
        seen
    ),
    entry!(
        "fd-inherited",
        "a descriptor that the program was started with, open at its exit",
        [403],
        "The program did not open it: its parent did, and left it open across exec. A note, told with --track-fds=yes (the \
         three standard descriptors with --track-fds=all); it does not change the verdict.",
        "Open files with O_CLOEXEC in the parent.",
        seen
    ),
    entry!(
        "definite",
        "a lost block: nothing points to it any more",
        [401],
        "The last pointer to the block was overwritten or went out of scope, so that the program cannot free it. Counts as \
         an error.",
        "Free the block before its last pointer goes, on every path.",
        later
    ),
    entry!(
        "indirect",
        "a lost block to which only lost blocks point",
        [401],
        "Nodes of a lost list or tree are lost with its head. Shown with --show-leak-kinds=all.",
        "Find out why the head is lost; these go away with it.",
        later
    ),
    entry!(
        "possible",
        "a block into whose middle something points, but to whose start nothing does",
        [401],
        "Either the program computes the start from that pointer, or it is a chance value and the block is lost. Counts as \
         an error.",
        "Keep a pointer to the start, and free the block.",
        later
    ),
    entry!(
        "reachable",
        "a block never freed, to which the program still points at its end",
        [401],
        "No error by itself: the system takes the memory back. Shown with --show-leak-kinds=all.",
        "Free it at the end if you want a clean report; worry if there are more of them the longer the program runs.",
        later
    ),
];

/// The entry with this id.
#[must_use]
pub fn find_entry(id: &str) -> Option<&'static Entry> {
    CATALOGUE.iter().find(|entry| entry.id == id)
}

/// The explanation of a finding's id for a terminal, if there is such a kind.
#[must_use]
pub fn explain(id: &str) -> Option<String> {
    let entry = find_entry(id)?;
    let mut text = format!("{}: {}.\n\n", entry.id, entry.title);
    for paragraph in [entry.cause, &format!("What to try: {}", entry.remedy)] {
        let _ = writeln!(text, "{}\n", wrap(paragraph, 80, 0));
    }
    text.push_str("Example:\n\n");
    for line in entry.example.lines() {
        let _ = writeln!(text, "{}", format!("    {line}").trim_end());
    }
    match entry.output {
        Some(output) => {
            text.push_str("\nwhich is reported as\n\n");
            for line in output.lines() {
                let _ = writeln!(text, "{}", format!("    {line}").trim_end());
            }
        }
        None => text.push_str("\nThis version has no example output of it.\n"),
    }
    Some(text)
}

/// docs/FINDINGS.md.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# The findings\n\n\
         What each id means, a small program that has it, and what memcheck says of that program. The same texts are \
         shown by `memcheck --explain ID`. This page is generated: `MEMCHECK_BLESS=1 cargo test -p memcheck-report \
         --test findings_page`.\n\n\
         The programs were compiled with `cc -g` and run with `memcheck ./a.out`; `indirect` and `reachable` with \
         `--show-leak-kinds=all`.\n",
    );
    for (heading, is_leak) in [("Errors and notes", false), ("Leaks", true)] {
        let _ = writeln!(page, "\n## {heading}");
        let is_kind = |entry: &&Entry| ErrorKind::from_id(entry.id).is_none() == is_leak;
        for entry in CATALOGUE.iter().filter(is_kind) {
            let cwe: Vec<String> = entry.cwe.iter().map(|number| format!("CWE-{number}")).collect();
            let _ = write!(
                page,
                "\n### {}\n\n{}{} ({}).\n\n{}\n\n**What to try:** {}\n\n```c\n{}```\n",
                entry.id,
                entry.title[..1].to_uppercase(),
                &entry.title[1..],
                cwe.join(", "),
                entry.cause,
                entry.remedy,
                entry.example
            );
            match entry.output {
                Some(output) => {
                    let _ = write!(page, "\n```text\n{output}```\n");
                }
                None => page.push_str("\nThis version has no example output of it.\n"),
            }
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use memcheck_model::LeakKind;

    #[test]
    fn every_kind_has_exactly_one_entry_in_order() {
        let kinds: Vec<&str> =
            ErrorKind::ALL.iter().map(|kind| kind.id()).chain(LeakKind::ALL.map(LeakKind::id)).collect();
        let entries: Vec<&str> = CATALOGUE.iter().map(|entry| entry.id).collect();
        assert_eq!(entries, kinds);
    }

    #[test]
    fn an_output_names_the_id_that_it_is_an_example_of() {
        for entry in CATALOGUE {
            assert!(
                entry.output.is_none_or(|output| output.contains(&format!("[{}]", entry.id))),
                "{}",
                entry.id
            );
            assert!(entry.example.lines().count() <= 13, "{}", entry.id);
        }
    }

    #[test]
    fn explanations_fit_a_terminal_and_unknown_ids_have_none() {
        let text = explain("double-free").unwrap();
        assert!(text.starts_with("double-free: a block freed a second time.\n"));
        assert!(text.lines().take(8).all(|line| line.chars().count() <= 80));
        assert_eq!(explain("no-such-kind"), None);
    }
}
