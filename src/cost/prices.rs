//! The price table `src/cost/prices.json`: read into types, and asked for a region or an instance type it may not have.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::MicroUsd;

/// Where the table is kept, for messages.
pub const FILE: &str = "src/cost/prices.json";

const JSON: &str = include_str!("prices.json");

/// Why there is no price.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// Somebody has changed the table and not run its tests.
    #[error(
        "the price table {FILE} is not readable: take it from the repository again and build this program anew"
    )]
    Table(#[source] serde_json::Error),
    /// Never guessed from another region.
    #[error("no prices are known for region {region}, only for {}: add it to {FILE}, with its sources", known.join(", "))]
    Region {
        /// The region asked for.
        region: String,
        /// Those in the table.
        known: Vec<String>,
    },
    /// Never guessed from another size.
    #[error("no price is known for {what} in {region}, only for {}: add it to {FILE}, with its source", known.join(", "))]
    Item {
        /// What was asked for, e.g. `instance type m7g.large`.
        what: String,
        /// Where.
        region: String,
        /// Those in the table.
        known: Vec<String>,
    },
}

/// The whole table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// Month in which the table was last compared with its sources, e.g. `2026-11`.
    pub as_of: String,
    /// What the amounts are, for people.
    pub basis: String,
    regions: BTreeMap<String, RegionPrices>,
}

/// One region. Units are in the names; a month has 730 hours, as in AWS's own calculator.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the names say it all")]
pub struct RegionPrices {
    pub nat_gateway_hour: Price,
    /// Either direction.
    pub nat_gateway_gigabyte: Price,
    /// A public IPv4 address, used or idle.
    pub address_hour: Price,
    pub load_balancer_hour: Price,
    pub load_balancer_capacity_unit_hour: Price,
    pub volume_gp3_gigabyte_month: Price,
    pub snapshot_gigabyte_month: Price,
    /// By instance type.
    pub instance_hour: BTreeMap<String, Price>,
}

/// One price and where it is from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The amount.
    #[serde(deserialize_with = "amount")]
    pub usd: MicroUsd,
    /// Which list or bill, and of when.
    pub source: String,
    /// Why it should not be relied upon; absent for a good source.
    pub weak: Option<String>,
}

fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MicroUsd, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

impl Prices {
    /// The table this program was built with.
    ///
    /// # Errors
    /// [`PriceError::Table`], which the tests rule out for a released program.
    pub fn load() -> Result<Self, PriceError> {
        serde_json::from_str(JSON).map_err(PriceError::Table)
    }

    /// The prices of `region`, e.g. `ap-south-1`.
    ///
    /// # Errors
    /// [`PriceError::Region`]
    pub fn region(&self, region: &str) -> Result<&RegionPrices, PriceError> {
        self.regions.get(region).ok_or_else(|| PriceError::Region {
            region: region.to_owned(),
            known: self.regions.keys().cloned().collect(),
        })
    }
}

impl RegionPrices {
    /// The price of an instance type; `region` for the message.
    ///
    /// # Errors
    /// [`PriceError::Item`]
    pub fn instance(&self, kind: &str, region: &str) -> Result<&Price, PriceError> {
        self.instance_hour
            .get(kind)
            .ok_or_else(|| PriceError::Item {
                what: format!("instance type {kind}"),
                region: region.to_owned(),
                known: self.instance_hour.keys().cloned().collect(),
            })
    }

    /// The price of a GiB and month of a volume type; `region` for the message.
    ///
    /// # Errors
    /// [`PriceError::Item`] for everything but `gp3`.
    pub fn volume(&self, kind: &str, region: &str) -> Result<&Price, PriceError> {
        if kind == "gp3" {
            return Ok(&self.volume_gp3_gigabyte_month);
        }
        Err(PriceError::Item {
            what: format!("volume type {kind}"),
            region: region.to_owned(),
            known: vec!["gp3".to_owned()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_readable_and_marks_what_is_weak() {
        let prices = Prices::load().unwrap();
        let mumbai = prices.region("ap-south-1").unwrap();
        assert!(
            mumbai
                .instance("t4g.micro", "ap-south-1")
                .unwrap()
                .weak
                .is_some()
        );
        assert!(mumbai.load_balancer_capacity_unit_hour.weak.is_some());
        assert!(mumbai.nat_gateway_hour.weak.is_none());
    }

    #[test]
    fn what_is_not_in_the_table_is_named_with_what_is_and_where_to_add_it() {
        let prices = Prices::load().unwrap();
        let error = prices.region("eu-north-1").unwrap_err().to_string();
        for part in ["eu-north-1", "ap-south-1, us-east-1", FILE] {
            assert!(error.contains(part), "{error}");
        }
        let mumbai = prices.region("ap-south-1").unwrap();
        let error = mumbai
            .instance("m7g.large", "ap-south-1")
            .unwrap_err()
            .to_string();
        for part in ["m7g.large", "t3.micro", FILE] {
            assert!(error.contains(part), "{error}");
        }
        assert!(
            mumbai
                .volume("io2", "ap-south-1")
                .unwrap_err()
                .to_string()
                .contains("io2")
        );
    }
}
