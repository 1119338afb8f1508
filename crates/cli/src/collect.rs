//! What happens to what the targets say: findings are made, shown at once, and kept for the reports.

use memcheck_model::ErrorEvent;
use memcheck_wire::{Contexts, LossRecord, NoticeKind};

use crate::tree::Watched;

/// Where events go.
pub trait Collector {
    /// A process began.
    fn begin(&mut self, process: &Watched);
    /// An error of a context that its process did not have before. The thread that erred waits.
    fn error(&mut self, process: &Watched, stream: usize, context: u32, event: &ErrorEvent<'_>);
    /// A loss record.
    fn loss(&mut self, process: &Watched, loss: &LossRecord<'_>);
    /// Something to tell the user.
    fn notice(&mut self, process: &Watched, kind: NoticeKind, text: &str);
    /// The stream's process ended: its contexts are counted.
    fn counts(&mut self, process: &Watched, stream: usize, contexts: &Contexts);
}

/// Prints events as they come.
#[derive(Default)]
pub struct Printer {
    /// How many errors there were.
    pub errors: u64,
}

impl Printer {
    fn stack(process: &Watched, title: &str, stack: &[memcheck_model::Pc]) {
        if !stack.is_empty() {
            eprintln!("  {title}:");
        }
        for pc in stack {
            match process.find_module(memcheck_model::Addr(pc.0)) {
                Some(module) => {
                    eprintln!("    {pc} {}+{:#x}", module.path.display(), pc.0.wrapping_sub(module.bias));
                }
                None => eprintln!("    {pc}"),
            }
        }
    }
}

impl Collector for Printer {
    fn begin(&mut self, _: &Watched) {}

    fn error(&mut self, process: &Watched, _: usize, _: u32, event: &ErrorEvent<'_>) {
        self.errors += 1;
        eprintln!("{}: {}: {:?} {:?}", process.pid, event.kind.id(), event.address, event.place);
        eprintln!("  {:?} {:?} {:?}", event.function, event.access, event.detail);
        Self::stack(process, "at", event.stack);
        Self::stack(process, "allocated", event.allocated);
        Self::stack(process, "freed", event.freed);
    }

    fn loss(&mut self, process: &Watched, loss: &LossRecord<'_>) {
        eprintln!("{}: {} bytes in {} blocks {}", process.pid, loss.bytes, loss.blocks, loss.kind.id());
        Self::stack(process, "allocated", loss.stack);
    }

    fn notice(&mut self, process: &Watched, kind: NoticeKind, text: &str) {
        eprintln!("{}: {kind:?}: {text}", process.pid);
    }

    fn counts(&mut self, _: &Watched, _: usize, _: &Contexts) {}
}
