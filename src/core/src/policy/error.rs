//! Errors of a policy: one line that names the location and the fix.

use std::fmt::{self, Write as _};

use serde_path_to_error::Segment;

/// The reason for rejecting a policy. Its text is one line for the policy's author, and never repeats the value of a header
/// that the policy sets, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text is not JSON.
    #[error("the policy is not valid JSON: {problem} (line {line}, column {column})")]
    Syntax {
        /// The parser's message.
        problem: String,
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
    /// A value in the policy is invalid.
    #[error("{location}: {problem}")]
    Invalid {
        /// The location, such as `routes["/a"].target`.
        location: String,
        /// The defect and the fix.
        problem: String,
    },
}

/// A location in the document, in the notation that its author would use: `routes["/a"].target`, `routes[2].prefix`.
#[derive(Debug, Clone, Default)]
pub(super) struct Location(String);

impl Location {
    /// Returns the location of the member `key`.
    pub(super) fn key(&self, key: &str) -> Self {
        // A name too long to read is truncated.
        const SHOWN: usize = 64;
        let mut location = self.clone();
        let cut = key.char_indices().nth(SHOWN).map(|(at, _)| format!("{}…", key.get(..at).unwrap_or_default()));
        let key = cut.as_deref().unwrap_or(key);
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric());
        let written = match (plain && !key.is_empty(), location.0.is_empty()) {
            (true, true) => write!(location.0, "{key}"),
            (true, false) => write!(location.0, ".{key}"),
            (false, _) => write!(location.0, "[{key:?}]"),
        };
        debug_assert!(written.is_ok(), "writing to a String does not fail");
        location
    }

    /// Returns the location of the element `index`.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{self}[{index}]"))
    }

    /// Returns whether this is the whole policy.
    pub(super) fn is_policy(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the error for the value at this location. It is one line, whatever the problem repeats of the policy.
    pub(super) fn error(&self, problem: impl Into<String>) -> PolicyError {
        let location = if self.is_policy() { "policy".to_owned() } else { self.0.clone() };
        PolicyError::Invalid { location, problem: problem.into().replace(char::is_control, " ") }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&serde_path_to_error::Path> for Location {
    fn from(path: &serde_path_to_error::Path) -> Self {
        path.iter().fold(Self::default(), |location, segment| match segment {
            Segment::Seq { index } => location.index(*index),
            Segment::Map { key } | Segment::Enum { variant: key } => location.key(key),
            Segment::Unknown => location,
        })
    }
}

impl From<serde_path_to_error::Error<serde_json::Error>> for PolicyError {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let location = Location::from(error.path());
        let last_key = match error.path().iter().next_back() {
            Some(Segment::Map { key }) => Some(key.clone()),
            _ => None,
        };
        let error = error.into_inner();
        let (line, column) = (error.line(), error.column());
        let text = error.to_string();
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        if !error.is_data() {
            return Self::Syntax { problem: text.to_owned(), line, column };
        }
        if let Some((key, known)) = offending_name(text, "unknown field `") {
            let location = if last_key.as_deref() == Some(key) { location } else { location.key(key) };
            return location.error(match closest(key, &known) {
                Some(name) => format!("unknown key; did you mean {name:?}?"),
                None if known.contains(&"routes") => {
                    format!("unknown key; a route's key begins with /, the other keys are {}", known.join(", "))
                }
                None => format!("unknown key; use one of {}", known.join(", ")),
            });
        }
        location.error(in_plain_words(text))
    }
}

/// Rewrites serde's message for a policy's author. The value that serde repeats is dropped: it may be a secret, and the
/// location is enough to find it.
fn in_plain_words(text: &str) -> String {
    if let Some((value, known)) = offending_name(text, "unknown variant `") {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        return format!("{value:?} is unknown; use {}", known.join(" or "));
    }
    if let Some(key) = text.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("{key:?} is written twice; keep one");
    }
    if let Some((found, expected)) =
        text.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return format!("must be {}, not {}", as_json_says(expected), as_json_says(kind(found)));
    }
    text.to_owned()
}

/// Splits "unknown … `name`, expected one of `a`, `b`" into the name and the known ones.
fn offending_name<'a>(text: &'a str, opening: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, expected) = text.strip_prefix(opening)?.rsplit_once("`, expected ")?;
    Some((name, expected.split('`').skip(1).step_by(2).collect()))
}

/// Returns the kind of value in serde's "integer `5`" or "string \"x\"".
fn kind(found: &str) -> &str {
    found.split(['`', '"']).next().unwrap_or(found).trim_end()
}

fn as_json_says(kind: &str) -> &str {
    match kind {
        "map" | "a map" => "an object",
        "sequence" | "a sequence" => "a list",
        "string" | "character" => "a string",
        "boolean" => "a boolean",
        "a boolean" => "true or false",
        "integer" | "floating point" => "a number",
        "unit value" | "null" => "null",
        other => other,
    }
}

/// Returns the known name that `key` is most likely a misspelling of: at most two edits away, and less than half of it.
fn closest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        // A longer key is too far from the name anyway, and its distance is slow to compute.
        .filter(|name| key.len() <= name.len() + 2)
        .map(|name| (strsim::levenshtein(&key.to_ascii_lowercase(), &name.to_ascii_lowercase()), *name))
        .filter(|(edits, name)| *edits <= 2 && edits * 2 < name.len())
        .min()
        .map(|(_, name)| name)
}
