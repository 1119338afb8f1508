//! From addresses in a watched process to frames with names.

use memcheck_model::{Addr, Pc};
use memcheck_report::{Frame, NamedAddress};

use crate::tree::Watched;

/// Whether the first address of a stack is the instruction itself or a return address, as the others are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// The instruction that erred.
    Exact,
    /// A return address.
    Return,
}

/// Looks names up.
#[derive(Default)]
pub struct Names {}

impl Names {
    /// The frames of a stack.
    pub fn frames(&mut self, process: &Watched, stack: &[Pc], _top: Top) -> Vec<Frame> {
        stack
            .iter()
            .map(|&pc| {
                let module = process.find_module(Addr(pc.0));
                Frame {
                    pc: Addr(pc.0),
                    module: module.map(|module| module.path.to_string_lossy().into_owned()),
                    offset: module.map(|module| pc.0.wrapping_sub(module.bias)),
                    ..Frame::default()
                }
            })
            .collect()
    }

    /// The variable or function that an address of a module belongs to.
    pub fn named(&mut self, _process: &Watched, _address: Addr) -> Option<NamedAddress> {
        None
    }
}
