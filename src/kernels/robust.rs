//! Bounds for outliers that outliers cannot move.

/// `median ± width · sigma`, where sigma is estimated from the middle of the data: `1.4826 · MAD`, the median absolute
/// deviation from the median made consistent with a normal distribution (Iglewicz and Hoaglin 1993). Where more
/// than half of the values are equal, so that the MAD is 0, `1.2533` times the mean absolute deviation takes its place.
///
/// None without values; the values are reordered. Sums run over sorted values, so the order they came in is no matter.
pub fn bounds(values: &mut [f64], width: f64) -> Option<(f64, f64)> {
    let middle = median(values)?;
    values.iter_mut().for_each(|v| *v = (*v - middle).abs());
    let mad = median(values)?;
    let mean_deviation = values.iter().sum::<f64>() / values.len() as f64;
    let sigma = if mad > 0.0 { mad * 1.4826 } else { mean_deviation * 1.2533 };
    Some((middle - width * sigma, middle + width * sigma))
}

/// The median, the mean of the two middle values where their number is even; the values are sorted.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = if values.len().is_multiple_of(2) { values[values.len() / 2 - 1] } else { upper };
    Some(lower + (upper - lower) / 2.0)
}

/// The value at a share of the way through sorted values, linear between neighbors (type 7 of Hyndman and Fan 1996).
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wild_value_moves_nothing() {
        let (low, high) = bounds(&mut [1.0, 2.0, 3.0, 4.0, 1e9], 3.0).unwrap();
        assert!((low - (3.0 - 3.0 * 1.4826)).abs() < 1e-9 && (high - (3.0 + 3.0 * 1.4826)).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_linear_between_neighbors() {
        let values = [1.0, 2.0, 4.0, 8.0];
        assert_eq!([0.0, 0.5, 1.0].map(|share| quantile(&values, share)), [1.0, 3.0, 8.0]);
        assert_eq!(quantile(&values, 0.25), 1.75);
        assert_eq!(quantile(&[3.0], 0.9), 3.0);
    }

    #[test]
    fn mostly_equal_values_still_have_bounds() {
        let (low, high) = bounds(&mut [1.0, 1.0, 1.0, 1.0, 6.0], 2.0).unwrap();
        assert!((high - (1.0 + 2.0 * 1.2533)).abs() < 1e-9 && low < 1.0);
        assert_eq!(bounds(&mut [], 3.0), None);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
