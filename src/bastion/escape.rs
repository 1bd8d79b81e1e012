//! `~.` and its like, at the beginning of a line, as in OpenSSH: the only keys that do not go to the far side, so that a
//! session that hangs can be left.

/// What the keys ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// `~.`: end the connection.
    Leave,
    /// `~?`: say what there is.
    Help,
}

/// Finds escapes among the keys that are typed, also when they come one by one.
#[derive(Debug)]
pub struct Escapes {
    at_line_start: bool,
    tilde_held: bool,
}

impl Default for Escapes {
    fn default() -> Self {
        Self {
            at_line_start: true,
            tilde_held: false,
        }
    }
}

impl Escapes {
    /// Appends to `passed` what is for the far side, up to the first wish; what follows a wish in the same piece is dropped
    /// for [`Wish::Leave`] and passed on for [`Wish::Help`].
    pub fn pass(&mut self, typed: &[u8], passed: &mut Vec<u8>) -> Option<Wish> {
        let mut wish = None;
        for &key in typed {
            if self.tilde_held {
                self.tilde_held = false;
                match key {
                    b'.' => return Some(Wish::Leave),
                    b'?' => {
                        wish = Some(Wish::Help);
                        continue;
                    }
                    b'~' => {}
                    _ => passed.push(b'~'),
                }
            } else if self.at_line_start && key == b'~' {
                self.tilde_held = true;
                continue;
            }
            passed.push(key);
            self.at_line_start = matches!(key, b'\r' | b'\n');
        }
        wish
    }
}

#[cfg(test)]
mod tests {
    use super::{Escapes, Wish};

    fn typed(keys: &[&str]) -> (String, Option<Wish>) {
        let (mut escapes, mut passed) = (Escapes::default(), Vec::new());
        for keys in keys {
            if let Some(wish) = escapes.pass(keys.as_bytes(), &mut passed) {
                return (String::from_utf8(passed).unwrap(), Some(wish));
            }
        }
        (String::from_utf8(passed).unwrap(), None)
    }

    #[test]
    fn a_session_is_left_at_the_beginning_of_a_line_only() {
        for keys in [&["~."][..], &["~", "."], &["ls\r~."], &["ls\r", "~", "."]] {
            assert_eq!(typed(keys).1, Some(Wish::Leave), "{keys:?}");
        }
        for keys in [&["a~."][..], &["cd ~", "."], &["~~."], &["~ ."]] {
            assert_eq!(typed(keys).1, None, "{keys:?}");
        }
    }

    #[test]
    fn everything_else_arrives_as_it_was_typed() {
        assert_eq!(typed(&["~", "/bin\r"]), ("~/bin\r".into(), None));
        assert_eq!(typed(&["~~x\ry~"]), ("~x\ry~".into(), None));
        assert_eq!(typed(&["a\r~?"]), ("a\r".into(), Some(Wish::Help)));
    }
}
