//! The table of ratios.

use std::fmt;

use crate::measure::Usage;
use crate::tool::Tool;

/// Rows of one quantity, printed as ratios to the first column.
#[derive(Debug)]
pub struct Table {
    title: &'static str,
    unit: &'static str,
    tools: Vec<Tool>,
    rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    /// A table with a column for each tool.
    pub fn new(title: &'static str, unit: &'static str, tools: &[Tool]) -> Self {
        Self { title, unit, tools: tools.to_vec(), rows: Vec::new() }
    }

    /// Adds what `quantity` says of a workload's medians.
    pub fn add(&mut self, name: &str, usages: &[Option<Usage>], quantity: impl Fn(&Usage) -> f64) {
        let cells = usages.iter().map(|usage| usage.as_ref().map(&quantity)).collect();
        self.rows.push((name.to_owned(), cells));
    }

    fn ratios(cells: &[Option<f64>]) -> Vec<Option<f64>> {
        let native = cells.first().copied().flatten();
        cells.iter().map(|cell| Some((*cell)? / native?)).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        write!(
            f,
            "\n| {} | {} |\n|---|",
            self.title,
            self.tools.iter().map(|t| t.title()).collect::<Vec<_>>().join(" | ")
        )?;
        writeln!(f, "{}", "---:|".repeat(self.tools.len()))?;
        for (name, cells) in &self.rows {
            write!(f, "| {name} |")?;
            for (column, ratio) in Self::ratios(cells).into_iter().enumerate() {
                match (column, cells[column], ratio) {
                    (0, Some(native), _) => write!(f, " {native:.2} {} |", self.unit)?,
                    (_, Some(_), Some(ratio)) => write!(f, " {ratio:.2}x |")?,
                    _ => write!(f, " – |")?,
                }
            }
            writeln!(f)?;
        }
        write!(f, "| geometric mean |  |")?;
        for column in 1..self.tools.len() {
            let ratios: Vec<f64> =
                self.rows.iter().filter_map(|(_, cells)| Self::ratios(cells)[column]).collect();
            let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
            write!(f, " {mean:.2}x |")?;
        }
        writeln!(f)
    }
}
