//! A policy in a file: the JSON that the filter reads, the same in YAML, or a section of a Backstage `app-config.yaml`.
//!
//! YAML is only converted to the equivalent JSON. The policy is not validated here, and duplicate keys are kept for the
//! policy to reject, so that errors are those that the filter would log.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Number;
use serde_saphyr::{DefaultMessageFormatter, DuplicateKeyPolicy, MergeKeyPolicy, MessageFormatter};

/// The text of a policy, converted to the JSON that the filter reads.
#[derive(Debug)]
pub struct PolicyFile {
    /// JSON.
    pub json: Vec<u8>,
    /// The file's form.
    pub form: Form,
}

/// The form of a policy in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// As the filter reads it.
    Json,
    /// The same in YAML.
    Yaml,
    /// The section `proxysigv4` of a YAML file with other sections, which do not belong to the policy.
    Section,
}

/// An error that prevents reading a file as a policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyFileError {
    /// The file is not text, as JSON and YAML are.
    #[error("the file is not UTF-8 (byte {0}); save it as UTF-8")]
    Encoding(usize),
    /// The parser's message and its position.
    #[error("the policy is not valid YAML: {problem} (line {line}, column {column})")]
    Yaml {
        /// In one line.
        problem: String,
        /// 1-based.
        line: u64,
        /// 1-based.
        column: u64,
    },
}

/// The section that Backstage's plugin reads.
const SECTION: &str = "proxysigv4";

impl PolicyFile {
    /// Reads a file's content. Content that begins with `{` or `[` is JSON, which the policy parses itself; anything
    /// else is YAML.
    ///
    /// # Errors
    /// [`PolicyFileError`], in one line.
    pub fn read(content: &[u8]) -> Result<Self, PolicyFileError> {
        // Skips the byte order mark that some editors write, which the filter rejects.
        let text = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
        if matches!(text.trim_ascii_start().first(), None | Some(b'{' | b'[')) {
            return Ok(Self { json: content.to_vec(), form: Form::Json });
        }
        let text = std::str::from_utf8(content).map_err(|error| PolicyFileError::Encoding(error.valid_up_to()))?;
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            // YAML 1.2, as Backstage and Kubernetes' newer tools read it: `on` is a string, and `<<` a key like any other.
            merge_keys: MergeKeyPolicy::AsOrdinary,
            strict_booleans: true,
            reject_unsupported_tags: true,
            with_snippet: false,
        };
        let document: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
            // The parser's words may quote the file, line breaks included.
            let problem = DefaultMessageFormatter.format_message(error.without_snippet());
            PolicyFileError::Yaml { problem: problem.replace(char::is_control, " "), line, column }
        })?;
        let (document, form) = document.without_other_sections();
        // Serializing strings, numbers and lists into memory does not fail.
        Ok(Self { json: serde_json::to_vec_pretty(&document).unwrap_or_default(), form })
    }
}

/// A YAML document. Mappings keep their order and their duplicate keys.
#[derive(Debug)]
enum Node {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    List(Vec<Self>),
    Mapping(Vec<(String, Self)>),
}

