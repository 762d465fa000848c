//! A request to the console: a line with one object of JSON, the values of which are texts, numbers and truth values.
#![forbid(unsafe_code)]

use std::iter::Peekable;
use std::str::Chars;

/// The version of the protocol. A change that an older client or agent would misread makes it one greater.
pub(super) const PROTOCOL: u64 = 1;

/// The value of a field.
#[derive(Debug, PartialEq)]
enum Value {
    /// Nothing: as if the field were not there.
    Null,
    /// A truth value, `true` or `false`.
    Bool(bool),
    /// Any number, also a negative one.
    Number(f64),
    /// A text, without its quotes.
    Text(String),
}

/// A request, with a value for each field that was given.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Request {
    /// What is asked for.
    pub(super) get: String,
    /// The number of a hub.
    pub(super) hub: Option<u64>,
    /// The number of a thread in its hub.
    pub(super) id: Option<u64>,
    /// The number of rows to leave out.
    pub(super) offset: usize,
    /// The most rows to return.
    pub(super) limit: Option<usize>,
    /// A part of the text of the rows to return, in any case.
    pub(super) filter: Option<String>,
    /// The column by which rows are sorted.
    pub(super) sort: Option<String>,
    /// Whether the order is turned round.
    pub(super) reverse: bool,
    /// The key of the group of which threads are asked for.
    pub(super) group: Option<String>,
    /// The length of a trace, in milliseconds.
    pub(super) ms: Option<u64>,
    /// The form in which a trace is returned.
    pub(super) form: Option<String>,
    /// Whether an answer of a moment ago is too old.
    pub(super) fresh: bool,
}

impl Request {
    /// Reads a line.
    ///
    /// # Errors
    /// The line is no such object, or has a field or a value that is not known: what to say to the client.
    pub(super) fn parse(line: &str) -> Result<Request, Fault> {
        let fields = fields(line).ok_or(Fault::NoRequest)?;
        let mut request = Request::default();
        for (name, value) in fields {
            request.set(&name, value).map_err(Fault::Field)?;
        }
        Ok(request)
    }

    /// Sets the field of this name.
    fn set(&mut self, name: &str, value: Value) -> Result<(), String> {
        if value == Value::Null {
            return Ok(());
        }
        let known = match name {
            "greenling" => match whole(&value) {
                Some(PROTOCOL) => Some(()),
                _ => return Err(format!("this agent speaks version {PROTOCOL} of the protocol only")),
            },
            "get" => text(value).map(|get| self.get = get),
            "hub" => whole(&value).map(|hub| self.hub = Some(hub)),
            "id" => whole(&value).map(|id| self.id = Some(id)),
            "offset" => whole(&value).map(|offset| self.offset = usize::try_from(offset).unwrap_or(usize::MAX)),
            "limit" => whole(&value).map(|limit| self.limit = Some(usize::try_from(limit).unwrap_or(usize::MAX))),
            "filter" => text(value).map(|filter| self.filter = Some(filter)),
            "sort" => text(value).map(|sort| self.sort = Some(sort)),
            "reverse" => truth(&value).map(|reverse| self.reverse = reverse),
            "group" => text(value).map(|group| self.group = Some(group)),
            "ms" => whole(&value).map(|ms| self.ms = Some(ms)),
            "form" => text(value).map(|form| self.form = Some(form)),
            "fresh" => truth(&value).map(|fresh| self.fresh = fresh),
            _ => return Err(format!("there is no field {name:?}")),
        };
        known.ok_or_else(|| format!("the value of the field {name:?} is of another type"))
    }
}

/// What is wrong with a line.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// The line is no flat object of JSON: the client speaks another protocol.
    NoRequest,
    /// A field or its value is not understood, for this reason.
    Field(String),
}

/// Returns a whole number that is not negative.
fn whole(value: &Value) -> Option<u64> {
    match value {
        // A `f64` has all whole numbers up to 2^53.
        Value::Number(number) if *number >= 0.0 && number.fract() == 0.0 && *number < 9e15 => Some(*number as u64),
        _ => None,
    }
}

/// Returns a text, if that is what the value is.
fn text(value: Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

/// Returns a truth value; 0 and 1 are such, too.
fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) if *number == 0.0 || *number == 1.0 => Some(*number == 1.0),
        _ => None,
    }
}

