//! What the database host has published in SSM for whoever logs in to Postgres: login and certificate.

use super::{Cloud, Trouble};
use crate::appliance::{Login, NotALogin, Secret, parameter};

/// Why a published value cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// The credentials are not allowed to.
    #[error(
        "these credentials may not read {name} ({trouble}): they need {} on {arn}",
        if *is_encrypted { "ssm:GetParameters, and kms:Decrypt on the key it is encrypted with (alias/aws/ssm)," } else { "ssm:GetParameters" }
    )]
    Denied {
        /// The parameter.
        name: String,
        /// Its ARN.
        arn: String,
        /// Whether it is a SecureString.
        is_encrypted: bool,
        /// AWS's words.
        trouble: Trouble,
    },
    /// SSM could not be asked.
    #[error("cannot read {name} in {region}: {trouble}")]
    NotRead {
        /// The parameter.
        name: String,
        /// Where.
        region: String,
        /// What stood in the way.
        trouble: Trouble,
    },
    /// Nothing stands there.
    #[error(
        "there is no SSM parameter {name} in {region}: are these credentials (`aws sts get-caller-identity`) those of the deployment's account?"
    )]
    Missing {
        /// The parameter.
        name: String,
        /// Where.
        region: String,
    },
    /// The host has not come that far.
    #[error(
        "the database has not published {name} yet: see how far it is with `drawbridge nat status`"
    )]
    Pending {
        /// The parameter.
        name: String,
    },
    /// Not the published form.
    #[error("{name} holds something else")]
    Login {
        /// The parameter.
        name: String,
        /// What it should be.
        #[source]
        source: NotALogin,
    },
    /// Not the published form.
    #[error(
        "{name} does not hold one certificate in PEM form; run `drawbridge-host bootstrap --again` on the database host"
    )]
    Certificate {
        /// The parameter.
        name: String,
    },
}

impl Cloud {
    /// How the application logs in now; a rotation changes it.
    ///
    /// # Errors
    /// [`PublishedError`]; none quotes the value.
    pub async fn database_login(
        &self,
        account: &str,
        deployment: &str,
    ) -> Result<Login, PublishedError> {
        let name = parameter::database_login(deployment);
        let value = Secret::new(self.published(account, &name, true).await?);
        Login::parse(&value).map_err(|source| PublishedError::Login { name, source })
    }

    /// The certificate that Postgres shows, its own issuer (PEM).
    ///
    /// # Errors
    /// [`PublishedError`].
    pub async fn database_certificate(
        &self,
        account: &str,
        deployment: &str,
    ) -> Result<String, PublishedError> {
        let name = parameter::database_certificate(deployment);
        let value = self.published(account, &name, false).await?;
        match is_one_certificate(&value) {
            true => Ok(value),
            false => Err(PublishedError::Certificate { name }),
        }
    }

    async fn published(
        &self,
        account: &str,
        name: &str,
        is_encrypted: bool,
    ) -> Result<String, PublishedError> {
        let name = name.to_owned();
        let asked = self.ssm.get_parameters().names(&name);
        let answer = asked.with_decryption(is_encrypted).send().await;
        let answer = answer.map_err(|error| match Trouble::of_sdk(&error) {
            trouble @ Trouble::NotAllowed { .. } => PublishedError::Denied {
                arn: format!("arn:aws:ssm:{}:{account}:parameter{name}", self.region),
                name: name.clone(),
                is_encrypted,
                trouble,
            },
            trouble => PublishedError::NotRead {
                name: name.clone(),
                region: self.region.clone(),
                trouble,
            },
        })?;
        let found = answer.parameters.and_then(|mut found| found.pop()?.value);
        match found {
            // Without a deployment, or with credentials of another account.
            None => Err(PublishedError::Missing {
                name,
                region: self.region.clone(),
            }),
            Some(value) if value == parameter::PENDING => Err(PublishedError::Pending { name }),
            Some(value) => Ok(value),
        }
    }
}

/// libpq says no more of a bad file than that it cannot be read.
fn is_one_certificate(text: &str) -> bool {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let inner = text.trim().strip_prefix(BEGIN);
    let inner = inner.and_then(|text| text.strip_suffix(END));
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte);
    inner.is_some_and(|inner| !inner.trim().is_empty() && inner.bytes().all(is_base64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_certificate_is_one_block_of_base64() {
        let one =
            "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmg\nAwIBAg==\n-----END CERTIFICATE-----\n";
        assert!(is_one_certificate(one));
        let key = one.replace("CERTIFICATE", "PRIVATE KEY");
        for text in ["", "pending", &one.repeat(2), &one[..30], &key] {
            assert!(!is_one_certificate(text), "{text}");
        }
    }

    #[test]
    fn a_denial_names_the_rights_that_are_missing() {
        let denied = PublishedError::Denied {
            name: "/drawbridge/database/login".into(),
            arn: "arn:aws:ssm:ap-south-1:123456789012:parameter/drawbridge/database/login".into(),
            is_encrypted: true,
            trouble: Trouble::of_text("AccessDeniedException: no"),
        };
        let text = denied.to_string();
        assert!(
            text.contains("ssm:GetParameters, and kms:Decrypt"),
            "{text}"
        );
        assert!(
            text.contains("parameter/drawbridge/database/login"),
            "{text}"
        );
    }
}