impl Node {
    /// Reduces an `app-config.yaml` to the section that holds a policy. A file with a policy's keys next to that
    /// section is left unchanged, and the policy rejects it.
    fn without_other_sections(self) -> (Self, Form) {
        const POLICY: [&str; 6] =
            ["routes", "unmatched", "allowUnauthenticatedRequests", "credentialsWaitMs", "accessLog", "routeMetadata"];
        let of_a_policy = |key: &str| POLICY.contains(&key) || key.starts_with('/');
        match self {
            Self::Mapping(mut members)
                if members.len() > 1
                    && members.iter().any(|(key, _)| key == SECTION)
                    && !members.iter().any(|(key, _)| of_a_policy(key)) =>
            {
                members.retain(|(key, _)| key == SECTION);
                (Self::Mapping(members), Form::Section)
            }
            other => (other, Form::Yaml),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON can hold")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Node, E> {
        Number::from_f64(value).map(Node::Number).ok_or_else(|| E::custom("JSON has no such number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Node::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(key) = map.next_key::<Node>()? {
            let Node::String(key) = key else {
                return Err(de::Error::custom("a key must be a string; put it in quotes"));
            };
            members.push((key, map.next_value()?));
        }
        Ok(Node::Mapping(members))
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::String(text) => serializer.serialize_str(text),
            Self::List(nodes) => nodes.serialize(serializer),
            Self::Mapping(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (key, node) in members {
                    map.serialize_entry(key, node)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Form, String) {
        let PolicyFile { json, form } = PolicyFile::read(text.as_bytes()).unwrap();
        (form, String::from_utf8(json).unwrap())
    }

    /// Returns the JSON of a YAML text, in one line.
    fn json(yaml: &str) -> String {
        let (_, json) = read(yaml);
        json.lines().map(str::trim_start).collect::<String>().replace("\": ", "\":")
    }

    fn refusal(yaml: &str) -> String {
        PolicyFile::read(yaml.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn yaml_becomes_the_json_that_it_stands_for() {
        let yaml = "
# a comment
routes:
  /b: https://h   # not sorted
  /a: {target: 'https://h', hosts: [a.example, \"*.b.example\"], payload: unsigned}
unmatched: pass
credentialsWaitMs: 2000
allowUnauthenticatedRequests: false
";
        assert_eq!(
            json(yaml),
            r#"{"routes":{"/b":"https://h","/a":{"target":"https://h","hosts":["a.example","*.b.example"],"payload":"unsigned"}},"unmatched":"pass","credentialsWaitMs":2000,"allowUnauthenticatedRequests":false}"#
        );
    }

    #[test]
    fn json_is_left_as_it_is() {
        for text in [" \n{\"routes\": {\"/a\": 1e3, \"/a\": \"\\u00e9\"}}", "{", "[]", "", "\n", "\u{feff}{}"] {
            assert_eq!(read(text), (Form::Json, text.to_owned()));
        }
    }

    #[test]
    fn scalars_are_read_as_yaml_1_2_does() {
        for (yaml, expected) in [
            ("yes", r#""yes""#),
            ("on", r#""on""#),
            ("true", "true"),
            ("~", "null"),
            ("null", "null"),
            ("", ""),
            ("0x10", "16"),
            ("2000.0", "2000.0"),
            ("-1", "-1"),
            ("2026-01-02", r#""2026-01-02""#),
            ("arn:aws:iam::123456789012:role/x", r#""arn:aws:iam::123456789012:role/x""#),
            ("\"1\"", r#""1""#),
            ("|\n  a\n  b\n", r#""a\nb\n""#),
        ] {
            assert_eq!(json(yaml), expected, "{yaml}");
        }
    }

    #[test]
    fn what_is_twice_stays_twice() {
        assert_eq!(json("a: 1\na: 2\nb: {c: 1, c: 1}"), r#"{"a":1,"a":2,"b":{"c":1,"c":1}}"#);
    }

    #[test]
    fn anchors_are_written_out_and_merge_keys_are_none() {
        assert_eq!(json("a: &x {b: [1]}\nc: *x"), r#"{"a":{"b":[1]},"c":{"b":[1]}}"#);
        assert_eq!(json("a: &x {b: 1}\nc:\n  <<: *x\n"), r#"{"a":{"b":1},"c":{"<<":{"b":1}}}"#);
    }

    #[test]
    fn a_section_is_picked_out_of_backstages_configuration() {
        let file = "app: {title: x}\nproxysigv4:\n  /a: https://h\nbackend: [1]\n";
        assert_eq!(read(file).0, Form::Section);
        assert_eq!(json(file), r#"{"proxysigv4":{"/a":"https://h"}}"#);
        for alone in ["proxysigv4: {/a: h}", "proxysigv4: {}\naccessLog: true", "proxysigv4: {}\n/a: h", "/a: h\nx: 1"]
        {
            assert_eq!(read(alone).0, Form::Yaml, "{alone}");
        }
        // Duplicates are for the policy to reject.
        assert_eq!(json("proxysigv4: {}\nx: 1\nproxysigv4: {}"), r#"{"proxysigv4":{},"proxysigv4":{}}"#);
    }

    #[test]
    fn what_is_no_yaml_is_refused_at_its_place_in_one_line() {
        for (yaml, place) in [
            ("routes:\n  /a: [\n", "(line 2, column 7)"),
            ("routes:\n\t/a: x\n", "(line 2, column 2)"),
            ("a: *unknown\n", "(line 1, column 4)"),
            ("a: 'open\n", "(line 1, column 4)"),
            ("a: 1\n---\nb: 2\n", "(line 3, column 1)"),
            ("a: !secret x\n", "(line 1, column 12)"),
            ("? [a]\n: b\n", "(line 1, column 1)"),
            ("1: b\n", "(line 1, column 1)"),
            ("a: .nan\n", "(line 1, column 4)"),
        ] {
            let refusal = refusal(yaml);
            assert!(refusal.starts_with("the policy is not valid YAML: ") && refusal.ends_with(place), "{refusal}");
            assert!(!refusal.contains('\n'), "{refusal}");
        }
        assert_eq!(PolicyFile::read(b"a: \xff").unwrap_err(), PolicyFileError::Encoding(3));
    }

    #[test]
    fn aliases_do_not_multiply_without_end() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let above = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [above.as_str(); 10].join(", ")));
        }
        assert!(refusal(&bomb).starts_with("the policy is not valid YAML"));
    }
}
