//! Terraform's output `deployment`: the one object by which the CLI knows what stands.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What terraform's state says stands. Additional fields are ignored, so that people may extend the output for
/// themselves; a missing or mistyped field is an error that names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Terraform variable `name`, e.g. `drawbridge`; prefix of every SSM parameter.
    pub name: String,
    /// AWS region, e.g. `ap-south-1`.
    pub region: String,
    /// The AWS account it stands in, e.g. `123456789012`.
    pub account_id: String,
    /// `vpc-…`
    pub vpc_id: String,
    /// `rtb-…` of the private subnets; the window's route is in it.
    pub private_route_table_id: String,
    /// The jump host.
    pub bastion: Bastion,
    /// The host that runs the API.
    pub backend: Instance,
    /// The host that runs Postgres.
    pub database: Instance,
    /// `vol-…` that holds the database's data and outlives its host.
    pub database_volume_id: String,
    /// The public entrance.
    pub load_balancer: LoadBalancer,
    /// The window's gateway as the state knows it; `None` when the window is closed.
    pub nat_gateway: Option<NatGateway>,
}

/// A private host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `i-…`; changes when the host is replaced.
    pub instance_id: String,
    /// IPv4 address inside the VPC.
    pub private_ip: String,
    /// `ami-…` it was started from.
    pub image_id: String,
}

/// The one host that admins reach directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bastion {
    /// `i-…`; changes when the host is replaced.
    pub instance_id: String,
    /// IPv4 address inside the VPC.
    pub private_ip: String,
    /// IPv4 address in the internet.
    pub public_ip: String,
    /// `ami-…` it was started from.
    pub image_id: String,
}

/// The load balancer in front of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadBalancer {
    /// Name without scheme.
    pub dns_name: String,
    /// `http://<dns_name>`, or `https://<domain>` whose DNS is the user's affair; no slash at the end.
    pub url: String,
    /// `url` and the path that the health check asks: 200 when the API is ready.
    pub ready_url: String,
}

/// The temporary NAT gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatGateway {
    /// `nat-…`
    pub id: String,
    /// Its address in the internet.
    pub public_ip: String,
    /// `eipalloc-…` of that address.
    pub allocation_id: String,
    /// Name of the schedule that deletes the gateway at its deadline; `None` without a deadline.
    pub schedule: Option<String>,
}

impl Deployment {
    /// Reads the output's JSON.
    ///
    /// # Errors
    /// A text that names the field and what is wrong with it.
    pub fn parse(json: &str) -> Result<Self, String> {
        let value: Value =
            serde_json::from_str(json).map_err(|error| format!("is not JSON ({error})"))?;
        if !value.is_object() {
            return Err("is not an object".to_owned());
        }
        Ok(Self {
            name: part(&value, "name")?,
            region: part(&value, "region")?,
            account_id: part(&value, "account_id")?,
            vpc_id: part(&value, "vpc_id")?,
            private_route_table_id: part(&value, "private_route_table_id")?,
            bastion: part(&value, "bastion")?,
            backend: part(&value, "backend")?,
            database: part(&value, "database")?,
            database_volume_id: part(&value, "database_volume_id")?,
            load_balancer: part(&value, "load_balancer")?,
            nat_gateway: part(&value, "nat_gateway")?,
        })
    }
}

// Field by field, because serde_json alone says "missing field `public_ip`" without the host it is missing from.
fn part<T: DeserializeOwned>(value: &Value, field: &str) -> Result<T, String> {
    let found = value
        .get(field)
        .ok_or_else(|| format!("has no field `{field}`"))?;
    T::deserialize(found)
        .map_err(|error| format!("has a field `{field}` that does not fit: {error}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;
    use crate::terraform::PlannedChange;

    /// A deployment with an open window, for tests of other modules too.
    pub(crate) fn sample() -> Deployment {
        Deployment::parse(&sample_json().to_string()).unwrap()
    }

    /// A change of a plan, for tests of other modules.
    pub(crate) fn change(address: &str, action: &str) -> PlannedChange {
        PlannedChange {
            address: address.into(),
            kind: address.split('.').next().unwrap().into(),
            action: action.into(),
        }
    }

    fn sample_json() -> Value {
        let host =
            |id: &str, ip: &str| json!({"instance_id": id, "private_ip": ip, "image_id": "ami-1"});
        json!({
            "name": "drawbridge", "region": "ap-south-1", "account_id": "123456789012",
            "vpc_id": "vpc-1", "private_route_table_id": "rtb-1", "database_volume_id": "vol-1",
            "bastion": {"instance_id": "i-bastion", "private_ip": "10.20.1.5", "public_ip": "203.0.113.9", "image_id": "ami-1"},
            "backend": host("i-backend", "10.20.2.5"), "database": host("i-database", "10.20.3.10"),
            "load_balancer": {"dns_name": "lb.example", "url": "http://lb.example", "ready_url": "http://lb.example/ready"},
            "nat_gateway": {"id": "nat-1", "public_ip": "203.0.113.10", "allocation_id": "eipalloc-1", "schedule": "drawbridge-nat-1-4h"},
        })
    }

    #[test]
    fn a_whole_output_is_read_and_more_fields_do_no_harm() {
        let mut json = sample_json();
        json["note"] = json!("mine");
        json["nat_gateway"] = Value::Null;
        let deployment = Deployment::parse(&json.to_string()).unwrap();
        assert_eq!(deployment.database.private_ip, "10.20.3.10");
        assert_eq!(deployment.nat_gateway, None);
    }

    #[test]
    fn a_bad_output_names_the_field() {
        let broken = |change: fn(&mut Value)| {
            let mut json = sample_json();
            change(&mut json);
            Deployment::parse(&json.to_string()).unwrap_err()
        };
        assert!(broken(|json| json["bastion"]["public_ip"] = json!(7)).contains("`bastion`"));
        assert!(
            broken(|json| drop(json.as_object_mut().unwrap().remove("nat_gateway")))
                .contains("no field `nat_gateway`")
        );
        let missing = broken(|json| {
            drop(
                json["backend"]
                    .as_object_mut()
                    .unwrap()
                    .remove("private_ip"),
            )
        });
        assert!(
            missing.contains("`backend`") && missing.contains("`private_ip`"),
            "{missing}"
        );
        assert!(
            Deployment::parse("[]")
                .unwrap_err()
                .contains("not an object")
        );
    }
}
