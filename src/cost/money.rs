//! Amounts of money, without floating point.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An amount in millionths of a US dollar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl MicroUsd {
    /// So many of these.
    #[must_use]
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// Rounded to the nearest cent, for tables whose rows add up: `55.11`.
    #[must_use]
    pub fn cents(self) -> String {
        let cents = (self.0 + 5000) / 10_000;
        format!("{}.{:02}", cents / 100, cents % 100)
    }

    /// As a price list writes it, with no more digits than it has: `0.0912`.
    #[must_use]
    pub fn exact(self) -> String {
        let fraction = format!("{:06}", self.0 % 1_000_000);
        let fraction = fraction.trim_end_matches('0');
        let whole = self.0 / 1_000_000;
        if fraction.is_empty() {
            whole.to_string()
        } else {
            format!("{whole}.{fraction}")
        }
    }
}

impl std::ops::Add for MicroUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl std::iter::Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), std::ops::Add::add)
    }
}

/// For a sentence: rounded up, to the cent for whole dollars and to a tenth of a cent below.
impl fmt::Display for MicroUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mills = self.0.div_ceil(1000);
        if mills >= 1000 {
            let cents = mills.div_ceil(10);
            write!(formatter, "${}.{:02}", cents / 100, cents % 100)
        } else {
            write!(formatter, "$0.{mills:03}")
        }
    }
}

impl FromStr for MicroUsd {
    type Err = String;

    /// Reads `0.0912`: dollars, at most six digits behind the point.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an amount like 0.0912");
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return Err(wrong());
        }
        let number = format!("{whole}{fraction:0<6}");
        number.parse().map(Self).map_err(|_| wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_without_loss() {
        for text in ["0.0912", "0.005", "17", "1.5"] {
            assert_eq!(text.parse::<MicroUsd>().unwrap().exact(), text);
        }
        for wrong in ["", ".", "1.", ".5", "-1", "0.0000001", "1e3", "1.2.3"] {
            assert!(wrong.parse::<MicroUsd>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_table_rounds_to_the_nearest_cent_and_a_sentence_up() {
        let amount = MicroUsd(3_100_800);
        assert_eq!(
            (amount.cents(), amount.to_string()),
            ("3.10".into(), "$3.11".into())
        );
        assert_eq!(MicroUsd(995_000).cents(), "1.00");
        assert_eq!(MicroUsd(60_001).to_string(), "$0.061");
    }
}
