//! What a window costs, from the one price table (`src/cost/prices.json`); a region that is not in it is said to be
//! unknown, never guessed.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::cost::HOURS_A_MONTH;
pub use crate::cost::MicroUsd;
use crate::cost::prices::{PriceError, Prices};

/// What a standing window costs, or has cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "basis", rename_all = "kebab-case")]
pub enum Cost {
    /// Gateway and address; what flowed through is not known here and comes on top.
    Known {
        /// Millionths of a US dollar for the time it stood.
        usd_micros: MicroUsd,
        /// The same for a whole month of 730 h.
        month_usd_micros: MicroUsd,
        /// On top, per GB.
        gigabyte_usd_micros: MicroUsd,
        /// Month of the price table, `2026-11`.
        as_of: String,
        /// Where the prices are from.
        source: String,
    },
    /// The region is not in the table.
    Unknown {
        /// The region.
        region: String,
    },
}

/// What a gateway with its address costs that stands for `stood` in `region`. Started hours count as whole ones: so AWS
/// bills the gateway; for the address it is at most a few tenths of a cent too much.
#[must_use]
pub fn cost(region: &str, stood: Duration) -> Cost {
    known(region, stood).unwrap_or_else(|_| Cost::Unknown {
        region: region.to_owned(),
    })
}

fn known(region: &str, stood: Duration) -> Result<Cost, PriceError> {
    let table = Prices::load()?;
    let prices = table.region(region)?;
    let hours = stood.as_secs().div_ceil(3600).max(1);
    let hourly = prices.nat_gateway_hour.usd + prices.address_hour.usd;
    Ok(Cost::Known {
        usd_micros: hourly.times(hours),
        month_usd_micros: hourly.times(HOURS_A_MONTH),
        gigabyte_usd_micros: prices.nat_gateway_gigabyte.usd,
        as_of: table.as_of.clone(),
        source: format!(
            "gateway: {}; address: {}",
            prices.nat_gateway_hour.source, prices.address_hour.source
        ),
    })
}

impl fmt::Display for Cost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known {
                usd_micros,
                month_usd_micros,
                gigabyte_usd_micros,
                as_of,
                ..
            } => write!(
                formatter,
                "{usd_micros} plus {gigabyte_usd_micros} per GB (left open: {month_usd_micros} a month; prices of {as_of}, before tax)"
            ),
            Self::Unknown { region } => write!(formatter, "unknown for region {region}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_hour_counts_as_a_whole_one() {
        let of = |seconds| match cost("ap-south-1", Duration::from_secs(seconds)) {
            Cost::Known { usd_micros, .. } => usd_micros.0,
            Cost::Unknown { .. } => panic!(),
        };
        assert_eq!(
            [of(0), of(1), of(3600), of(3601)],
            [61_000, 61_000, 61_000, 122_000]
        );
    }

    #[test]
    fn a_month_in_mumbai_is_44_dollars_53() {
        let text = cost("ap-south-1", Duration::from_secs(600)).to_string();
        assert!(
            text.starts_with("$0.061 plus $0.056 per GB (left open: $44.53 a month"),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_region_is_said_to_be_unknown() {
        assert_eq!(
            cost("eu-north-1", Duration::ZERO).to_string(),
            "unknown for region eu-north-1"
        );
    }
}
