//! What a window costs. Prices are on demand, in US dollars before tax, and dated; a region that is not in the table is
//! said to be unknown, never guessed.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// When the table was last compared with its sources.
pub const AS_OF: &str = "2026-11";

/// An amount in millionths of a US dollar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct MicroUsd(pub u64);

impl fmt::Display for MicroUsd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded up to the cent for whole dollars, shown to a tenth of a cent below.
        let mills = self.0.div_ceil(1000);
        if mills >= 1000 {
            let cents = mills.div_ceil(10);
            write!(formatter, "${}.{:02}", cents / 100, cents % 100)
        } else {
            write!(formatter, "$0.{mills:03}")
        }
    }
}

/// Prices of one region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    /// AWS region, e.g. `ap-south-1`.
    pub region: &'static str,
    /// The gateway, per started hour.
    pub gateway_hour: MicroUsd,
    /// What flows through it, per GB in either direction.
    pub gateway_gigabyte: MicroUsd,
    /// A public IPv4 address, used or idle, per hour.
    pub address_hour: MicroUsd,
    /// Where the numbers are from.
    pub source: &'static str,
}

/// The regions whose prices are known.
pub const TABLE: [Prices; 2] = [
    Prices {
        region: "ap-south-1",
        gateway_hour: MicroUsd(56_000),
        gateway_gigabyte: MicroUsd(56_000),
        address_hour: MicroUsd(5_000),
        source: "gateway: a bill of 2026-09 (usage type APS3-NatGateway-Hours); address: AWS price list of 2026-10",
    },
    Prices {
        region: "us-east-1",
        gateway_hour: MicroUsd(45_000),
        gateway_gigabyte: MicroUsd(45_000),
        address_hour: MicroUsd(5_000),
        source: "AWS price list of 2026-10 (https://aws.amazon.com/vpc/pricing/)",
    },
];

/// Hours in a month, as AWS's own calculator counts them.
const HOURS_A_MONTH: u64 = 730;

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
        as_of: &'static str,
        /// Where the prices are from.
        source: &'static str,
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
    let Some(prices) = TABLE.iter().find(|prices| prices.region == region) else {
        return Cost::Unknown {
            region: region.to_owned(),
        };
    };
    let hours = stood.as_secs().div_ceil(3600).max(1);
    let hourly = prices.gateway_hour.0 + prices.address_hour.0;
    Cost::Known {
        usd_micros: MicroUsd(hours * hourly),
        month_usd_micros: MicroUsd(HOURS_A_MONTH * hourly),
        gigabyte_usd_micros: prices.gateway_gigabyte,
        as_of: AS_OF,
        source: prices.source,
    }
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
