//! The gateway, the address and the route, fresh from EC2 through the `aws` command.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Cloud, CloudError, Trouble};

/// The command starts in a second or two; its own limits below end before this one.
const COMMAND_LIMIT: Duration = Duration::from_secs(45);

/// A NAT gateway as EC2 lists it. Deleted ones stay in the list for about an hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// `nat-…`
    pub id: String,
    /// Where its life stands.
    pub state: GatewayState,
    /// When it was made, and billing began.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it was deleted.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deleted_at: Option<OffsetDateTime>,
    /// Whether it carries the tag `NatWindow` of this deployment: Terraform made it for the window.
    pub is_tagged: bool,
}

/// Life of a NAT gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GatewayState {
    /// Being made.
    Pending,
    /// Could not be made; goes away by itself.
    Failed,
    /// Works.
    Available,
    /// Being deleted.
    Deleting,
    /// Gone.
    Deleted,
}

impl fmt::Display for GatewayState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Available => "available",
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
        })
    }
}

impl Gateway {
    /// Whether it stands and costs: `deleting` counts until it is over.
    #[must_use]
    pub fn is_standing(&self) -> bool {
        matches!(
            self.state,
            GatewayState::Pending | GatewayState::Available | GatewayState::Deleting
        )
    }
}

/// A public address that the account holds and pays for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    /// `eipalloc-…`
    pub allocation_id: String,
    /// The address.
    pub public_ip: String,
}