/// Returns the fields of a flat object, in their order; none if the text is something else.
fn fields(line: &str) -> Option<Vec<(String, Value)>> {
    let mut rest = line.chars().peekable();
    take(&mut rest, '{')?;
    let mut fields = Vec::new();
    if take(&mut rest, '}').is_none() {
        loop {
            blanks(&mut rest);
            let name = string(&mut rest)?;
            take(&mut rest, ':')?;
            blanks(&mut rest);
            fields.push((name, value(&mut rest)?));
            match take(&mut rest, ',') {
                Some(()) => {}
                None => break take(&mut rest, '}')?,
            }
        }
    }
    blanks(&mut rest);
    rest.next().is_none().then_some(fields)
}

/// Skips what JSON allows between two tokens.
fn blanks(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| matches!(c, ' ' | '\t' | '\r' | '\n')).is_some() {}
}

/// Takes a character, with blanks before it, if that is the next one.
fn take(rest: &mut Peekable<Chars<'_>>, c: char) -> Option<()> {
    blanks(rest);
    rest.next_if_eq(&c).map(drop)
}

/// Takes a value. Lists and objects inside of the object are none.
fn value(rest: &mut Peekable<Chars<'_>>) -> Option<Value> {
    if *rest.peek()? == '"' {
        return string(rest).map(Value::Text);
    }
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')) {
        word.push(c);
    }
    match word.as_str() {
        "null" => Some(Value::Null),
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        // Rust reads some words as numbers, such as `inf`.
        number if number.starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
            number.parse().ok().map(Value::Number)
        }
        _ => None,
    }
}

/// Takes a string with its quotes.
fn string(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    rest.next_if_eq(&'"')?;
    let mut text = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\0'..='\u{1f}' => return None,
            '\\' => text.push(match rest.next()? {
                c @ ('"' | '\\' | '/') => c,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => escaped(rest)?,
                _ => return None,
            }),
            c => text.push(c),
        }
    }
}

/// Takes what follows `\u`: one unit of UTF-16, or two that belong together.
fn escaped(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    let first = unit(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(u32::from(first));
    }
    rest.next_if_eq(&'\\')?;
    rest.next_if_eq(&'u')?;
    let second = unit(rest)?;
    char::decode_utf16([first, second]).next()?.ok()
}

/// Takes four hexadecimal digits.
fn unit(rest: &mut Peekable<Chars<'_>>) -> Option<u16> {
    (0..4).try_fold(0, |unit, _| Some(unit << 4 | rest.next()?.to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_fields_of_its_object() {
        let line = r#" { "get" : "threads", "offset":100,"limit":50, "filter":"\u00e9\ud83d\ude00\"\\\/\n", "reverse":true,
            "hub": null, "greenling":1, "fresh":0 }"#;
        let expected = Request {
            get: "threads".into(),
            offset: 100,
            limit: Some(50),
            filter: Some("é😀\"\\/\n".into()),
            reverse: true,
            ..Request::default()
        };
        assert_eq!(Request::parse(line), Ok(expected));
        assert_eq!(Request::parse("{}"), Ok(Request::default()));
    }

    #[test]
    fn what_is_no_flat_object_is_no_request() {
        let bad = [
            "",
            "GET / HTTP/1.1",
            "{",
            "{}}",
            "[]",
            r#"{"get"}"#,
            r#"{"get":"a",}"#,
            r#"{"get":["a"]}"#,
            r#"{"get":{}}"#,
            r#"{"get":"a}"#,
            r#"{"get":"\x"}"#,
            r#"{"get":"\ud800"}"#,
            r#"{"get":"\ud800\u0041"}"#,
            r#"{"limit":inf}"#,
            r#"{"limit":1e}"#,
            "{\"get\":\"a\u{1}\"}",
        ];
        for line in bad {
            assert_eq!(Request::parse(line), Err(Fault::NoRequest), "{line}");
        }
    }

    #[test]
    fn fields_of_the_wrong_name_type_or_version_are_said() {
        let fault = |line| match Request::parse(line) {
            Err(Fault::Field(text)) => text,
            other => panic!("{other:?}"),
        };
        assert_eq!(fault(r#"{"got":1}"#), "there is no field \"got\"");
        for line in [r#"{"limit":-1}"#, r#"{"limit":1.5}"#, r#"{"limit":1e300}"#, r#"{"limit":"1"}"#] {
            assert_eq!(fault(line), "the value of the field \"limit\" is of another type", "{line}");
        }
        assert_eq!(fault(r#"{"greenling":2}"#), "this agent speaks version 1 of the protocol only");
    }
}
