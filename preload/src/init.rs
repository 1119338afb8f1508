//! The order in which the shim begins: called by the loader before all other constructors (`preload/build.rs`).

use crate::{channel, descriptors, engine, heap, lifecycle, modules, stacks};

extern "C" fn begin() {
    let options = channel::connect();
    stacks::begin(options.num_callers);
    heap::begin();
    engine::install::begin(&options);
    modules::begin();
    lifecycle::begin();
    descriptors::begin(options.track_fds);
}

#[used]
#[cfg_attr(not(test), unsafe(link_section = ".init_array"))]
static BEGIN: extern "C" fn() = begin;
