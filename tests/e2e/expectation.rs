//! What a fixture's comments say that memcheck must find.
//!
//! One comment says one thing, at the line of code that it is about; a comment alone on its line belongs to the
//! code line before it.
//!
//! ```text
//! // WHEN[ anywhere]: ID [read|write [N]] [at OFFSET of SIZE] [~WORD] [xCOUNT[+]]
//!    WHEN   expect   found with and without access checks
//!           access   found with access checks, at this line
//!           late     found without access checks, by its traces, when this line runs
//!    anywhere        the innermost frame in this file may be at any line, or missing
//!    N               bytes of the access
//!    OFFSET, SIZE    sums and products of numbers and the grid's names; OFFSET is from the block's start
//!    ~WORD           the message holds this word
//!    xCOUNT          how often (1 when it is not said); with `+`, at least so often
//! // leak: KIND BYTES in BLOCKS       allocated at this line
//! // allocated, // freed              where every finding's block was allocated, freed
//! // clean: CODE                      the line as it stands in the clean twin
//! // clean adds: CODE                 a line that only the clean twin has
//! // grid: NAME=1,2,3 NAME=…          compiled once for each combination, with -DNAME=…
//! // flags: …                         more flags for the compiler
//! // golden: none                      the report depends on the processor, or on the order of threads
//! // status: SIGSEGV                  how the program ends when it is not the clean twin
//! ```

use std::collections::BTreeMap;

/// The values of the grid's names in one variant.
pub type Bindings = BTreeMap<String, i64>;

/// With which checks a finding is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With and without access checks.
    Always,
    /// With access checks only.
    AccessChecks,
    /// Without access checks only.
    HeapAlone,
}

/// How often a finding is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// This often.
    Exactly(u64),
    /// This often or more.
    AtLeast(u64),
}

/// One expected finding.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// With which checks.
    pub when: When,
    /// The finding's identifier.
    pub id: String,
    /// `read` or `write`.
    pub op: Option<String>,
    /// Bytes of the access.
    pub width: Option<i64>,
    /// Offset in the block and size of the block.
    pub block: Option<(i64, i64)>,
    /// A word of the message.
    pub word: Option<String>,
    /// How often.
    pub count: Count,
    /// The line of the innermost frame in the fixture.
    pub line: Option<u32>,
}

/// One expected loss record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExpectedLeak {
    /// The word for its kind.
    pub kind: String,
    /// The line of the allocation.
    pub line: u32,
    /// Bytes in all.
    pub bytes: i64,
    /// Blocks in all.
    pub blocks: i64,
}

impl Count {
    /// Whether `count` is as expected.
    pub fn admits(self, count: u64) -> bool {
        match self {
            Self::Exactly(n) => count == n,
            Self::AtLeast(n) => count >= n,
        }
    }
}

impl Expectation {
    /// Reads what stands after `WHEN:`.
    pub fn parse(when: When, line: Option<u32>, text: &str, bindings: &Bindings) -> Result<Self, String> {
        let mut words = text.split_whitespace().peekable();
        let id = words.next().ok_or("no finding is named")?.to_owned();
        let mut found =
            Self { when, id, op: None, width: None, block: None, word: None, count: Count::Exactly(1), line };
        while let Some(word) = words.next() {
            if matches!(word, "read" | "write") {
                found.op = Some(word.to_owned());
                found.width = words.next_if(|w| w.parse::<i64>().is_ok()).and_then(|w| w.parse().ok());
            } else if word == "at" {
                let offset = evaluate(words.next().unwrap_or_default(), bindings)?;
                if words.next() != Some("of") {
                    return Err(format!("`{text}`: expected `at OFFSET of SIZE`"));
                }
                found.block = Some((offset, evaluate(words.next().unwrap_or_default(), bindings)?));
            } else if let Some(said) = word.strip_prefix('~') {
                found.word = Some(said.to_owned());
            } else if let Some(count) = word.strip_prefix('x') {
                let number = |n: &str| n.parse().map_err(|_| format!("`{word}` is no count"));
                found.count = match count.strip_suffix('+') {
                    Some(least) => Count::AtLeast(number(least)?),
                    None => Count::Exactly(number(count)?),
                };
            } else {
                return Err(format!("`{text}`: `{word}` is not understood"));
            }
        }
        Ok(found)
    }
}

impl ExpectedLeak {
    /// Reads `KIND BYTES in BLOCKS`.
    pub fn parse(line: u32, text: &str, bindings: &Bindings) -> Result<Self, String> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [kind, bytes, "in", blocks] => Ok(Self {
                kind: kind.to_owned(),
                line,
                bytes: evaluate(bytes, bindings)?,
                blocks: evaluate(blocks, bindings)?,
            }),
            _ => Err(format!("`{text}`: expected `KIND BYTES in BLOCKS`")),
        }
    }
}

/// The value of a sum of products of numbers and names: `-1`, `2*COUNT`, `SIZE+4-1`.
pub fn evaluate(text: &str, bindings: &Bindings) -> Result<i64, String> {
    let mut sum = 0;
    let spaced = text.replace('-', "+-");
    for term in spaced.split('+').filter(|term| !term.is_empty()) {
        let (sign, factors) = term.strip_prefix('-').map_or((1, term), |rest| (-1, rest));
        let mut product = sign;
        for factor in factors.split('*') {
            let value = factor.parse().ok().or_else(|| bindings.get(factor).copied());
            product *= value.ok_or_else(|| format!("`{factor}` in `{text}` is no number and no name"))?;
        }
        sum += product;
    }
    if text.is_empty() { Err("a number is missing".to_owned()) } else { Ok(sum) }
}
