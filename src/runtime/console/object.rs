//! Objects and lists of JSON, as they are written.
#![forbid(unsafe_code)]

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::runtime::trace::json::Json;

/// An object of JSON that is being written.
pub(super) struct Object {
    /// The text so far: the brace, and fields with commas between them.
    text: String,
}

impl Object {
    /// Begins an object without fields.
    pub(super) fn new() -> Object {
        Object { text: String::from("{") }
    }

    /// Adds a field, of which the value is JSON already: a number, a list, an object.
    pub(super) fn raw(mut self, name: &str, value: impl Display) -> Object {
        let comma = if self.text.len() > 1 { "," } else { "" };
        // A `String` takes all that is written.
        let _ = write!(self.text, "{comma}{}:{value}", Json(name));
        self
    }

    /// Adds a text, with quotes.
    pub(super) fn text(self, name: &str, value: &str) -> Object {
        self.raw(name, Json(value))
    }

    /// Adds a time, in seconds.
    pub(super) fn seconds(self, name: &str, value: Duration) -> Object {
        self.raw(name, format_args!("{}.{:06}", value.as_secs(), value.subsec_micros()))
    }

    /// Adds what there is: nothing for none.
    pub(super) fn maybe<T>(self, value: Option<T>, add: impl FnOnce(Object, T) -> Object) -> Object {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    /// Returns the text of the object.
    pub(super) fn end(mut self) -> String {
        self.text.push('}');
        self.text
    }
}

/// Returns a list of what is JSON already.
pub(super) fn list(elements: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::from("[");
    // A `String` takes all that is written.
    for (number, element) in elements.into_iter().enumerate() {
        let _ = write!(text, "{}{element}", if number == 0 { "" } else { "," });
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_elements_have_commas_between_them() {
        let inner = Object::new().text("a\"", "b\n").seconds("c", Duration::from_micros(1_000_002)).end();
        assert_eq!(inner, r#"{"a\"":"b\u000a","c":1.000002}"#);
        let outer = Object::new().raw("list", list([&inner, "2"])).maybe(None::<u8>, |object, n| object.raw("n", n));
        assert_eq!(outer.end(), format!("{{\"list\":[{inner},2]}}"));
        assert_eq!((Object::new().end(), list([""; 0])), ("{}".into(), "[]".into()));
    }
}
