//! The order in which the shim begins: called by the loader before the target's own constructors.

use crate::{channel, heap, lifecycle, modules, stacks};

extern "C" fn begin() {
    stacks::begin(channel::connect().num_callers);
    heap::begin();
    modules::begin();
    heap::look_for_others();
    lifecycle::begin();
}

#[used]
#[cfg_attr(not(test), unsafe(link_section = ".init_array"))]
static BEGIN: extern "C" fn() = begin;
