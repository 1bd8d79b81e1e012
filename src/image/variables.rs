//! `images.auto.tfvars.json` beside the Terraform files: which AMI each host starts from.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::appliance::Role;
use crate::terraform::variables_file;

/// File name inside the terraform directory.
pub const FILE: &str = "images.auto.tfvars.json";

const SHAPE: &str = r#"{"images": {"bastion": "ami-…", "backend": "ami-…", "database": "ami-…"}}"#;

/// Why the file is not taken or not written.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// It is left as it is.
    #[error(
        "{} must be of the shape {SHAPE}, but {problem}: correct it, or remove it and publish all three roles", file.display()
    )]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It is left as it is.
    #[error("cannot read {}: {problem} (see whose it is with `ls -l`, and run this again)", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        problem: io::Error,
    },
    /// The file is as it was.
    #[error("cannot write {}: {problem} (see whose the folder is and that the disk is not full, and run this again)", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why not.
        problem: io::Error,
    },
}

/// What the file holds: everything beside `images` is kept as it is.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    images: BTreeMap<Role, String>,
    others: Map<String, Value>,
}

impl Variables {
    /// Reads the file of this terraform directory; none is as good as an empty one.
    ///
    /// # Errors
    /// One that names the file, its shape and what to do.
    pub fn read(directory: &Path) -> Result<Self, VariablesError> {
        let file = directory.join(FILE);
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(problem) => return Err(VariablesError::Read { file, problem }),
        };
        parse(&text).map_err(|problem| VariablesError::Malformed { file, problem })
    }

    /// The AMI of each role that has one.
    #[must_use]
    pub fn images(&self) -> &BTreeMap<Role, String> {
        &self.images
    }

    /// Gives these roles these AMIs, reading the file anew and writing it in one step: whoever reads meanwhile sees the
    /// old or the new one. Whether it is another one now.
    ///
    /// # Errors
    /// [`VariablesError`]; the file is as it was.
    pub fn update(
        directory: &Path,
        images: &BTreeMap<Role, String>,
    ) -> Result<bool, VariablesError> {
        let mut now = Self::read(directory)?;
        let before = now.images.clone();
        now.images.extend(images.clone());
        if now.images == before {
            return Ok(false);
        }
        let file = directory.join(FILE);
        now.write(directory)
            .map_err(|problem| VariablesError::Write { file, problem })?;
        Ok(true)
    }

    fn write(&self, directory: &Path) -> io::Result<()> {
        let images = self
            .images
            .iter()
            .map(|(role, id)| (role.to_string(), Value::String(id.clone())));
        let mut content = self.others.clone();
        content.insert("images".to_owned(), Value::Object(images.collect()));
        let text = serde_json::to_string_pretty(&content)? + "\n";
        variables_file::replace(directory, FILE, &text)
    }
}

fn parse(text: &[u8]) -> Result<Variables, String> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| format!("it is not JSON ({error})"))?;
    let Value::Object(mut others) = value else {
        return Err("it is not an object".to_owned());
    };
    let images = match others.remove("images") {
        Some(Value::Object(images)) => images,
        Some(other) => return Err(format!("images is {other}")),
        None => return Err("images is missing".to_owned()),
    };
    let read = |(role, id): (String, Value)| {
        let known = role.parse::<Role>();
        let known = known.map_err(|error| format!("images.{role} is {error}"))?;
        match id.as_str() {
            Some(id) if is_image(id) => Ok((known, id.to_owned())),
            _ => Err(format!(
                "images.{role} is {id} where ami- and 8 to 17 hex digits belong"
            )),
        }
    };
    Ok(Variables {
        images: images.into_iter().map(read).collect::<Result<_, _>>()?,
        others,
    })
}

/// As terraform/variables.tf checks it.
fn is_image(id: &str) -> bool {
    id.strip_prefix("ami-").is_some_and(|digits| {
        (8..=17).contains(&digits.len())
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ami-00000001";
    const TWO: &str = "ami-0123456789abcdef0";

    fn update(before: Option<&str>, role: Role, id: &str) -> Result<(bool, String), String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        if let Some(before) = before {
            fs::write(&file, before).unwrap();
        }
        let images = BTreeMap::from([(role, id.to_owned())]);
        let changed = Variables::update(folder.path(), &images);
        assert!(
            fs::read_dir(folder.path()).unwrap().count() <= 1,
            "no draft is left"
        );
        let text = fs::read_to_string(&file).unwrap();
        match changed {
            Ok(changed) => Ok((changed, text)),
            Err(error) => {
                assert_eq!(Some(text.as_str()), before, "a refused file stays");
                Err(error.to_string())
            }
        }
    }

    #[test]
    fn other_roles_and_other_variables_are_kept() {
        let before = format!(r#"{{"region": "eu-west-1", "images": {{"bastion": "{ONE}"}}}}"#);
        let (changed, text) = update(Some(&before), Role::Backend, TWO).unwrap();
        let wanted = serde_json::json!({
            "region": "eu-west-1", "images": {"bastion": ONE, "backend": TWO},
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), wanted);
        assert!(changed);
        let (changed, again) = update(Some(&text), Role::Backend, TWO).unwrap();
        assert!(!changed && again == text);
        let (changed, text) = update(None, Role::Database, ONE).unwrap();
        assert!(changed && text.contains(ONE), "{text}");
    }

    #[test]
    fn a_malformed_file_is_refused_with_file_shape_and_remedy_and_stays() {
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"images": []}"#,
            r#"{"images": {"bastion": 1}}"#,
            r#"{"images": {"bastion": "ami-1"}}"#,
            r#"{"images": {"bastion": "ami-0000000Z"}}"#,
            r#"{"images": {"frontend": "ami-00000001"}}"#,
            r#"{"images": {}} x"#,
        ] {
            let said = update(Some(wrong), Role::Backend, ONE).unwrap_err();
            assert!(
                said.contains(FILE) && said.contains(SHAPE) && said.contains("correct it"),
                "{wrong}: {said}"
            );
        }
    }
}
