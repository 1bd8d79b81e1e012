//! What a deployment costs a month, with the window closed and open: from a dated table of prices with their sources,
//! and for what is not in it an error. A price is never guessed.

mod deployed;
mod money;
pub mod prices;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

pub use self::deployed::DeployedError;
pub use self::money::MicroUsd;
use self::prices::{Price, PriceError, Prices};

/// Hours in a month, as AWS's own calculator counts them.
pub const HOURS_A_MONTH: u64 = 730;

/// What costs, apart from the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// AWS region, e.g. `ap-south-1`.
    pub region: String,
    /// Instance types by host, e.g. `("bastion", "t3.micro")`.
    pub instances: Vec<(String, String)>,
    /// Volumes: whose (`bastion root`), EBS type (`gp3`), GiB.
    pub volumes: Vec<(String, String, u64)>,
    /// Application load balancers.
    pub load_balancers: u64,
    /// Public IPv4 addresses that stand all the time: whose (`bastion`), how many.
    pub addresses: Vec<(String, u64)>,
    /// Terraform addresses of resources for which there is no row, and that are not known to be free.
    pub unpriced: Vec<String>,
}

/// The sizes `terraform/variables.tf` ships; a test compares them with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// `region`
    pub region: String,
    /// `instance_types.bastion`
    pub bastion: String,
    /// `instance_types.backend`
    pub backend: String,
    /// `instance_types.database`
    pub database: String,
    /// `root_volume_gib`
    pub root_volume_gib: u64,
    /// `database_volume_gib`
    pub database_volume_gib: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        let micro = || "t3.micro".to_owned();
        Self {
            region: "ap-south-1".to_owned(),
            bastion: micro(),
            backend: micro(),
            database: micro(),
            root_volume_gib: 8,
            database_volume_gib: 10,
        }
    }
}

impl From<Sizes> for Parts {
    fn from(sizes: Sizes) -> Self {
        let hosts = [
            ("bastion", sizes.bastion),
            ("backend", sizes.backend),
            ("database", sizes.database),
        ];
        let disk = |whose: String, gib| (whose, "gp3".to_owned(), gib);
        let roots = hosts
            .iter()
            .map(|(host, _)| disk(format!("{host} root"), sizes.root_volume_gib));
        let volumes = roots
            .chain([disk("database".to_owned(), sizes.database_volume_gib)])
            .collect();
        Self {
            region: sizes.region,
            volumes,
            instances: hosts
                .into_iter()
                .map(|(host, kind)| (host.to_owned(), kind))
                .collect(),
            load_balancers: 1,
            // The load balancer has a node, with an address, in each of its two subnets.
            addresses: vec![
                ("bastion".to_owned(), 1),
                ("load balancer nodes".to_owned(), 2),
            ],
            unpriced: Vec::new(),
        }
    }
}

/// One row of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What, and how many: `3 × t3.micro: bastion, backend, database`.
    pub resource: String,
    /// How many units: instances, addresses, GiB.
    pub count: u64,
    /// Price of one unit, in millionths of a US dollar.
    pub unit_usd_micros: MicroUsd,
    /// `hour` or `GiB-month`.
    pub unit: &'static str,
    /// All of them for a month of 730 h.
    pub month_usd_micros: MicroUsd,
    /// Which list or bill.
    pub source: String,
    /// Why the price should not be relied upon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weak: Option<String>,
}

/// What a month costs. `--json` prints this.
#[derive(Clone, Debug, Serialize)]
pub struct Bill {
    /// AWS region.
    pub region: String,
    /// What was priced, for people.
    pub priced: String,
    /// Month of the price table.
    pub as_of: String,
    /// What the amounts are.
    pub basis: String,
    /// What stands all the time.
    pub rows: Vec<Row>,
    /// What stands while the window is open.
    pub window: Vec<Row>,
    /// A month with the window closed.
    pub closed_month_usd_micros: MicroUsd,
    /// A month with the window open all the time.
    pub open_month_usd_micros: MicroUsd,
    /// An hour of window: gateway and address.
    pub window_hour_usd_micros: MicroUsd,
    /// On top, per GB through the gateway in either direction.
    pub window_gigabyte_usd_micros: MicroUsd,
    /// What comes on top and depends on use.
    pub not_included: Vec<String>,
    /// Resources of the state that no row covers.
    pub unpriced: Vec<String>,
}

