//! Two sides measured in turn, because a machine drifts by more than what is to be shown.

use std::borrow::Cow;

use anyhow::{Result, ensure};

use super::{Better, Figure};

/// Measurements of both sides, each of ours beside the peer's that was taken next to it.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    ours: Vec<f64>,
    peers: Vec<f64>,
}

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Precision {
    /// Half-width of the ratio's confidence interval that suffices.
    pub(crate) half_width: f64,
    /// Rounds of four measurements, at the least and at the most.
    pub(crate) rounds: (usize, usize),
}

/// 97.5 % quantiles of Student's distribution for 1, 2, ... degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
];

/// Measures peer, ours, ours, peer until the ratio is known well enough.
///
/// `ours` gives two measurements at once: its side is switched on for both.
pub(crate) fn measure(
    precision: Precision,
    mut peer: impl FnMut() -> Result<f64>,
    mut ours: impl FnMut() -> Result<[f64; 2]>,
) -> Result<Pairs> {
    let peer = || peer().map(|value| [value]);
    let [pairs] = measure_several(precision, peer, || ours().map(|both| both.map(|one| [one])))?;
    Ok(pairs)
}

/// The same where one measurement gives several values: the first one's ratio decides.
pub(crate) fn measure_several<const N: usize>(
    precision: Precision,
    mut peer: impl FnMut() -> Result<[f64; N]>,
    mut ours: impl FnMut() -> Result<[[f64; N]; 2]>,
) -> Result<[Pairs; N]> {
    let mut pairs = std::array::from_fn(|_| Pairs::default());
    let (least, most) = precision.rounds;
    for round in 0..most {
        let is_known = |pairs: &Pairs| pairs.half_width() <= precision.half_width;
        if round >= least && pairs.first().is_none_or(is_known) {
            break;
        }
        let before = peer()?;
        let both = ours()?;
        let after = peer()?;
        for (value, pairs) in pairs.iter_mut().enumerate() {
            pairs.ours.extend(both.map(|all| all[value]));
            pairs.peers.extend([before[value], after[value]]);
        }
    }
    ensure!(
        pairs.iter().all(|pairs| !pairs.ours.is_empty()),
        "a comparison takes at least one round"
    );
    Ok(pairs)
}

/// Of ours and the peer's.
impl FromIterator<(f64, f64)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (f64, f64)>>(pairs: I) -> Self {
        let (ours, peers) = pairs.into_iter().unzip();
        Self { ours, peers }
    }
}

impl Pairs {
    fn ratios(&self) -> Vec<f64> {
        self.ours
            .iter()
            .zip(&self.peers)
            .map(|(ours, peer)| ours / peer)
            .collect()
    }

    fn half_width(&self) -> f64 {
        half_width(&self.ratios())
    }

    /// As a figure: medians of both sides, mean of the ratios.
    pub(crate) fn figure(
        &self,
        name: &str,
        unit: &'static str,
        peer: impl Into<Cow<'static, str>>,
        better: Better,
    ) -> Figure {
        Figure {
            ratio: Some(mean(&self.ratios())),
            half_width: Some(self.half_width()),
            ..self.figure_at(0.5, name, unit, peer, better)
        }
    }

    /// Another quantile of both sides; their ratio is that of the two values.
    pub(crate) fn figure_at(
        &self,
        share: f64,
        name: &str,
        unit: &'static str,
        peer: impl Into<Cow<'static, str>>,
        better: Better,
    ) -> Figure {
        let (ours, peers) = (quantile(&self.ours, share), quantile(&self.peers, share));
        Figure {
            peer: Some(peer.into()),
            peer_value: Some(peers),
            ratio: Some(ours / peers),
            ..Figure::alone(name, ours, unit, self.ours.len()).better(better)
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of measurements are small"
)]
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Half of the 95 % confidence interval of the mean; infinite for fewer than two values.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of measurements are small"
)]
fn half_width(values: &[f64]) -> f64 {
    let freedom = values.len().saturating_sub(1);
    if freedom == 0 {
        return f64::INFINITY;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    let error = (squares / freedom as f64 / values.len() as f64).sqrt();
    STUDENT.get(freedom - 1).copied().unwrap_or(1.96) * error
}

/// The value below which this share of the values lies (nearest rank).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank among few values, clamped into them"
)]
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.clamp(1, sorted.len().max(1)) - 1)
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-3
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert!(near(quantile(&values, 0.5), 3.0));
        assert!(near(quantile(&values, 0.99), 5.0));
        assert!(near(quantile(&values, 0.0), 1.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn the_half_width_is_that_of_students_distribution() {
        // Mean 2, standard deviation 1, three values: 4.303 / sqrt(3).
        assert!(near(half_width(&[1.0, 2.0, 3.0]), 2.484));
        assert!(half_width(&[1.0]).is_infinite());
    }

    #[test]
    fn measuring_ends_when_the_ratio_is_known() -> Result<()> {
        let precision = Precision {
            half_width: 0.01,
            rounds: (2, 50),
        };
        let pairs = measure(precision, || Ok(100.0), || Ok([98.0, 98.0]))?;
        let figure = pairs.figure("f", "1/s", "off", Better::Higher);
        assert_eq!(figure.n, 4);
        assert!(figure.ratio.is_some_and(|ratio| near(ratio, 0.98)));
        Ok(())
    }
}
