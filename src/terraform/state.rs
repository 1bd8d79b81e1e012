//! Terraform's state, read once into typed look-ups.
//!
//! The raw state (`terraform state pull`, format 4) is used rather than `terraform show -json`: the latter starts the
//! provider for its schemas and takes seconds, and the network has to follow the state while a close is running.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Why a state cannot be used. Always names the resource and the field.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not JSON, or not the shape of a state.
    #[error("the Terraform state is not readable: {0}. Look at it with `terraform state pull`")]
    Malformed(#[source] serde_json::Error),
    /// A state format other than the one Terraform 0.12 to 1.x writes.
    #[error(
        "the Terraform state has format {0}, but only format 4 is understood; use Terraform 1.x"
    )]
    Version(u64),
    /// A resource lacks something.
    #[error("{address}: {field} is not {expected} (`terraform state show '{address}'` shows it)")]
    Field {
        /// Terraform address of the resource.
        address: String,
        /// Attribute name.
        field: String,
        /// What should be there.
        expected: &'static str,
    },
    /// The state lacks a resource that the topology cannot do without.
    #[error("the state holds no {0}; has `terraform apply` finished? `drawbridge up` finishes it")]
    Missing(&'static str),
}

#[derive(Deserialize)]
struct RawState {
    version: u64,
    #[serde(default)]
    outputs: HashMap<String, RawOutput>,
    #[serde(default)]
    resources: Vec<RawResource>,
}

#[derive(Deserialize)]
struct RawOutput {
    value: Value,
}

#[derive(Deserialize)]
struct RawResource {
    #[serde(default)]
    module: Option<String>,
    mode: String,
    r#type: String,
    name: String,
    instances: Vec<RawInstance>,
}

#[derive(Deserialize)]
struct RawInstance {
    #[serde(default)]
    index_key: Option<Value>,
    attributes: Map<String, Value>,
}

/// The managed resources of a state, and its outputs.
#[derive(Debug, Default)]
pub struct State {
    outputs: HashMap<String, Value>,
    resources: Vec<Resource>,
}

/// One instance of one resource.
#[derive(Debug)]
pub struct Resource {
    /// Terraform address, e.g. `aws_subnet.main["edge"]`.
    pub address: String,
    kind: String,
    attributes: Map<String, Value>,
}

impl State {
    /// Reads the output of `terraform state pull`.
    ///
    /// # Errors
    /// [`StateError::Malformed`] and [`StateError::Version`].
    pub fn parse(text: &str) -> Result<State, StateError> {
        let raw: RawState = serde_json::from_str(text).map_err(StateError::Malformed)?;
        if raw.version != 4 {
            return Err(StateError::Version(raw.version));
        }
        let mut resources = Vec::new();
        for resource in raw.resources.into_iter().filter(|r| r.mode == "managed") {
            let module = resource.module.map(|m| format!("{m}.")).unwrap_or_default();
            for instance in resource.instances {
                let key = instance
                    .index_key
                    .map(|k| format!("[{k}]"))
                    .unwrap_or_default();
                resources.push(Resource {
                    address: format!("{module}{}.{}{key}", resource.r#type, resource.name),
                    kind: resource.r#type.clone(),
                    attributes: instance.attributes,
                });
            }
        }
        let outputs = raw.outputs.into_iter();
        Ok(State {
            outputs: outputs.map(|(name, output)| (name, output.value)).collect(),
            resources,
        })
    }

    /// A text in an output that is an object: `path` names its field, and the fields that one stands in.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub fn output(&self, name: &str, path: &[&str]) -> Result<&str, StateError> {
        let found = path
            .iter()
            .fold(self.outputs.get(name), |value, field| value?.get(field));
        found
            .and_then(Value::as_str)
            .ok_or_else(|| StateError::Field {
                address: format!("output.{name}"),
                field: path.join("."),
                expected: "a text",
            })
    }

    /// Every instance of every resource, in the state's order.
    pub fn all(&self) -> impl Iterator<Item = &Resource> {
        self.resources.iter()
    }

    /// All instances of a resource type, in the state's order.
    pub fn of_type<'a>(&'a self, kind: &'static str) -> impl Iterator<Item = &'a Resource> {
        self.resources.iter().filter(move |r| r.kind == kind)
    }

    /// The first instance of a resource type that must be there.
    ///
    /// # Errors
    /// [`StateError::Missing`].
    pub fn first(&self, kind: &'static str) -> Result<&Resource, StateError> {
        self.of_type(kind).next().ok_or(StateError::Missing(kind))
    }

    /// Whether it holds a resource of this type and id.
    #[must_use]
    pub fn has(&self, kind: &str, id: &str) -> bool {
        let mut known = self.resources.iter().filter(|r| r.kind == kind);
        known.any(|resource| resource.optional_text("id") == Some(id))
    }

    /// How many resource instances the state holds.
    pub fn resource_count(&self) -> usize {
        self.resources.len()
    }
}

impl Resource {
    /// Resource type, e.g. `aws_subnet`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The error for a field that is not what it should be.
    pub fn wrong(&self, field: &str, expected: &'static str) -> StateError {
        StateError::Field {
            address: self.address.clone(),
            field: field.to_owned(),
            expected,
        }
    }

    /// A text attribute.
    ///
    /// # Errors
    /// [`StateError::Field`], also for null.
    pub fn text(&self, field: &str) -> Result<&str, StateError> {
        self.attributes
            .get(field)
            .and_then(Value::as_str)
            .ok_or_else(|| self.wrong(field, "a text"))
    }

