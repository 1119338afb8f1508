//! The order in which the shim begins: called by the loader before the target's own constructors.

use crate::{channel, lifecycle};

extern "C" fn begin() {
    channel::connect();
    lifecycle::begin();
}

#[used]
#[cfg_attr(not(test), unsafe(link_section = ".init_array"))]
static BEGIN: extern "C" fn() = begin;