impl Bill {
    /// Prices `parts`. `priced` says where they are from.
    ///
    /// # Errors
    /// [`PriceError`] for a region, an instance type or a volume type that is not in the table.
    pub fn new(parts: Parts, priced: &str) -> Result<Self, PriceError> {
        let prices = Prices::load()?;
        let table = prices.region(&parts.region)?;
        let mut rows = Vec::new();
        for (kind, hosts) in grouped(
            parts
                .instances
                .iter()
                .map(|(host, kind)| (kind, host.clone())),
        ) {
            let price = table.instance(kind, &parts.region)?;
            let count = hosts.len() as u64;
            rows.push(Row::hourly(
                format!("{count} × {kind}: {}", hosts.join(", ")),
                count,
                price,
            ));
        }
        if parts.load_balancers > 0 {
            let name = format!("{} × application load balancer", parts.load_balancers);
            rows.push(Row::hourly(
                name,
                parts.load_balancers,
                &table.load_balancer_hour,
            ));
        }
        let addresses: u64 = parts.addresses.iter().map(|(_, count)| count).sum();
        if addresses > 0 {
            let whose: Vec<_> = parts
                .addresses
                .iter()
                .map(|(whose, count)| format!("{count} {whose}"))
                .collect();
            let name = format!("{addresses} × public IPv4 address: {}", whose.join(", "));
            rows.push(Row::hourly(name, addresses, &table.address_hour));
        }
        for (kind, disks) in grouped(
            parts
                .volumes
                .iter()
                .map(|(whose, kind, gib)| (kind, (whose, *gib))),
        ) {
            let price = table.volume(kind, &parts.region)?;
            let count = disks.iter().map(|(_, gib)| gib).sum();
            let disks: Vec<_> = disks
                .iter()
                .map(|(whose, gib)| format!("{whose} {gib}"))
                .collect();
            rows.push(Row::monthly(
                format!("{count} GiB {kind}: {}", disks.join(", ")),
                count,
                price,
            ));
        }
        let window = vec![
            Row::hourly("NAT gateway".to_owned(), 1, &table.nat_gateway_hour),
            Row::hourly("its public IPv4 address".to_owned(), 1, &table.address_hour),
        ];
        let month = |rows: &[Row]| {
            rows.iter()
                .map(|row| row.month_usd_micros)
                .sum::<MicroUsd>()
        };
        let capacity = &table.load_balancer_capacity_unit_hour;
        let doubt = capacity
            .weak
            .as_ref()
            .map(|why| format!(" (weakly sourced: {why})"));
        Ok(Self {
            priced: priced.to_owned(),
            closed_month_usd_micros: month(&rows),
            open_month_usd_micros: month(&rows) + month(&window),
            window_hour_usd_micros: window.iter().map(|row| row.unit_usd_micros).sum(),
            window_gigabyte_usd_micros: table.nat_gateway_gigabyte.usd,
            not_included: vec![
                format!("load balancer capacity units: {} an hour each{}", capacity.usd.exact(), doubt.unwrap_or_default()),
                "CPU credits of t3 and t4g above their baseline".to_owned(),
                "data transfer to the internet and between zones".to_owned(),
                format!("snapshots, those of the published images too: {} a GB-month", table.snapshot_gigabyte_month.usd.exact()),
                "flow logs, when flow_log_retention_days is set: CloudWatch's rates for what they hold".to_owned(),
            ],
            as_of: prices.as_of.clone(),
            basis: prices.basis.clone(),
            region: parts.region,
            unpriced: parts.unpriced,
            rows,
            window,
        })
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let weak = self
            .rows
            .iter()
            .chain(&self.window)
            .filter_map(|row| Some((row, row.weak.as_ref()?)));
        let names = self
            .rows
            .iter()
            .chain(&self.window)
            .map(|row| row.resource.chars().count() + 2);
        let width = names.max().unwrap_or_default();
        let mut text = String::new();
        let mut line = |name: &str, unit: &str, amount: &str| {
            let _ = writeln!(text, "{name:<width$}  {unit:<19}{amount:>9}");
        };
        line(&format!("{}: {}", self.region, self.priced), "", "");
        line("", "", "a month");
        for row in &self.rows {
            line(
                &format!("  {}", row.resource),
                &row.unit(),
                &row.month_usd_micros.cents(),
            );
        }
        line("window closed", "", &self.closed_month_usd_micros.cents());
        for row in &self.window {
            line(
                &format!("  {}", row.resource),
                &row.unit(),
                &row.month_usd_micros.cents(),
            );
        }
        line(
            "window open all month",
            "",
            &self.open_month_usd_micros.cents(),
        );
        let mut say = |sentence: String| {
            let _ = writeln!(text, "{sentence}");
        };
        say(String::new());
        say(format!(
            "An hour of window: {}, and {} per GB through it.",
            self.window_hour_usd_micros.exact(),
            self.window_gigabyte_usd_micros.exact()
        ));
        say(format!(
            "{}; a month of {HOURS_A_MONTH} h; prices of {}.",
            self.basis, self.as_of
        ));
        for (row, why) in weak {
            say(format!("~ {}: {why}.", row.resource));
        }
        if !self.unpriced.is_empty() {
            say(format!(
                "In the state, but not in the table: {}.",
                self.unpriced.join(", ")
            ));
        }
        say("Not in the table:".to_owned());
        for what in &self.not_included {
            say(format!("  {what}"));
        }
        text.lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }
}

