//! Text that people search for, as LIKE understands it.

/// The pattern of all texts that have `text` in them. What LIKE would take for a wildcard stands for itself.
pub fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_backslashes_stand_for_themselves() {
        assert_eq!(containing("tea"), "%tea%");
        assert_eq!(containing(r"50%_\"), r"%50\%\_\\%");
    }
}
