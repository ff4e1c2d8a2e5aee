//! Measures of two short lists of numbers.

/// Pearson's correlation of two lists of equal length over the places where both have a value:
/// `Σ (x - x̄)(y - ȳ) / sqrt(Σ (x - x̄)² · Σ (y - ȳ)²)`, in [-1, 1].
///
/// None with fewer than two such places, or when one of the lists is constant there.
pub fn pearson(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let (count, sum_x, sum_y) = pairs.clone().fold((0usize, 0.0, 0.0), |(n, sx, sy), (x, y)| (n + 1, sx + x, sy + y));
    if count < 2 {
        return None;
    }
    // Rounding of the mean would leave a residue in a constant list, so it is not left to the sums.
    let (first_x, first_y) = pairs.clone().next()?;
    if pairs.clone().all(|(x, _)| x == first_x) || pairs.clone().all(|(_, y)| y == first_y) {
        return None;
    }
    let (mean_x, mean_y) = (sum_x / count as f64, sum_y / count as f64);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (dx, dy) = (x - mean_x, y - mean_y);
        xy += dx * dy;
        xx += dx * dx;
        yy += dy * dy;
    }
    let norm = (xx * yy).sqrt();
    (norm > 0.0 && norm.is_finite()).then(|| (xy / norm).clamp(-1.0, 1.0))
}

/// Jaccard's measure of two sets given as sorted lists without repeats: common over all, in [0, 1].
///
/// None when both are empty.
pub fn jaccard<T: Ord>(a: &[T], b: &[T]) -> Option<f64> {
    let (mut i, mut j, mut common) = (0, 0, 0usize);
    while i < a.len() && j < b.len() {
        match a[i].cmp(&b[j]) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                common += 1;
                i += 1;
                j += 1;
            }
        }
    }
    let all = a.len() + b.len() - common;
    (all > 0).then(|| common as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pearson_by_hand() {
        let of = |x: &[f64], y: &[f64]| pearson(x.iter().copied().zip(y.iter().copied()));
        assert_eq!(of(&[1.0, 2.0, 3.0], &[2.0, 4.0, 6.0]), Some(1.0));
        assert_eq!(of(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), Some(-1.0));
        assert_eq!(of(&[0.1, 0.1, 0.1], &[3.0, 2.0, 1.0]), None);
        assert_eq!(of(&[1.0], &[2.0]), None);
        let r = of(&[1.0, 2.0, 3.0, 4.0], &[1.0, 3.0, 2.0, 4.0]).unwrap();
        assert!((r - 0.8).abs() < 1e-12);
    }

    #[test]
    fn jaccard_by_hand() {
        assert_eq!(jaccard(&[1, 2, 3], &[2, 3, 4, 5]), Some(0.4));
        assert_eq!(jaccard::<u8>(&[], &[]), None);
        assert_eq!(jaccard(&[1], &[]), Some(0.0));
    }
}
