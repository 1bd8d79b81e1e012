//! Values that must not be seen.

use std::fmt;

/// A password or the like. Neither `Debug` nor any other trait shows it; [`Secret::expose`] is the only way to it. Its
/// memory is overwritten when it goes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes charge of a value.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// A new one with 256 bits from the operating system, as 64 hexadecimal digits: needs no quoting anywhere.
    ///
    /// # Errors
    /// When the operating system has no random numbers to give.
    #[cfg(feature = "host")]
    pub fn random() -> Result<Self, rand::rngs::SysError> {
        use rand::TryRng as _;
        let mut bytes = [0_u8; 32];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes)?;
        Ok(Secret(
            bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text with the value blotted out, for messages of others that might quote it.
    pub fn redact(&self, text: &str) -> String {
        if self.0.is_empty() {
            return text.into();
        }
        text.replace(&self.0, "[redacted]")
    }
}

#[cfg(any(feature = "host", feature = "operator"))]
impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "host")]
    #[test]
    fn a_secret_is_random_and_never_shown() {
        let secret = Secret::random().unwrap();
        assert_eq!(secret.expose().len(), 64);
        assert_ne!(secret, Secret::random().unwrap());
        assert!(!format!("{secret:?}").contains(&secret.expose()[..8]));
        let quoted = format!("value {} refused", secret.expose());
        assert_eq!(secret.redact(&quoted), "value [redacted] refused");
    }
}
