//! A triangle of a matrix that may be too large to be held whole: panels of a few columns each, in memory or elsewhere.

use super::Error;
use super::held::Held;

/// Columns of a panel, but for the last, which has the rest. Sums are cut here, so it shows in the last bits of results;
/// where panels are kept does not.
pub const WIDTH: usize = 256;

/// The panels of a lower triangle, the first first: each has its columns one after the other, from the row where the panel
/// begins.
pub trait Panels: Send + Sync {
    /// Keeps the next panel.
    fn push(&mut self, values: Vec<f64>) -> Result<(), Error>;

    /// The values of a panel.
    fn get(&self, panel: usize) -> Result<Held<'_, f64>, Error>;
}

impl Panels for Vec<Vec<f64>> {
    fn push(&mut self, values: Vec<f64>) -> Result<(), Error> {
        self.push(values);
        Ok(())
    }

    fn get(&self, panel: usize) -> Result<Held<'_, f64>, Error> {
        Ok(Held::Kept(&self[panel]))
    }
}

/// The bytes of all panels of a matrix of so many columns.
pub fn bytes_for(columns: usize) -> usize {
    (0..columns).step_by(WIDTH).map(|start| (columns - start) * WIDTH.min(columns - start) * size_of::<f64>()).sum()
}