impl Row {
    fn hourly(resource: String, count: u64, price: &Price) -> Self {
        Self::new(resource, count, price, "hour", HOURS_A_MONTH)
    }

    fn monthly(resource: String, count: u64, price: &Price) -> Self {
        Self::new(resource, count, price, "GiB-month", 1)
    }

    fn new(resource: String, count: u64, price: &Price, unit: &'static str, a_month: u64) -> Self {
        Self {
            resource,
            count,
            unit_usd_micros: price.usd,
            unit,
            month_usd_micros: price.usd.times(count).times(a_month),
            source: price.source.clone(),
            weak: price.weak.clone(),
        }
    }

    // The mark leads to the explanation below the table.
    fn unit(&self) -> String {
        let mark = if self.weak.is_some() { "~" } else { "" };
        format!(
            "{mark}{} a{} {}",
            self.unit_usd_micros.exact(),
            if self.unit == "hour" { "n" } else { "" },
            self.unit
        )
    }
}

/// Collects by key.
fn grouped<'a, T>(pairs: impl Iterator<Item = (&'a String, T)>) -> BTreeMap<&'a str, Vec<T>> {
    let mut groups: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (key, value) in pairs {
        groups.entry(key).or_default().push(value);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bill(change: impl FnOnce(&mut Sizes)) -> Bill {
        let mut sizes = Sizes::default();
        change(&mut sizes);
        Bill::new(sizes.into(), "a test").unwrap()
    }

    #[test]
    fn the_worked_examples_come_out() {
        // Three t3.micro and 24 GB: 55.11 closed, 99.64 open.
        let small = bill(|sizes| (sizes.root_volume_gib, sizes.database_volume_gib) = (5, 9));
        assert_eq!(small.closed_month_usd_micros.cents(), "55.11");
        assert_eq!(small.open_month_usd_micros.cents(), "99.64");
        // One hour with 2 GB on top of the closed month: 55.29.
        let hour = small.window_hour_usd_micros + small.window_gigabyte_usd_micros.times(2);
        assert_eq!((small.closed_month_usd_micros + hour).cents(), "55.29");
        let graviton = bill(|sizes| {
            sizes.bastion = "t4g.nano".into();
            sizes.backend = "t4g.micro".into();
            sizes.database = "t4g.small".into();
            (sizes.root_volume_gib, sizes.database_volume_gib) = (6, 12);
        });
        assert_eq!(graviton.closed_month_usd_micros.cents(), "45.44");
        let marked: Vec<_> = graviton
            .rows
            .iter()
            .filter(|row| row.weak.is_some())
            .map(|row| &row.resource)
            .collect();
        assert_eq!(marked, ["1 × t4g.micro: backend"]);
        assert!(
            graviton.text().contains("~0.0056 an hour")
                && graviton
                    .text()
                    .contains("~ 1 × t4g.micro: backend: inferred")
        );
    }

    #[test]
    fn another_region_has_its_own_prices() {
        let virginia = bill(|sizes| sizes.region = "us-east-1".into());
        assert_eq!(virginia.window_hour_usd_micros, MicroUsd(50_000));
        assert_eq!(virginia.rows[0].month_usd_micros, MicroUsd(22_776_000));
    }

    #[test]
    fn the_defaults_are_those_of_variables_tf() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/terraform/variables.tf");
        let text = std::fs::read_to_string(file).unwrap();
        let default = |name: &str| {
            let block = text
                .split(&format!("variable \"{name}\" {{"))
                .nth(1)
                .unwrap();
            let line = block
                .lines()
                .map(str::trim)
                .find(|line| line.starts_with("default"));
            line.unwrap().split_once('=').unwrap().1.trim().to_owned()
        };
        let sizes = Sizes::default();
        assert_eq!(default("region"), format!("\"{}\"", sizes.region));
        let types = [
            ("bastion", &sizes.bastion),
            ("backend", &sizes.backend),
            ("database", &sizes.database),
        ];
        let types: Vec<_> = types
            .iter()
            .map(|(host, kind)| format!("{host} = \"{kind}\""))
            .collect();
        assert_eq!(
            default("instance_types"),
            format!("{{ {} }}", types.join(", "))
        );
        assert_eq!(
            default("root_volume_gib"),
            sizes.root_volume_gib.to_string()
        );
        assert_eq!(
            default("database_volume_gib"),
            sizes.database_volume_gib.to_string()
        );
    }
}
