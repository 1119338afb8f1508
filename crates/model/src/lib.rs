//! The vocabulary that every part of memcheck shares: addresses, identifiers, what a finding is called and
//! what an error event says. Plain data, no behaviour beyond arithmetic that cannot overflow silently and how text
//! matches a pattern.
//!
//! Runs anywhere: no allocation, no locks, no system calls.
#![no_std]
#![forbid(unsafe_code)]

mod access;
mod addr;
mod block;
mod error;
mod event;
mod file_name;
mod function;
mod holding;
mod ids;
mod leak;
mod parameter;
mod wildcard;

pub use access::{Access, AccessKind};
pub use addr::{Addr, AddrRange, Pc, Size};
pub use block::{Block, BlockState, FREED_FILL, Place, REDZONE_FILL};
pub use error::{ErrorKind, Severity};
pub use event::{Damage, Detail, ErrorEvent, MAX_FRAMES};
pub use file_name::FileName;
pub use function::Function;
pub use holding::{Holding, PATH_STEPS, Root, RootKind, Step};
pub use ids::{StackId, ThreadId};
pub use leak::{LeakKind, SearchScope};
pub use parameter::ParameterName;
pub use wildcard::is_wildcard_match;
