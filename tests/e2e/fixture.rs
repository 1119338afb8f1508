//! A fixture: one C or C++ program with one bug, its expectations, its variants and its clean twin.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::expectation::{Bindings, Expectation, ExpectedLeak, When};

/// One program as it stands in `fixtures/`.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Where it is.
    pub path: PathBuf,
    /// `group/name`.
    pub name: String,
    /// Its text.
    pub source: String,
    /// More flags for the compiler.
    pub flags: Vec<String>,
    grid: Vec<(String, Vec<i64>)>,
}

/// What one variant of a fixture must lead to.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Findings that are no leaks.
    pub errors: Vec<Expectation>,
    /// Loss records of the program.
    pub leaks: Vec<ExpectedLeak>,
    /// Where the block of every finding was allocated.
    pub allocated: Vec<u32>,
    /// Where the block of every finding was freed.
    pub freed: Vec<u32>,
    /// The name of the signal that the program dies by.
    pub signal: Option<String>,
}

/// The folder of the fixtures.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Every fixture, in the order of the names.
pub fn all() -> Vec<Fixture> {
    let mut found = BTreeMap::new();
    let groups = fs::read_dir(folder()).expect("fixtures/ is readable").flatten();
    for group in groups.filter(|group| {
        !matches!(group.file_name().to_str(), Some("include" | "lib" | "golden" | "programs" | "traps"))
    }) {
        let Ok(files) = fs::read_dir(group.path()) else { continue };
        for path in files.flatten().map(|file| file.path()) {
            if path.extension().is_some_and(|extension| extension == "c" || extension == "cc") {
                let fixture = Fixture::read(&path);
                found.insert(fixture.name.clone(), fixture);
            }
        }
    }
    found.into_values().collect()
}

impl Fixture {
    fn read(path: &Path) -> Self {
        let source = fs::read_to_string(path).expect("a fixture is readable text");
        let mut name = path.strip_prefix(folder()).expect("fixtures lie below their folder").to_owned();
        name.set_extension("");
        let mut fixture = Self {
            path: path.to_owned(),
            name: name.to_string_lossy().into_owned(),
            source,
            flags: Vec::new(),
            grid: Vec::new(),
        };
        for line in fixture.source.clone().lines() {
            if let Some(flags) = line.strip_prefix("// flags: ") {
                fixture.flags.extend(flags.split_whitespace().map(str::to_owned));
            } else if let Some(grid) = line.strip_prefix("// grid: ") {
                for axis in grid.split_whitespace() {
                    let (name, values) = axis.split_once('=').expect("a grid is NAME=1,2,3");
                    let values =
                        values.split(',').map(|v| v.parse().expect("a grid holds numbers")).collect();
                    fixture.grid.push((name.to_owned(), values));
                }
            }
        }
        fixture
    }

    /// Whether it is C++.
    pub fn is_cxx(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "cc")
    }

    /// Every combination of the grid's values.
    pub fn variants(&self) -> Vec<Bindings> {
        let mut variants = vec![Bindings::new()];
        for (name, values) in &self.grid {
            let with = |variant: &Bindings, value| {
                let mut wider = variant.clone();
                wider.insert(name.clone(), value);
                wider
            };
            variants = variants.iter().flat_map(|v| values.iter().map(move |&x| with(v, x))).collect();
        }
        variants
    }

    /// What the comments say, for one variant.
    pub fn expected(&self, bindings: &Bindings) -> Result<Expected, String> {
        let mut expected = Expected::default();
        for (line, key, text) in self.comments() {
            let at = |e| format!("{}:{line}: {e}", self.path.display());
            let mut expect = |when, line| {
                Expectation::parse(when, line, text, bindings).map(|e| expected.errors.push(e)).map_err(at)
            };
            match key {
                "expect" => expect(When::Always, Some(line))?,
                "expect anywhere" => expect(When::Always, None)?,
                "access" => expect(When::AccessChecks, Some(line))?,
                "late" => expect(When::HeapAlone, Some(line))?,
                "late anywhere" => expect(When::HeapAlone, None)?,
                "leak" => expected.leaks.push(ExpectedLeak::parse(line, text, bindings).map_err(at)?),
                "allocated" => expected.allocated.push(line),
                "freed" => expected.freed.push(line),
                "status" => expected.signal = Some(text.to_owned()),
                _ => {}
            }
        }
        expected.leaks.sort();
        Ok(expected)
    }

    /// The source of the clean twin. It has the program's line numbers but for added lines.
    pub fn clean_twin(&self) -> String {
        let mut lines: Vec<String> = self.source.lines().map(str::to_owned).collect();
        for (line, key, text) in self.comments() {
            let Some(slot) = (line as usize).checked_sub(1).and_then(|index| lines.get_mut(index)) else {
                continue;
            };
            match key {
                "clean" => *slot = text.to_owned(),
                "clean adds" => *slot = format!("{slot}\n{text}"),
                _ => {}
            }
        }
        lines.join("\n") + "\n"
    }

    /// The comments, as (line of the code, key, text).
    fn comments(&self) -> Vec<(u32, &str, &str)> {
        let mut code_line = 0;
        let mut found = Vec::new();
        for (index, line) in self.source.lines().enumerate() {
            let Some((code, comment)) = line.split_once("//") else {
                code_line = index as u32 + 1;
                continue;
            };
            if !code.trim().is_empty() {
                code_line = index as u32 + 1;
            }
            let comment = comment.trim();
            let (key, text) = comment.split_once(':').unwrap_or((comment, ""));
            found.push((code_line, key, text.trim()));
        }
        found
    }
}
