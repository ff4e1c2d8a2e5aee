//! Numbers in memory: where they are kept, or read from where they are kept.

use std::ops::Deref;

/// A slice that is borrowed from what keeps it, or owned by what read it.
pub enum Held<'a, T> {
    /// Those that are kept.
    Kept(&'a [T]),
    /// Those that were read.
    Read(Box<dyn Deref<Target = [T]> + Send + Sync>),
}

impl<T> Deref for Held<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Kept(numbers) => numbers,
            Self::Read(numbers) => numbers,
        }
    }
}
