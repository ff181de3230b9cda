//! Refusals of a policy: one line that names the place and the cure.

use std::fmt::{self, Write as _};

use serde_path_to_error::Segment;

/// Why a policy is refused. Its text is one line for the person who wrote the policy; it never repeats the value of
/// a header that the policy sets, which may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The text is no JSON.
    #[error("the policy is not valid JSON: {problem} (line {line}, column {column})")]
    Syntax {
        /// The parser's words.
        problem: String,
        /// 1-based.
        line: usize,
        /// 1-based.
        column: usize,
    },
    /// Something in the policy can't be used as it stands.
    #[error("{place}: {problem}")]
    Invalid {
        /// Where it stands, such as `routes["/a"].target`.
        place: String,
        /// What is wrong and how to put it right.
        problem: String,
    },
}

/// A place in the document, written as a person would: `routes["/a"].target`, `routes[2].prefix`.
#[derive(Debug, Clone, Default)]
pub(super) struct Location(String);

impl Location {
    /// The member `key` of this place.
    pub(super) fn key(&self, key: &str) -> Self {
        // A name that no person would read to its end is cut.
        const SHOWN: usize = 64;
        let mut place = self.clone();
        let cut = key.char_indices().nth(SHOWN).map(|(at, _)| format!("{}…", key.get(..at).unwrap_or_default()));
        let key = cut.as_deref().unwrap_or(key);
        let plain = key.bytes().all(|b| b.is_ascii_alphanumeric());
        let written = match (plain && !key.is_empty(), place.0.is_empty()) {
            (true, true) => write!(place.0, "{key}"),
            (true, false) => write!(place.0, ".{key}"),
            (false, _) => write!(place.0, "[{key:?}]"),
        };
        debug_assert!(written.is_ok(), "writing to a String does not fail");
        place
    }

    /// The element `index` of this place.
    pub(super) fn index(&self, index: usize) -> Self {
        Self(format!("{self}[{index}]"))
    }

    /// Whether this is the policy as a whole.
    pub(super) fn is_policy(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal of what stands here.
    pub(super) fn error(&self, problem: impl Into<String>) -> PolicyError {
        let place = if self.is_policy() { "policy".to_owned() } else { self.0.clone() };
        PolicyError::Invalid { place, problem: problem.into() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&serde_path_to_error::Path> for Location {
    fn from(path: &serde_path_to_error::Path) -> Self {
        path.iter().fold(Self::default(), |place, segment| match segment {
            Segment::Seq { index } => place.index(*index),
            Segment::Map { key } | Segment::Enum { variant: key } => place.key(key),
            Segment::Unknown => place,
        })
    }
}

impl From<serde_path_to_error::Error<serde_json::Error>> for PolicyError {
    fn from(error: serde_path_to_error::Error<serde_json::Error>) -> Self {
        let place = Location::from(error.path());
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
            let place = if last_key.as_deref() == Some(key) { place } else { place.key(key) };
            return place.error(match closest(key, &known) {
                Some(name) => format!("unknown key; did you mean {name:?}?"),
                None if known.contains(&"routes") => {
                    format!("unknown key; a route's begins with /, other known ones are {}", known.join(", "))
                }
                None => format!("unknown key; known here are {}", known.join(", ")),
            });
        }
        place.error(in_plain_words(text))
    }
}

/// serde's words put into those of a policy's author. The value that serde repeats is dropped: the place tells where
/// it stands, and it may be a secret.
fn in_plain_words(text: &str) -> String {
    if let Some((value, known)) = offending_name(text, "unknown variant `") {
        let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
        return format!("{value:?} is unknown; write {}", known.join(" or "));
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

/// Splits "unknown … `name`, expected one of `a`, `b`" into the name and what is known.
fn offending_name<'a>(text: &'a str, opening: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let (name, expected) = text.strip_prefix(opening)?.rsplit_once("`, expected ")?;
    Some((name, expected.split('`').skip(1).step_by(2).collect()))
}

/// The kind of value in serde's "integer `5`" or "string \"x\"".
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

/// The known name that `key` is most likely a slip of: at most two edits away, and less than half of it.
fn closest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        // No name is longer, and the distance of a long key takes long to find.
        .filter(|name| key.len() <= name.len() + 2)
        .map(|name| (strsim::levenshtein(&key.to_ascii_lowercase(), &name.to_ascii_lowercase()), *name))
        .filter(|(edits, name)| *edits <= 2 && edits * 2 < name.len())
        .min()
        .map(|(_, name)| name)
}