/// The private route table's way to everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// What it leads to: `nat-…`, or whatever somebody else made of it.
    pub target: String,
    /// Whether what it leads to is gone.
    pub is_blackhole: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RouteTableList {
    route_tables: Vec<RawRouteTable>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRouteTable {
    routes: Vec<RawRoute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawRoute {
    destination_cidr_block: Option<String>,
    state: Option<String>,
    nat_gateway_id: Option<String>,
    gateway_id: Option<String>,
    network_interface_id: Option<String>,
    instance_id: Option<String>,
    transit_gateway_id: Option<String>,
    vpc_peering_connection_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GatewayList {
    nat_gateways: Vec<RawGateway>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawGateway {
    nat_gateway_id: String,
    state: GatewayState,
    create_time: String,
    delete_time: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AddressList {
    addresses: Vec<RawAddress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawAddress {
    allocation_id: Option<String>,
    public_ip: String,
}

impl Cloud {
    /// All NAT gateways of the VPC, deleted ones included as long as EC2 lists them.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn gateways(
        &self,
        deployment: &str,
        vpc_id: &str,
    ) -> Result<Vec<Gateway>, CloudError> {
        let what = "list the NAT gateways";
        let filter = format!("Name=vpc-id,Values={vpc_id}");
        let answer = self
            .ec2(what, &["describe-nat-gateways", "--filter", &filter])
            .await?;
        read_gateways(&answer, deployment).map_err(|message| self.misread(what, message))
    }

    /// The addresses Terraform made for the deployment's window (by tag), so that one the state has lost is seen too.
    ///
    /// # Errors
    /// When EC2 cannot be asked or answers in another shape.
    pub async fn window_addresses(&self, deployment: &str) -> Result<Vec<Address>, CloudError> {
        let what = "list the public addresses";
        let owner = format!("Name=tag:Deployment,Values={deployment}");
        let name = format!("Name=tag:Name,Values={deployment}-nat");
        let answer = self
            .ec2(what, &["describe-addresses", "--filters", &owner, &name])
            .await?;
        read_addresses(&answer).map_err(|message| self.misread(what, message))
    }

    /// The route to everywhere (`0.0.0.0/0`) in this route table; `None` when it has none.
    ///
    /// # Errors
    /// [`CloudError::NotThere`] without the table; when EC2 cannot be asked or answers in another shape.
    pub async fn private_route(
        &self,
        account: &str,
        table_id: &str,
    ) -> Result<Option<Route>, CloudError> {
        let what = "read the private route table";
        let asked = self
            .ec2(
                what,
                &["describe-route-tables", "--route-table-ids", table_id],
            )
            .await;
        let not_there = || CloudError::NotThere {
            what: format!("the private route table {table_id}"),
            region: self.region.clone(),
            account: account.to_owned(),
        };
        let answer = match asked {
            Err(CloudError::Request {
                trouble: Trouble::Other { message },
                ..
            }) if message.contains("InvalidRouteTableID.NotFound") => return Err(not_there()),
            asked => asked?,
        };
        read_route(&answer)
            .map_err(|message| self.misread(what, message))?
            .ok_or_else(not_there)
    }

    pub(super) fn misread(&self, what: &'static str, message: String) -> CloudError {
        let trouble = Trouble::Other {
            message: format!("the `aws` command's answer is of another shape: {message}"),
        };
        CloudError::Request {
            what,
            region: self.region.clone(),
            trouble,
        }
    }

    pub(super) async fn ec2(
        &self,
        what: &'static str,
        arguments: &[&str],
    ) -> Result<String, CloudError> {
        self.ask(what, &[&["ec2"], arguments].concat()).await
    }

    /// Runs the `aws` command: service, operation and options in, JSON out.
    pub(super) async fn ask(
        &self,
        what: &'static str,
        arguments: &[&str],
    ) -> Result<String, CloudError> {
        let failed = |trouble| CloudError::Request {
            what,
            region: self.region.clone(),
            trouble,
        };
        let mut command = Command::new(self.aws.as_ref().ok_or(CloudError::NoCommand)?);
        command
            .args(arguments)
            .args(["--region", &self.region, "--output", "json"])
            .args(["--cli-connect-timeout", "8", "--cli-read-timeout", "20"])
            .env("AWS_PAGER", "")
            .env("AWS_MAX_ATTEMPTS", "2")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = match timeout(COMMAND_LIMIT, command.output()).await {
            Ok(output) => output.map_err(|error| {
                failed(Trouble::Other {
                    message: format!("cannot run `aws`: {error}"),
                })
            })?,
            Err(_) => {
                let message = format!("`aws` took longer than {} s", COMMAND_LIMIT.as_secs());
                return Err(failed(Trouble::NoAnswer { message }));
            }
        };
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(failed(Trouble::of_text(&String::from_utf8_lossy(
                &output.stderr,
            ))))
        }
    }
}

fn read_gateways(json: &str, deployment: &str) -> Result<Vec<Gateway>, String> {
    let list: GatewayList = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let time = |text: &str| {
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| format!("`{text}` is not a time"))
    };
    let read = |raw: RawGateway| {
        Ok(Gateway {
            is_tagged: raw
                .tags
                .iter()
                .any(|tag| tag.key == "NatWindow" && tag.value == deployment),
            id: raw.nat_gateway_id,
            state: raw.state,
            created_at: time(&raw.create_time)?,
            deleted_at: raw.delete_time.as_deref().map(time).transpose()?,
        })
    };
    list.nat_gateways.into_iter().map(read).collect()
}

fn read_addresses(json: &str) -> Result<Vec<Address>, String> {
    let list: AddressList = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let read = |raw: RawAddress| {
        Some(Address {
            allocation_id: raw.allocation_id?,
            public_ip: raw.public_ip,
        })
    };
    Ok(list.addresses.into_iter().filter_map(read).collect())
}

/// The outer `None`: there is no route table in the answer.
fn read_route(json: &str) -> Result<Option<Option<Route>>, String> {
    let list: RouteTableList = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let Some(table) = list.route_tables.into_iter().next() else {
        return Ok(None);
    };
    let route = table
        .routes
        .into_iter()
        .find(|route| route.destination_cidr_block.as_deref() == Some("0.0.0.0/0"));
    Ok(Some(route.map(|route| {
        Route {
            is_blackhole: route.state.as_deref() == Some("blackhole"),
            target: [
                route.nat_gateway_id,
                route.gateway_id,
                route.transit_gateway_id,
                route.vpc_peering_connection_id,
                route.instance_id,
                route.network_interface_id,
            ]
            .into_iter()
            .flatten()
            .next()
            .unwrap_or_else(|| "something unnamed".to_owned()),
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_are_read_and_ours_is_told_by_its_tag() {
        let json = r#"{"NatGateways":[
            {"NatGatewayId":"nat-1","State":"available","CreateTime":"2026-11-20T10:00:00.000Z","Tags":[{"Key":"NatWindow","Value":"drawbridge"}]},
            {"NatGatewayId":"nat-2","State":"deleted","CreateTime":"2026-11-20T09:00:00+00:00","DeleteTime":"2026-11-20T09:30:00+00:00"}]}"#;
        let read = read_gateways(json, "drawbridge").unwrap();
        assert!(read[0].is_tagged && read[0].is_standing());
        assert!(!read[1].is_tagged && !read[1].is_standing());
        assert_eq!(
            (read[1].deleted_at.unwrap() - read[1].created_at).whole_minutes(),
            30
        );
        assert!(read_gateways("{}", "x").is_err());
        assert!(read_gateways(&json.replace("available", "sesame"), "x").is_err());
    }

    #[test]
    fn addresses_are_read() {
        let json = r#"{"Addresses":[{"PublicIp":"203.0.113.1","AllocationId":"eipalloc-1","Domain":"vpc"}]}"#;
        assert_eq!(read_addresses(json).unwrap()[0].allocation_id, "eipalloc-1");
        assert!(read_addresses(r#"{"Addresses":[]}"#).unwrap().is_empty());
    }

    #[test]
    fn the_route_to_everywhere_is_read() {
        let json = r#"{"RouteTables":[{"RouteTableId":"rtb-1","Routes":[
            {"DestinationCidrBlock":"10.20.0.0/16","GatewayId":"local","State":"active"},
            {"DestinationPrefixListId":"pl-1","GatewayId":"vpce-1","State":"active"},
            {"DestinationCidrBlock":"0.0.0.0/0","NatGatewayId":"nat-1","State":"blackhole"}]}]}"#;
        let route = read_route(json).unwrap().unwrap().unwrap();
        assert_eq!((route.target.as_str(), route.is_blackhole), ("nat-1", true));
        let none = json.replace("0.0.0.0/0", "192.0.2.0/24");
        assert_eq!(read_route(&none).unwrap(), Some(None));
        assert_eq!(read_route(r#"{"RouteTables":[]}"#).unwrap(), None);
    }
}
