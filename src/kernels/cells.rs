//! What one pair of rows collects: encodings of values, and the sums that a score needs of them.

use std::marker::PhantomData;

use super::csr::entry;

/// The encoding in which values are multiplied; the narrowest that holds a matrix exactly is chosen for the whole of it.
pub trait Value: Copy + Default + Send + Sync + 'static {
    /// The encoding of a value.
    fn of(value: f32) -> Self;
    /// The value.
    fn number(self) -> f64;
}

/// What values are multiplied by before products are taken of them.
#[derive(Debug)]
pub struct Scales {
    /// All of them: a power of two, by which they become whole numbers if they are multiplied as such.
    pub whole: f32,
    /// Those of one of both rows, by columns; empty where none has a scale of its own.
    pub columns: Vec<f64>,
}

impl Default for Scales {
    fn default() -> Self {
        Self { whole: 1.0, columns: Vec::new() }
    }
}

/// What the values of one row are multiplied as, while those of the rows that it meets are [`Value`]s.
pub trait Factor: Copy + Default + Send + Sync + 'static {
    /// The factor for a value in a column that has this scale.
    fn scaled(value: f32, scale: f64) -> Self;
    /// The factor for an entry.
    #[inline(always)]
    fn of_entry(e: u64, scales: &Scales) -> Self {
        let scale = scales.columns.get(entry::column(e) as usize).copied().unwrap_or(1.0);
        Self::scaled(entry::value(e) * scales.whole, scale)
    }
}

/// Where columns have no scale.
impl<V: Value> Factor for V {
    #[inline(always)]
    fn scaled(value: f32, _: f64) -> Self {
        V::of(value)
    }
}

/// Scales have as few digits as singles: their product with a value is exact, and that of both values is rounded once, so that
/// it is the same from either end.
impl Factor for f64 {
    #[inline(always)]
    fn scaled(value: f32, scale: f64) -> Self {
        f64::from(value) * scale
    }
}

/// Every value is 1.
impl Value for () {
    #[inline(always)]
    fn of(_: f32) -> Self {}
    #[inline(always)]
    fn number(self) -> f64 {
        1.0
    }
}

/// Whole numbers from 0 to 255.
impl Value for u8 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        value as u8
    }
    #[inline(always)]
    fn number(self) -> f64 {
        f64::from(self)
    }
}

/// Whole numbers from 0 to 65,535.
impl Value for u16 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        value as u16
    }
    #[inline(always)]
    fn number(self) -> f64 {
        f64::from(self)
    }
}

impl Value for f32 {
    #[inline(always)]
    fn of(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn number(self) -> f64 {
        f64::from(self)
    }
}

/// The sums that one pair (i, j) collects. Its default is the state before the first common column.
pub trait Cell: Copy + Default + Send + 'static {
    /// What values of row i are multiplied as.
    type Row: Factor;
    /// The encoding of values of row j.
    type Column: Value;
    /// Adds one common column with the value `a` in row i and `b` in row j.
    fn add(&mut self, a: Self::Row, b: Self::Column);
    /// The same without a branch, where the column may not be common; `a` is the default of its type if so.
    #[inline(always)]
    fn add_if(&mut self, common: bool, a: Self::Row, b: Self::Column) {
        let mut with = *self;
        with.add(a, b);
        *self = if common { with } else { *self };
    }
    /// Whether nothing was added, as far as the sums can tell.
    fn is_empty(&self) -> bool;
    /// The same sums with i and j in each other's place.
    fn swapped(self) -> Self {
        self
    }
}

/// The sum of products. Products of singles are exact in double precision and cannot overflow there.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dot<A, V> {
    /// The sum.
    pub sum: f64,
    of: PhantomData<(A, V)>,
}

/// The sum of products of whole numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct WholeDot<V> {
    /// The sum.
    pub sum: u32,
    of: PhantomData<V>,
}

/// The number of common columns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count(pub u32);

/// The sum of products and both sums of squares over the common columns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moments {
    /// Sum of a·b.
    pub ab: f64,
    /// Sum of a².
    pub aa: f64,
    /// Sum of b².
    pub bb: f64,
}

/// The sum of products and the sum of |a| (`OF_ROW`) or |b|, by which a weighted mean divides it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weighted<const OF_ROW: bool> {
    /// Sum of a·b.
    pub ab: f32,
    /// Sum of the weights' absolute values.
    pub weight: f32,
}

/// The sum of products in single precision, enough for what is only ranked.
#[derive(Debug, Clone, Copy, Default)]
pub struct SingleDot(pub f32);

/// Another cell, and the number of common columns beside it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted<C> {
    /// The sums that are counted.
    pub sums: C,
    /// The number of common columns.
    pub count: u32,
}

impl<A: Factor + Into<f64>, V: Value> Cell for Dot<A, V> {
    type Row = A;
    type Column = V;
    #[inline(always)]
    fn add(&mut self, a: A, b: V) {
        self.sum += a.into() * b.number();
    }
    #[inline(always)]
    fn add_if(&mut self, _: bool, a: A, b: V) {
        self.add(a, b);
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.sum == 0.0
    }
}

impl<V: Value + Into<u32>> Cell for WholeDot<V> {
    type Row = V;
    type Column = V;
    #[inline(always)]
    fn add(&mut self, a: V, b: V) {
        self.sum += a.into() * b.into();
    }
    #[inline(always)]
    fn add_if(&mut self, _: bool, a: V, b: V) {
        self.add(a, b);
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.sum == 0
    }
}

impl Cell for Count {
    type Row = ();
    type Column = ();
    #[inline(always)]
    fn add(&mut self, (): (), (): ()) {
        self.0 += 1;
    }
    #[inline(always)]
    fn add_if(&mut self, common: bool, (): (), (): ()) {
        self.0 += u32::from(common);
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl Cell for Moments {
    type Row = f32;
    type Column = f32;
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        let (a, b) = (f64::from(a), f64::from(b));
        self.ab += a * b;
        self.aa += a * a;
        self.bb += b * b;
    }
    #[inline(always)]
    fn add_if(&mut self, common: bool, a: f32, b: f32) {
        self.add(a, if common { b } else { 0.0 });
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.aa == 0.0 && self.bb == 0.0
    }
    #[inline(always)]
    fn swapped(self) -> Self {
        Self { ab: self.ab, aa: self.bb, bb: self.aa }
    }
}

impl<const OF_ROW: bool> Cell for Weighted<OF_ROW> {
    type Row = f32;
    type Column = f32;
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.ab += a * b;
        self.weight += if OF_ROW { a.abs() } else { b.abs() };
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.weight == 0.0
    }
}

impl Cell for SingleDot {
    type Row = f32;
    type Column = f32;
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.0 += a * b;
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == 0.0
    }
}

impl<C: Cell> Cell for Counted<C> {
    type Row = C::Row;
    type Column = C::Column;
    #[inline(always)]
    fn add(&mut self, a: C::Row, b: C::Column) {
        self.sums.add(a, b);
        self.count += 1;
    }
    #[inline(always)]
    fn add_if(&mut self, common: bool, a: C::Row, b: C::Column) {
        self.sums.add_if(common, a, b);
        self.count += u32::from(common);
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.count == 0
    }
    #[inline(always)]
    fn swapped(self) -> Self {
        Self { sums: self.sums.swapped(), ..self }
    }
}
