//! Weighted least squares, for LIME and Kernel SHAP.

/// The coefficients that minimise `Σ weight · (target − row · x)² + ridge · |x|²`.
///
/// Directions that neither the rows nor the ridge determine stay 0.
pub(super) fn weighted_least_squares(
    rows: &[Vec<f64>],
    targets: &[f64],
    weights: &[f64],
    ridge: f64,
) -> Vec<f64> {
    let size = rows.first().map_or(0, Vec::len);
    let mut matrix = vec![0.0; size * size];
    let mut right = vec![0.0; size];
    for ((row, target), weight) in rows.iter().zip(targets).zip(weights) {
        for (i, &value) in row.iter().enumerate().filter(|(_, value)| **value != 0.0) {
            right[i] += weight * value * target;
            for (sum, other) in matrix[i * size..=i * size + i].iter_mut().zip(row) {
                *sum += weight * value * other;
            }
        }
    }
    (0..size).for_each(|i| matrix[i * size + i] += ridge);
    cholesky(&mut matrix, size);
    substitute(&matrix, &mut right);
    right
}

/// Factors a symmetric matrix, given by its lower triangle, in place.
fn cholesky(matrix: &mut [f64], size: usize) {
    let largest = (0..size).map(|i| matrix[i * size + i]).fold(0.0, f64::max);
    for i in 0..size {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| matrix[i * size + k] * matrix[j * size + k]).sum();
            let rest = matrix[i * size + j] - dot;
            let pivot = matrix[j * size + j];
            matrix[i * size + j] = if i == j {
                // Below this a pivot is rounding only: the direction is not determined.
                if rest > 1e-12 * largest { rest.sqrt() } else { 0.0 }
            } else if pivot > 0.0 {
                rest / pivot
            } else {
                0.0
            };
        }
    }
}

/// Solves with the factor, forwards and backwards.
fn substitute(factor: &[f64], right: &mut [f64]) {
    let size = right.len();
    let divide = |value: f64, pivot: f64| if pivot > 0.0 { value / pivot } else { 0.0 };
    for i in 0..size {
        let dot: f64 = (0..i).map(|k| factor[i * size + k] * right[k]).sum();
        right[i] = divide(right[i] - dot, factor[i * size + i]);
    }
    for i in (0..size).rev() {
        let dot: f64 = (i + 1..size).map(|k| factor[k * size + i] * right[k]).sum();
        right[i] = divide(right[i] - dot, factor[i * size + i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plane_is_found_again() {
        let rows = [vec![1.0, 0.0], vec![0.0, 1.0], vec![1.0, 1.0], vec![2.0, -1.0]];
        let targets: Vec<f64> = rows.iter().map(|row| 3.0 * row[0] - 2.0 * row[1]).collect();
        let solved = weighted_least_squares(&rows, &targets, &[1.0, 2.0, 0.5, 4.0], 0.0);
        assert!((solved[0] - 3.0).abs() < 1e-12 && (solved[1] + 2.0).abs() < 1e-12, "{solved:?}");
    }

    #[test]
    fn the_ridge_shrinks_and_weights_count() {
        // 2 · 3 · 1 / (2 · 1 + 1)
        let solved = weighted_least_squares(&[vec![1.0]], &[3.0], &[2.0], 1.0);
        assert!((solved[0] - 2.0).abs() < 1e-12, "{solved:?}");
    }

    #[test]
    fn what_is_not_determined_is_nothing() {
        let solved = weighted_least_squares(&[vec![1.0, 1.0]], &[4.0], &[1.0], 0.0);
        assert_eq!(solved, [4.0, 0.0]);
        assert_eq!(weighted_least_squares(&[], &[], &[], 1.0), [0.0; 0]);
    }
}
