//! The table of ratios.

use std::fmt;
use std::time::Duration;

use crate::tool::Tool;

/// Rows of times, printed as ratios to the first column.
#[derive(Debug)]
pub struct Table {
    tools: Vec<Tool>,
    rows: Vec<(String, Vec<Option<Duration>>)>,
}

impl Table {
    /// A table with a column for each tool.
    pub fn new(tools: &[Tool]) -> Self {
        Self { tools: tools.to_vec(), rows: Vec::new() }
    }

    /// Adds a workload's medians.
    pub fn add(&mut self, name: &str, times: Vec<Option<Duration>>) {
        self.rows.push((name.to_owned(), times));
    }

    fn ratios(times: &[Option<Duration>]) -> Vec<Option<f64>> {
        let native = times.first().copied().flatten();
        let ratio = |time: &Option<Duration>| Some(time.as_ref()?.as_secs_f64() / native?.as_secs_f64());
        times.iter().map(ratio).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        write!(
            f,
            "\n| workload | {} |\n|---|",
            self.tools.iter().map(|t| t.title()).collect::<Vec<_>>().join(" | ")
        )?;
        writeln!(f, "{}", "---:|".repeat(self.tools.len()))?;
        for (name, times) in &self.rows {
            write!(f, "| {name} |")?;
            for (column, ratio) in Self::ratios(times).into_iter().enumerate() {
                match (column, times[column], ratio) {
                    (0, Some(time), _) => write!(f, " {:.2} s |", time.as_secs_f64())?,
                    (_, Some(_), Some(ratio)) => write!(f, " {ratio:.2}x |")?,
                    _ => write!(f, " – |")?,
                }
            }
            writeln!(f)?;
        }
        write!(f, "| geometric mean |  |")?;
        for column in 1..self.tools.len() {
            let ratios: Vec<f64> =
                self.rows.iter().filter_map(|(_, times)| Self::ratios(times)[column]).collect();
            let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
            write!(f, " {mean:.2}x |")?;
        }
        writeln!(f)
    }
}
