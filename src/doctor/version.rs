//! Terraform's version constraints, as `required_version` holds them: `>= 1.11`, `~> 1.11.2, < 2.0`.

/// Whether `version` (`1.11.4`, `1.13.0-beta1`) satisfies `constraint`.
///
/// # Errors
/// A text that says which part is not understood.
pub fn allows(constraint: &str, version: &str) -> Result<bool, String> {
    let (found, _) = read(version)?;
    let mut all = true;
    for part in constraint.split(',').map(str::trim) {
        let operators = ["!=", ">=", "<=", "~>", "=", ">", "<"];
        let split = operators
            .into_iter()
            .find_map(|operator| Some((operator, part.strip_prefix(operator)?)));
        let (operator, number) = split.unwrap_or(("=", part));
        let (wanted, places) = read(number)?;
        all &= match operator {
            "!=" => found != wanted,
            ">=" => found >= wanted,
            "<=" => found <= wanted,
            ">" => found > wanted,
            "<" => found < wanted,
            // The last place given may be larger, those before it may not.
            "~>" => found >= wanted && found[..places - 1] == wanted[..places - 1],
            _ => found == wanted,
        };
    }
    Ok(all)
}

/// The `required_version` in the text of a Terraform file.
#[must_use]
pub fn required(text: &str) -> Option<&str> {
    let mut lines = text.lines().map(str::trim);
    lines.find_map(|line| {
        let value = line.strip_prefix("required_version")?.trim_start();
        let (_, value) = value.strip_prefix('=')?.split_once('"')?;
        Some(value.split_once('"')?.0)
    })
}

/// The three numbers, and how many of them were given.
fn read(text: &str) -> Result<([u64; 3], usize), String> {
    let wrong = || format!("`{}` is not a version like 1.11.4", text.trim());
    let (release, _) = text.trim().split_once('-').unwrap_or((text.trim(), ""));
    let numbers: Option<Vec<u64>> = release.split('.').map(|part| part.parse().ok()).collect();
    let numbers = numbers.ok_or_else(wrong)?;
    let mut all = [0; 3];
    let places = numbers.len();
    all.get_mut(..places)
        .ok_or_else(wrong)?
        .copy_from_slice(&numbers);
    Ok((all, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_mean_what_terraform_means_by_them() {
        for (constraint, version, is_allowed) in [
            (">= 1.11", "1.11.0", true),
            (">= 1.11", "1.9.8", false),
            (">= 1.11, < 2.0", "2.0.0", false),
            ("~> 1.11", "1.14.1", true),
            ("~> 1.11", "2.0.0", false),
            ("~> 1.11.2", "1.11.9", true),
            ("~> 1.11.2", "1.12.0", false),
            ("1.11.4", "1.11.4", true),
            ("!= 1.11.4", "1.11.4", false),
            (">= 1.11", "1.13.0-beta1", true),
        ] {
            assert_eq!(
                allows(constraint, version),
                Ok(is_allowed),
                "{constraint} {version}"
            );
        }
        for wrong in ["", ">= x", ">= 1.2.3.4", ">> 1"] {
            assert!(allows(wrong, "1.11.4").is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_shipped_constraint_is_found() {
        let text = include_str!("../../terraform/versions.tf");
        assert_eq!(required(text), Some(">= 1.11"));
        assert_eq!(required("# required_version\n"), None);
    }
}
