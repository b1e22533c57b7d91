//! What is made of measured values: medians, and ratios round by round. Pure.

/// The middle value; the mean of the middle two of an even count; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.get(middle)) {
        (_, None) => 0.0,
        (count, Some(upper)) if count % 2 == 1 => *upper,
        (_, Some(upper)) => (sorted[middle - 1] + upper) / 2.0,
    }
}

/// Smallest and largest.
pub fn spread(values: &[f64]) -> (f64, f64) {
    values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)))
}

/// `of(ours, theirs)` of each round that both have: what else the machine did in a round fell on both alike.
pub fn by_round(ours: &[f64], theirs: &[f64], of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| of(*ours, *theirs)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[7.0]), 7.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // Both slow down together: the ratio does not move.
        let ratios = by_round(&[2.0, 1.0, 4.0], &[4.0, 2.0, 8.0], |ours, theirs| ours / theirs);
        assert_eq!(ratios, [0.5, 0.5, 0.5]);
        assert_eq!(spread(&[0.5, 0.25, 1.0]), (0.25, 1.0));
    }
}
