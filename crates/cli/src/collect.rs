//! What happens to what the targets say.

use memcheck_model::ErrorEvent;
use memcheck_wire::{Contexts, LossRecord, NoticeKind};

use crate::tree::Watched;

/// Where the events of watched processes go.
pub trait Collector {
    /// An error of a context that its process did not have before. The thread that erred waits.
    fn error(&mut self, process: &Watched, context: u32, event: &ErrorEvent<'_>);
    /// A loss record.
    fn loss(&mut self, process: &Watched, loss: &LossRecord<'_>);
    /// Something to tell the user.
    fn notice(&mut self, process: &Watched, kind: NoticeKind, text: &str);
    /// The process ended: how often each of its contexts occurred.
    fn counts(&mut self, process: &Watched, contexts: &Contexts);
}
