//! The processes of a run as their records describe them: who they are, which modules they have, what their
//! counters say, how they ended.
//!
//! In: records of one stream at a time. Out: [`Watched`] processes. Knows no files and no symbols.
//!
//! Invariant: at most one watched process that has not ended holds a given stream.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use memcheck_model::{Addr, LeakKind, Pc};
use memcheck_wire::{Counter, Module, ProcessStart, StartKind, Stream};

/// A module of a process, also after it was unmapped: old stacks still lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedModule {
    /// Where its first byte was mapped.
    pub start: Addr,
    /// Where its last mapping ended.
    pub end: Addr,
    /// What is added to the addresses stated in its file.
    pub bias: u64,
    /// Its file.
    pub path: OsString,
    /// Its build-id, or nothing.
    pub build_id: Vec<u8>,
    /// Whether it is mapped still.
    pub is_mapped: bool,
    /// The number it has since it was unloaded, or zero.
    pub unloaded: u16,
}

impl MappedModule {
    /// Whether this is the checker.
    pub fn is_shim(&self) -> bool {
        self.file_name().starts_with(b"libmemcheck_preload")
    }

    /// Whether this is the checker or the C library: what defines the functions that findings name.
    pub fn can_hold_functions(&self) -> bool {
        self.is_shim() || self.file_name().starts_with(b"libc.so")
    }

    fn contains(&self, addr: Addr) -> bool {
        self.start <= addr && addr < self.end
    }

    fn file_name(&self) -> &[u8] {
        Path::new(&self.path).file_name().unwrap_or_default().as_bytes()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It became another program.
    Exec,
    /// It ended unseen: neither its shim nor wait(2) told how.
    Unknown,
}

/// Blocks and bytes of one kind of leak, as the leak search summed them up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossSum {
    /// Of what.
    pub kind: LeakKind,
    /// How many blocks.
    pub blocks: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// One process image.
#[derive(Debug)]
pub struct Watched {
    /// Its number in the run.
    pub serial: u32,
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub ppid: u32,
    /// Whether it began by fork and is the same program as its parent.
    pub is_forked: bool,
    /// Its arguments.
    pub command: Vec<OsString>,
    /// Its modules, also former ones.
    pub modules: Vec<MappedModule>,
    /// Its statistics; the last known.
    pub counters: Vec<u64>,
    /// The sums of its leak search.
    pub loss_sums: Vec<LossSum>,
    /// Why functions were left native, as `count reason`.
    pub native_reasons: BTreeMap<String, u64>,
    /// System calls that were made without a look, as it says, with how often.
    pub unknown_calls: BTreeMap<String, u64>,
    /// How it ended, if it did.
    pub end: Option<End>,
}

impl Watched {
    /// A process that said it begins.
    fn new(pid: u32, start: &ProcessStart<'_>, modules: Vec<MappedModule>) -> Self {
        let arguments = start.arguments.strip_suffix(&[0]).unwrap_or(start.arguments);
        Self {
            serial: start.serial,
            pid,
            ppid: start.ppid,
            is_forked: matches!(start.kind, StartKind::Fork(_)),
            command: arguments
                .split(|&byte| byte == 0)
                .map(|word| OsString::from_vec(word.to_vec()))
                .collect(),
            modules,
            counters: vec![0; Counter::ALL.len()],
            loss_sums: Vec::new(),
            native_reasons: BTreeMap::new(),
            unknown_calls: BTreeMap::new(),
            end: None,
        }
    }

