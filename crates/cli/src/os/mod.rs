//! The launcher's edge to the kernel: everything here that Rust cannot check. The rest of the crate is safe.

#![expect(
    unsafe_code,
    reason = "the system calls that no safe wrapper offers; each block says why it is sound"
)]

mod beginning;
mod content;
mod lifeline;
mod mapping;
mod pid;
mod spawn;

pub use beginning::Beginning;
pub use content::holds;
pub use lifeline::hold_lifeline;
pub use mapping::Channel;
pub use pid::{PidWatch, capabilities_of, die_by, forward, session_of, time_in_queue};
pub use spawn::{SpawnError, spawn};
