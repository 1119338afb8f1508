//! Lines of source files, for showing them.

use std::{collections::HashMap, fs};

/// A file larger than this is not source that anybody wrote.
const LARGEST_BYTES: u64 = 16 << 20;

/// Reads source files once each; a file that cannot be read has no lines.
#[derive(Debug, Default)]
pub struct Sources {
    files: HashMap<String, Vec<String>>,
}

impl Sources {
    /// The line with this number, from 1.
    pub fn line(&mut self, file: &str, number: u32) -> Option<&str> {
        let lines = self.files.entry(file.to_owned()).or_insert_with(|| read(file));
        lines.get((number as usize).checked_sub(1)?).map(String::as_str)
    }
}

fn read(file: &str) -> Vec<String> {
    match fs::metadata(file) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= LARGEST_BYTES => {}
        _ => return Vec::new(),
    }
    let bytes = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}