    /// Its command as text.
    pub fn words(&self) -> Vec<String> {
        self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// Its name for messages.
    pub fn name(&self) -> String {
        self.command.first().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// The statistic.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters[counter as usize]
    }

    /// Copies the statistics from the stream.
    pub fn take_counters(&mut self, stream: &Stream) {
        for (&counter, value) in Counter::ALL.iter().zip(&mut self.counters) {
            *value = stream.counter(counter).load(std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// Adds a module. What lay there before is unmapped, whether or not the process said so.
    pub fn add_module(&mut self, module: &Module<'_>) {
        if module.end <= module.start {
            return;
        }
        let path = OsString::from_vec(module.path.to_vec());
        let is_known = self.modules.iter().any(|old| {
            old.is_mapped && old.start == module.start && old.end == module.end && old.path == path
        });
        if is_known {
            return;
        }
        for old in &mut self.modules {
            old.is_mapped &= old.end <= module.start || module.end <= old.start;
        }
        self.modules.push(MappedModule {
            start: module.start,
            end: module.end,
            bias: module.bias,
            path,
            build_id: module.build_id.to_vec(),
            is_mapped: true,
            unloaded: 0,
        });
    }

    /// Notes that the module at this address is gone, and is known by this number.
    pub fn remove_module(&mut self, start: Addr, number: u16) {
        for module in self.modules.iter_mut().filter(|module| module.is_mapped && module.start == start) {
            module.is_mapped = false;
            // The last number is that of all that follow.
            module.unloaded = if number == u16::MAX { 0 } else { number };
        }
    }

    /// The module that a pc lies in: the unloaded one that it names, or as `find_module`.
    pub fn find_module_of(&self, pc: Pc) -> Option<&MappedModule> {
        let (addr, number) = (pc.addr(), pc.unloaded());
        if number == 0 {
            return self.find_module(addr);
        }
        self.modules.iter().find(|module| module.unloaded == number && module.contains(addr))
    }

    /// The module that the address lies in: the one mapped now, else the last that was.
    pub fn find_module(&self, addr: Addr) -> Option<&MappedModule> {
        let holds = |module: &&MappedModule| module.contains(addr);
        let mapped = self.modules.iter().rev().filter(holds).find(|module| module.is_mapped);
        mapped.or_else(|| self.modules.iter().rev().find(holds))
    }
}

/// All processes of a run, in the order in which the launcher heard of them.
#[derive(Debug, Default)]
pub struct Tree {
    processes: Vec<Watched>,
}

impl Tree {
    /// Adds a process and returns its index.
    pub fn begin(&mut self, pid: u32, start: &ProcessStart<'_>) -> usize {
        let modules = match start.kind {
            StartKind::Exec => Vec::new(),
            StartKind::Fork(parent) => {
                self.find_serial(parent).map(|parent| parent.modules.clone()).unwrap_or_default()
            }
        };
        self.processes.push(Watched::new(pid, start, modules));
        self.processes.len() - 1
    }

    fn find_serial(&self, serial: u32) -> Option<&Watched> {
        self.processes.iter().rev().find(|process| process.serial == serial)
    }

    /// The process with this index.
    pub fn get(&self, index: usize) -> &Watched {
        &self.processes[index]
    }

    /// The process with this index, to be changed.
    pub fn get_mut(&mut self, index: usize) -> &mut Watched {
        &mut self.processes[index]
    }

    /// All of them, in the order in which they began. Their streams may have been read in another one.
    pub fn into_order(mut self) -> Vec<Watched> {
        self.processes.sort_by_key(|process| process.serial);
        self.processes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(kind: StartKind, serial: u32) -> ProcessStart<'static> {
        ProcessStart { serial, ppid: 1, kind, arguments: b"prog\0one two\0\0" }
    }

    fn module(start: u64, end: u64, path: &'static [u8]) -> Module<'static> {
        Module { start: Addr(start), end: Addr(end), bias: start, build_id: b"", path }
    }

    #[test]
    fn arguments_keep_spaces_and_empty_words() {
        let mut tree = Tree::default();
        let index = tree.begin(9, &start(StartKind::Exec, 1));
        assert_eq!(tree.get(index).command, ["prog", "one two", ""]);
    }

    #[test]
    fn a_forked_child_has_its_parents_modules() {
        let mut tree = Tree::default();
        let parent = tree.begin(9, &start(StartKind::Exec, 1));
        tree.get_mut(parent).add_module(&module(0x1000, 0x2000, b"a"));
        let child = tree.begin(10, &start(StartKind::Fork(1), 2));
        assert_eq!(tree.get(child).find_module(Addr(0x1800)).unwrap().path, "a");
        let stranger = tree.begin(11, &start(StartKind::Fork(77), 3));
        assert!(tree.get(stranger).modules.is_empty());
    }

    #[test]
    fn unmapped_modules_are_found_until_another_takes_their_place() {
        let mut tree = Tree::default();
        let index = tree.begin(9, &start(StartKind::Exec, 1));
        let process = tree.get_mut(index);
        process.add_module(&module(0x1000, 0x3000, b"old"));
        process.remove_module(Addr(0x1000), 1);
        assert_eq!(process.find_module(Addr(0x2800)).unwrap().path, "old");
        process.add_module(&module(0x2000, 0x4000, b"new"));
        assert_eq!(process.find_module(Addr(0x2800)).unwrap().path, "new");
        let pc = Pc(0x2800);
        assert_eq!(process.find_module_of(pc).unwrap().path, "new");
        assert_eq!(process.find_module_of(pc.in_unloaded(1)).unwrap().path, "old");
        assert_eq!(process.find_module_of(pc.in_unloaded(2)), None);
        assert_eq!(process.find_module(Addr(0x1800)).unwrap().path, "old");
        assert_eq!(process.find_module(Addr(0x4000)), None);
    }

    #[test]
    fn processes_are_told_in_the_order_in_which_they_began() {
        let mut tree = Tree::default();
        for serial in [2, 3, 1] {
            tree.begin(9, &start(StartKind::Exec, serial));
        }
        assert_eq!(tree.into_order().iter().map(|process| process.serial).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn nonsense_ranges_are_no_modules() {
        let mut tree = Tree::default();
        let index = tree.begin(9, &start(StartKind::Exec, 1));
        tree.get_mut(index).add_module(&module(0x2000, 0x1000, b"x"));
        assert!(tree.get(index).modules.is_empty());
    }
}
