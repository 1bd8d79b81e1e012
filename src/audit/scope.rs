//! What is ours: by Terraform's state, and by name where there is none.

use crate::cloud::inventory::Where;
use crate::cost::prices::Prices;
use crate::cost::{HOURS_A_MONTH, MicroUsd};
use crate::terraform::state::{State, StateError};
use crate::terraform::{Deployment, Terraform, TerraformError};

/// `--name` and `--region`, for where no state tells them.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Name of the deployment.
    pub name: Option<String>,
    /// AWS region.
    pub region: Option<String>,
}

/// What to look for, and where.
#[derive(Debug)]
pub struct Scope {
    /// Name of the deployment, the value of the tag `Deployment`.
    pub name: String,
    /// AWS region.
    pub region: String,
    /// The output `deployment`; none before the first apply and after a destroy.
    pub deployment: Option<Deployment>,
    state: State,
    prices: Option<Prices>,
}

/// Why it is not known what to look for.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    /// Terraform cannot be asked.
    #[error(transparent)]
    Terraform(#[from] TerraformError),
    /// The state is not readable.
    #[error(transparent)]
    State(#[from] StateError),
    /// Nothing tells what to look for.
    #[error(
        "{why}: say what to look for with --name and --region, e.g. `drawbridge audit --name drawbridge --region ap-south-1`"
    )]
    Unnamed {
        /// Why the state does not tell.
        why: String,
    },
    /// Everything of the other deployment would be called left over.
    #[error(
        "the state here is of the deployment {name} in {region}, not of {given}: leave --name and --region away to audit that one, or run this beside a terraform folder without a state"
    )]
    OtherDeployment {
        /// The state's.
        name: String,
        /// The state's.
        region: String,
        /// What the options say.
        given: String,
    },
}

impl Scope {
    /// Reads the state, if there is one, and what was given.
    ///
    /// # Errors
    /// [`ScopeError`]
    pub async fn read(
        terraform: Result<Terraform, TerraformError>,
        given: &Given,
    ) -> Result<Self, ScopeError> {
        let read = match terraform {
            Ok(terraform) => read(&terraform).await,
            Err(error) => Err(error.into()),
        };
        let (deployment, state) = match read {
            Ok(read) => read,
            // Whoever names what to look for needs no terraform.
            Err(ScopeError::Terraform(
                TerraformError::NotInstalled | TerraformError::NoDirectory { .. },
            )) if given.name.is_some() && given.region.is_some() => (None, State::default()),
            Err(error) => return Err(error),
        };
        let (name, region) = match (&deployment, &given.name, &given.region) {
            (Some(known), name, region) => {
                let differs = |given: &Option<String>, known: &String| {
                    given.as_ref().is_some_and(|given| given != known)
                };
                if differs(name, &known.name) || differs(region, &known.region) {
                    let given: Vec<&str> = [name, region]
                        .into_iter()
                        .filter_map(|given| given.as_deref())
                        .collect();
                    return Err(ScopeError::OtherDeployment {
                        name: known.name.clone(),
                        region: known.region.clone(),
                        given: given.join(" in "),
                    });
                }
                (known.name.clone(), known.region.clone())
            }
            (None, Some(name), Some(region)) => (name.clone(), region.clone()),
            (None, ..) => {
                let why = "Terraform's state here holds no deployment (nothing applied yet, or destroyed)";
                return Err(ScopeError::Unnamed {
                    why: why.to_owned(),
                });
            }
        };
        Ok(Self {
            name,
            region,
            deployment,
            state,
            prices: Prices::load().ok(),
        })
    }

    /// Whether the state knows anything at all.
    #[must_use]
    pub fn has_resources(&self) -> bool {
        self.state.resource_count() > 0
    }

    /// Whether the state knows this resource.
    pub(super) fn knows(&self, kind: &str, id: &str) -> bool {
        self.state.has(kind, id)
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The VPC, also in a state that a destroy left half-way.
    pub(super) fn vpc_id(&self) -> Option<&str> {
        let of_output = self
            .deployment
            .as_ref()
            .map(|deployment| deployment.vpc_id.as_str());
        of_output.or_else(|| self.state.of_type("aws_vpc").next()?.optional_text("id"))
    }

    pub(super) fn vpc(&self) -> Option<Where> {
        self.vpc_id().map(|id| Where::Vpc(id.to_owned()))
    }

    /// Where to look: by tag, and in the VPC when there is one.
    pub(super) fn places(&self) -> impl Iterator<Item = Where> {
        let tagged = Where::Deployment(self.name.clone());
        std::iter::once(tagged).chain(self.vpc())
    }

    /// `aws … --region …`, to be copied.
    pub(super) fn aws(&self, command: &str) -> String {
        format!("aws {command} --region {}", self.region)
    }

    /// What an hourly price makes in a month.
    pub(super) fn month(&self, price: Price<'_>) -> Option<MicroUsd> {
        let table = self.prices.as_ref()?.region(&self.region).ok()?;
        let hourly = |price: MicroUsd| price.times(HOURS_A_MONTH);
        Some(match price {
            Price::Address => hourly(table.address_hour.usd),
            Price::NatGateway => hourly(table.nat_gateway_hour.usd),
            Price::LoadBalancer => hourly(table.load_balancer_hour.usd),
            Price::Instance(kind) => hourly(table.instance(kind, &self.region).ok()?.usd),
            Price::Volume(kind, gib) => table.volume(kind, &self.region).ok()?.usd.times(gib),
            Price::Snapshot(gib) => table.snapshot_gigabyte_month.usd.times(gib),
        })
    }
}

/// What has a price by the month.
pub(super) enum Price<'a> {
    Address,
    NatGateway,
    LoadBalancer,
    Instance(&'a str),
    Volume(&'a str, u64),
    Snapshot(u64),
}

async fn read(terraform: &Terraform) -> Result<(Option<Deployment>, State), ScopeError> {
    let deployment = match terraform.deployment().await {
        Ok(deployment) => Some(deployment),
        Err(TerraformError::NotApplied { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let state = match terraform.state_pull().await {
        Ok(state) => State::parse(&state)?,
        Err(TerraformError::NotApplied { .. }) => State::default(),
        Err(error) => return Err(error.into()),
    };
    Ok((deployment, state))
}

#[cfg(test)]
impl Scope {
    /// The sample deployment with this state.
    pub(super) fn sample(state: &serde_json::Value) -> Self {
        let deployment = crate::terraform::tests::sample();
        Self {
            name: deployment.name.clone(),
            region: deployment.region.clone(),
            deployment: Some(deployment),
            state: State::parse(&state.to_string()).unwrap(),
            prices: Prices::load().ok(),
        }
    }
}
