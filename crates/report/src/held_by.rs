//! What holds a block that is not lost, in words: `global cache → [16] → +8`.
//!
//! Between arrows stands one block: `[16]`, the pointer to the next one lies 16 bytes from its start; `+8`, the pointer
//! to it leads 8 bytes behind its start.

use memcheck_model::{Holding, PATH_STEPS, RootKind};
use serde::{Deserialize, Serialize};

use crate::frame::NamedAddress;

/// One path that holds one of the blocks of a loss record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBy {
    /// The path in words.
    pub path: String,
    /// What kind of place it begins at.
    pub root: RootPlace,
    /// The variable that it begins at, where that has a name.
    pub variable: Option<String>,
    /// The thread whose register, stack or storage it is.
    pub tid: Option<u32>,
}

/// A kind of place that pointers stand in, apart from blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootPlace {
    /// A variable of the program or of a library.
    Global,
    /// A register.
    Register,
    /// A stack.
    Stack,
    /// A thread-local variable.
    ThreadLocal,
    /// A value of `pthread_setspecific`, or a thread's result.
    ThreadData,
    /// Memory that the program mapped.
    Mapping,
}

impl HeldBy {
    /// The path; `named` is what its root lies in.
    #[must_use]
    pub fn new(holding: &Holding<'_>, pid: u32, named: Option<&NamedAddress>) -> Self {
        let tid = holding.root.tid.0;
        let thread = if tid == pid { "the main thread".to_owned() } else { format!("thread {tid}") };
        // A static variable of a function has a number behind its name.
        let variable = named.map(|named| {
            let name =
                named.name.rsplit_once('.').filter(|(_, tail)| tail.bytes().all(|b| b.is_ascii_digit()));
            name.map_or(named.name.as_str(), |(name, _)| name).to_owned()
        });
        let place = named.zip(variable.as_ref()).map(|(named, variable)| match named.offset {
            0 => variable.clone(),
            offset => format!("{variable}+{offset}"),
        });
        let (root, mut path) = match holding.root.kind {
            RootKind::Variable => {
                let path = match &place {
                    Some(place) => format!("global {place}"),
                    None => format!("the variable at {}", holding.root.address),
                };
                (RootPlace::Global, path)
            }
            RootKind::Register => (RootPlace::Register, format!("a register of {thread}")),
            RootKind::Stack => (RootPlace::Stack, format!("the stack of {thread}")),
            RootKind::ThreadLocal => {
                let path = match &place {
                    Some(place) => format!("thread-local {place} of {thread}"),
                    None => format!("a thread-local variable of {thread}"),
                };
                (RootPlace::ThreadLocal, path)
            }
            RootKind::ThreadData => (RootPlace::ThreadData, format!("thread-specific data of {thread}")),
            RootKind::Mapping => {
                (RootPlace::Mapping, format!("memory that the program mapped, at {}", holding.root.address))
            }
        };
        let last = holding.steps.len().saturating_sub(1);
        for (index, step) in holding.steps.iter().enumerate() {
            if index == PATH_STEPS / 2 && holding.left_out > 0 {
                path += &format!(" → … {} more …", holding.left_out);
            }
            match (step.into, index == last) {
                (0, true) => {}
                (into, true) => path += &format!(" → +{into}"),
                (0, false) => path += &format!(" → [{}]", step.at),
                (into, false) => path += &format!(" → +{into} [{}]", step.at),
            }
        }
        let tid = (tid != 0).then_some(tid);
        Self { path, root, variable, tid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Symbol;
    use memcheck_model::{Addr, Root, Step, ThreadId};

    fn path(kind: RootKind, steps: &[(u64, u64)], left_out: u64, named: Option<(&str, u64)>) -> String {
        let steps: Vec<Step> = steps.iter().map(|&(into, at)| Step { into, at }).collect();
        let root = Root { kind, address: Addr(0x1000), tid: ThreadId(9) };
        let named = named.map(|(name, offset)| NamedAddress {
            symbol: Symbol::Variable,
            name: name.to_owned(),
            offset,
            size: 64,
            module: "a.out".to_owned(),
        });
        HeldBy::new(&Holding { root, steps: &steps, left_out }, 9, named.as_ref()).path
    }

    #[test]
    fn a_path_names_its_root_and_the_pointers_on_the_way() {
        let global = RootKind::Variable;
        assert_eq!(path(global, &[(0, 16), (8, 0)], 0, Some(("cache", 0))), "global cache → [16] → +8");
        assert_eq!(path(global, &[(0, 0)], 0, Some(("held.3", 8))), "global held+8");
        assert_eq!(path(global, &[(4, 8), (0, 0)], 0, None), "the variable at 0x1000 → +4 [8]");
        assert_eq!(path(RootKind::Stack, &[(0, 0)], 0, None), "the stack of the main thread");
        let local = RootKind::ThreadLocal;
        assert_eq!(path(local, &[(0, 0)], 0, Some(("held", 8))), "thread-local held+8 of the main thread");
        assert_eq!(path(local, &[(0, 0)], 0, None), "a thread-local variable of the main thread");
        let long = path(global, &[(0, 8); PATH_STEPS], 84, Some(("list", 0)));
        assert_eq!(long.matches("[8]").count(), PATH_STEPS - 1);
        assert!(long.contains("[8] → … 84 more … → [8]"), "{long}");
    }
}
