//! The rewriting engine's hold on the running target: shadow memory, code memory, translation on first call,
//! and what emitted code calls when a check fails.

pub mod shadow_map;