    /// A text attribute where null, the empty text and absence mean "none".
    pub fn optional_text(&self, field: &str) -> Option<&str> {
        self.attributes
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// A yes or no; null and absence mean no.
    pub fn flag(&self, field: &str) -> bool {
        self.attributes
            .get(field)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// A whole number that fits in `T`, also where the provider writes it as a text.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub fn number<T: TryFrom<i64>>(&self, field: &str) -> Result<T, StateError> {
        number(self.attributes.get(field))
            .ok_or_else(|| self.wrong(field, "a whole number in range"))
    }

    /// An IPv4 address.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub fn address(&self, field: &str) -> Result<Ipv4Addr, StateError> {
        self.text(field)?
            .parse()
            .map_err(|_| self.wrong(field, "an IPv4 address"))
    }

    /// Any attribute that parses from text, such as a CIDR block.
    ///
    /// # Errors
    /// [`StateError::Field`] with `expected`.
    pub fn parsed<T: std::str::FromStr>(
        &self,
        field: &str,
        expected: &'static str,
    ) -> Result<T, StateError> {
        self.text(field)?
            .parse()
            .map_err(|_| self.wrong(field, expected))
    }

    /// A list or set of texts; absence is an empty list.
    pub fn texts(&self, field: &str) -> Vec<&str> {
        self.attributes.get(field).map(texts).unwrap_or_default()
    }

    /// The blocks of a nested block or list of objects; absence is an empty list.
    pub fn blocks(&self, field: &str) -> Vec<Block<'_>> {
        let values = self.attributes.get(field).and_then(Value::as_array);
        values
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(|map| Block { owner: self, map })
            .collect()
    }
}

/// One nested block of a resource.
pub struct Block<'a> {
    owner: &'a Resource,
    map: &'a Map<String, Value>,
}

impl<'a> Block<'a> {
    /// A text where null, empty and absent mean "none".
    pub fn optional_text(&self, field: &str) -> Option<&'a str> {
        self.map
            .get(field)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// The blocks of a block nested in this one; absence is an empty list.
    pub fn blocks(&self, field: &str) -> Vec<Block<'a>> {
        let values = self.map.get(field).and_then(Value::as_array);
        let owner = self.owner;
        values
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(|map| Block { owner, map })
            .collect()
    }

    /// A yes or no; null and absence mean no.
    pub fn flag(&self, field: &str) -> bool {
        self.map
            .get(field)
            .and_then(Value::as_bool)
            .unwrap_or(false)
    }

    /// A list of texts; absence is an empty list.
    pub fn texts(&self, field: &str) -> Vec<&'a str> {
        self.map.get(field).map(texts).unwrap_or_default()
    }

    /// A whole number that fits in `T`.
    ///
    /// # Errors
    /// [`StateError::Field`].
    pub fn number<T: TryFrom<i64>>(&self, field: &str) -> Result<T, StateError> {
        number(self.map.get(field))
            .ok_or_else(|| self.owner.wrong(field, "a whole number in range"))
    }
}

fn number<T: TryFrom<i64>>(value: Option<&Value>) -> Option<T> {
    let value = value?;
    let number = value.as_i64().or_else(|| value.as_str()?.parse().ok())?;
    T::try_from(number).ok()
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = r#"{"version":4,"resources":[
        {"mode":"data","type":"aws_subnet","name":"other","instances":[{"attributes":{}}]},
        {"mode":"managed","type":"aws_subnet","name":"main","instances":[
            {"index_key":"edge","attributes":{"cidr_block":"10.0.4.0/24","size":"7","none":null,"list":["a","b"]}},
            {"index_key":0,"attributes":{"nested":[{"port":80}]}}]}]}"#;

    #[test]
    fn addresses_carry_their_keys_and_data_sources_are_left_out() {
        let state = State::parse(STATE).unwrap();
        let addresses: Vec<&str> = state
            .of_type("aws_subnet")
            .map(|r| r.address.as_str())
            .collect();
        assert_eq!(
            addresses,
            [r#"aws_subnet.main["edge"]"#, "aws_subnet.main[0]"]
        );
    }

    #[test]
    fn attributes_are_read_by_type_and_a_missing_one_is_named() {
        let state = State::parse(STATE).unwrap();
        let edge = state.first("aws_subnet").unwrap();
        assert_eq!(edge.text("cidr_block").unwrap(), "10.0.4.0/24");
        assert_eq!(edge.number::<u16>("size").unwrap(), 7);
        assert_eq!(edge.optional_text("none"), None);
        assert_eq!(edge.texts("list"), ["a", "b"]);
        let second = state.of_type("aws_subnet").nth(1).unwrap();
        assert_eq!(
            second.blocks("nested")[0].number::<u16>("port").unwrap(),
            80
        );
        let error = edge.address("cidr_block").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"aws_subnet.main["edge"]: cidr_block is not an IPv4 address (`terraform state show 'aws_subnet.main["edge"]'` shows it)"#
        );
    }

    #[test]
    fn another_format_and_no_state_at_all_are_refused() {
        assert!(matches!(
            State::parse(r#"{"version":3}"#),
            Err(StateError::Version(3))
        ));
        assert!(matches!(State::parse(""), Err(StateError::Malformed(_))));
        assert!(matches!(
            State::parse(r#"{"version":4}"#).unwrap().first("aws_vpc"),
            Err(StateError::Missing("aws_vpc"))
        ));
    }
}
