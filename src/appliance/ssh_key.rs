//! OpenSSH public key lines, as they may stand in `authorized_keys` and `known_hosts`.

use std::fmt;
use std::str::FromStr;

/// Key types and how the base64 of their blob begins: a length and the type's name again, so a line whose two halves
/// disagree (or whose blob was cut at the front) is caught without decoding.
const TYPES: [(&str, &str); 7] = [
    ("ssh-ed25519", "AAAAC3NzaC1lZDI1NTE5"),
    ("ecdsa-sha2-nistp256", "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY"),
    ("ecdsa-sha2-nistp384", "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ"),
    ("ecdsa-sha2-nistp521", "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjE"),
    ("ssh-rsa", "AAAAB3NzaC1yc2E"),
    (
        "sk-ssh-ed25519@openssh.com",
        "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t",
    ),
    (
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb2",
    ),
];

/// The base64 of an Ed25519 key is 68 characters, the shortest of all types.
const SHORTEST_BLOB: usize = 68;
/// The longest key in use, RSA with 16384 bits, stays below this.
const LONGEST_LINE: usize = 4096;

/// One public key: `<type> <base64> [comment]`, no options in front, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshPublicKey(String);

/// Why a line is not a public key. No variant carries the line: people paste private keys by mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// Some `-----BEGIN … PRIVATE KEY-----`.
    #[error(
        "it is a PRIVATE key; paste the line of the .pub file, and treat the private key as lost"
    )]
    Private,
    /// Begins with something else than a known key type.
    #[error(
        "it must begin with a key type such as ssh-ed25519, followed by base64; paste the one line of the .pub file"
    )]
    Type,
    /// The second word is cut, damaged or of another type.
    #[error("its base64 part is cut off or damaged; copy the whole line of the .pub file again")]
    Blob,
    /// A line break or another control character, which would start a second line where the key is used.
    #[error("it holds a line break or control character; give one line per key")]
    Control,
    /// Over 4096 bytes.
    #[error("it is longer than 4096 characters; give one line per key")]
    TooLong,
}

impl SshPublicKey {
    /// The whole line, with its comment.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key's type, e.g. `ssh-ed25519`.
    pub fn key_type(&self) -> &str {
        self.0.split(' ').next().unwrap_or_default()
    }

    /// `<type> <base64>` alone: what known_hosts wants, and what is compared.
    pub fn without_comment(&self) -> SshPublicKey {
        let mut words = self.0.splitn(3, ' ');
        let kind = words.next().unwrap_or_default();
        let blob = words.next().unwrap_or_default();
        SshPublicKey(format!("{kind} {blob}"))
    }
}

impl fmt::Display for SshPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SshPublicKey {
    type Err = SshKeyError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let line = line.trim();
        if line.contains("PRIVATE KEY") {
            return Err(SshKeyError::Private);
        }
        if line.len() > LONGEST_LINE {
            return Err(SshKeyError::TooLong);
        }
        if line.chars().any(char::is_control) {
            return Err(SshKeyError::Control);
        }
        let (kind, rest) = line.split_once(' ').ok_or(SshKeyError::Type)?;
        let (_, blob_start) = TYPES
            .iter()
            .find(|(name, _)| *name == kind)
            .ok_or(SshKeyError::Type)?;
        let rest = rest.trim_start();
        let (blob, comment) = rest.split_once(' ').unwrap_or((rest, ""));
        let body = blob.trim_end_matches('=');
        let well_formed = blob.starts_with(blob_start)
            && blob.len() >= SHORTEST_BLOB
            && blob.len() % 4 == 0
            && blob.len() - body.len() <= 2
            && body
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
            && (kind != "ssh-ed25519" || blob.len() == SHORTEST_BLOB);
        if !well_formed {
            return Err(SshKeyError::Blob);
        }
        Ok(SshPublicKey(
            format!("{kind} {blob} {}", comment.trim())
                .trim_end()
                .into(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0hQUfnGVXl+vU0Rr2Yl1mY5sVmJ2bJ2wF4l0dXo9aB ada@example.org";

    #[test]
    fn a_key_line_is_kept_and_its_comment_can_be_dropped() {
        let key: SshPublicKey = format!("  {KEY}\n").parse().unwrap();
        assert_eq!(key.as_str(), KEY);
        assert_eq!(key.key_type(), "ssh-ed25519");
        assert_eq!(
            key.without_comment().as_str(),
            KEY.rsplit_once(' ').unwrap().0
        );
    }

    #[test]
    fn what_is_no_key_line_is_refused_without_showing_it() {
        let (head, _) = KEY.rsplit_once(' ').unwrap();
        for (line, error) in [
            ("", SshKeyError::Type),
            ("sesame", SshKeyError::Type),
            ("ssh-dss AAAAB3NzaC1kc3MAAACB", SshKeyError::Type),
            ("command=\"sh\" ssh-ed25519 AAAA", SshKeyError::Type),
            (&head[..head.len() - 3], SshKeyError::Blob),
            (&head.replace("ssh-ed25519", "ssh-rsa"), SshKeyError::Blob),
            (&format!("{head}\n{head}"), SshKeyError::Control),
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VzYW1l\n",
                SshKeyError::Private,
            ),
            (
                &format!("{head} {}", "x".repeat(5000)),
                SshKeyError::TooLong,
            ),
        ] {
            assert_eq!(line.parse::<SshPublicKey>(), Err(error), "{line}");
            assert!(!error.to_string().contains("sesame"));
        }
    }
}
