//! Writes each target's seeds to `corpus/TARGET`, where `cargo fuzz run TARGET` begins with them.

use std::{fs, io, path::Path};

fn main() -> io::Result<()> {
    for target in memcheck_fuzz::TARGETS {
        let directory = Path::new("corpus").join(target.name);
        fs::create_dir_all(&directory)?;
        for (index, seed) in (target.seeds)().iter().enumerate() {
            fs::write(directory.join(format!("seed-{index:04}")), seed)?;
        }
    }
    Ok(())
}
