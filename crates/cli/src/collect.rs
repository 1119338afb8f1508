//! What happens to what the targets say.

use memcheck_model::{ErrorEvent, Pc, SearchScope};
use memcheck_report::Color;
use memcheck_wire::{Contexts, LossRecord, NoticeKind, Stream};

use crate::{
    questions::Wanted,
    tree::{LossSum, Watched},
};

/// Where the events of watched processes go.
pub trait Collector {
    /// An error of a context that its process did not have before. The thread that erred waits. Whether it counts as
    /// one.
    fn error(&mut self, process: &Watched, context: u32, event: &ErrorEvent<'_>) -> bool;
    /// A loss record.
    fn loss(&mut self, process: &Watched, loss: &LossRecord<'_>);
    /// A loss record of a search on demand.
    fn asked_loss(&mut self, process: &Watched, loss: &LossRecord<'_>);
    /// The sums of such a search for one kind.
    fn asked_sum(&mut self, process: &Watched, sum: LossSum);
    /// Such a search has ended: its text.
    fn answer(&mut self, process: &Watched, wanted: Wanted, color: Color) -> String;
    /// A search has ended that the program itself asked for; the sums are stored in its stream.
    fn searched(&mut self, process: &Watched, scope: SearchScope, stream: &Stream);
    /// Something to tell the user.
    fn notice(&mut self, process: &Watched, kind: NoticeKind, text: &str);
    /// What the program itself wants to be told to the user, and where it said so. The thread waits.
    fn message(&mut self, process: &Watched, text: &str, stack: &[Pc]);
    /// The process ended: how often each of its contexts occurred.
    fn counts(&mut self, process: &Watched, contexts: &Contexts);
}
