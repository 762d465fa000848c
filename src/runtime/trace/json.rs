//! Strings in JSON.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};

/// A string that is printed as JSON, with its quotes. What it prints is also safe inside a `script` of a page: no `<`
/// is in it.
pub(in crate::runtime) struct Json<'a>(pub(in crate::runtime) &'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                // Control characters must be escaped; the others of these end a script, or a line of one.
                '\0'..='\u{1f}' | '<' | '\u{2028}' | '\u{2029}' => write!(f, "\\u{:04x}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_and_scripts_forbid_is_escaped() {
        assert_eq!(Json("a\"b\\c\n</script>\u{2028}ö").to_string(), r#""a\"b\\c\u000a\u003c/script>\u2028ö""#);
    }
}
