//! An error written down in a dialect.

use serde::Serialize;

use super::dialect::Dialect;

/// The content of an error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorDocument<'a> {
    /// The code by which a program tells errors apart.
    pub(crate) code: &'static str,
    pub(crate) message: &'a str,
    /// The name of the route that took the request.
    pub(crate) route: Option<&'a str>,
    /// `true` if the client can correct it, `false` if the proxy has to.
    pub(crate) is_clients_fault: bool,
}

impl ErrorDocument<'_> {
    /// Returns the reply's headers, without those of its reason, in a dialect.
    pub(super) fn headers(&self, dialect: Dialect) -> Vec<(&'static str, &'static str)> {
        let code = ("x-amzn-errortype", self.code);
        match dialect {
            Dialect::Plain => vec![("content-type", "application/json")],
            Dialect::Json => vec![("content-type", "application/json"), code],
            Dialect::S3 => vec![("content-type", "application/xml")],
            Dialect::Xml | Dialect::Ec2 => vec![("content-type", "text/xml")],
            Dialect::RpcV2Cbor => vec![("content-type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor"), code],
            Dialect::Cbor => vec![("content-type", "application/x-amz-cbor-1.1"), code],
        }
    }

    /// Returns the reply's body in a dialect.
    pub(super) fn body(&self, dialect: Dialect) -> Vec<u8> {
        match dialect {
            Dialect::Plain => self.json(),
            Dialect::Json => self.aws_json(),
            Dialect::S3 => self.xml(&["Error"], &[]),
            Dialect::Xml => {
                let kind = if self.is_clients_fault { "Sender" } else { "Receiver" };
                self.xml(&["ErrorResponse", "Error"], &[("Type", kind)])
            }
            Dialect::Ec2 => self.xml(&["Response", "Errors", "Error"], &[]),
            Dialect::RpcV2Cbor | Dialect::Cbor => self.cbor(),
        }
    }

    /// Returns it as clients that are not AWS's get it.
    pub(crate) fn json(&self) -> Vec<u8> {
        to_json(&Json { error: self.error(), kind: None, message: None })
    }

    fn aws_json(&self) -> Vec<u8> {
        to_json(&Json { error: self.error(), kind: Some(self.code), message: Some(self.message) })
    }

    fn error(&self) -> Error<'_> {
        Error { code: self.code, message: self.message, route: self.route }
    }

    /// Writes XML: its members in elements, one within the other.
    fn xml(&self, elements: &[&str], more: &[(&str, &str)]) -> Vec<u8> {
        let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
        let mut tag = |parts: &[&str]| parts.iter().for_each(|part| xml.push_str(part));
        elements.iter().for_each(|element| tag(&["<", element, ">"]));
        let members = [("Code", self.code), ("Message", self.message)];
        let route = self.route.map(|route| ("Route", route));
        for (element, text) in more.iter().copied().chain(members).chain(route) {
            tag(&["<", element, ">", &escape(text), "</", element, ">"]);
        }
        elements.iter().rev().for_each(|element| tag(&["</", element, ">"]));
        xml.into_bytes()
    }

    /// Writes a CBOR map of texts (RFC 8949, section 3).
    fn cbor(&self) -> Vec<u8> {
        const TEXT: u8 = 3 << 5;
        const MAP: u8 = 5 << 5;
        let members = [("__type", self.code), ("message", self.message)];
        let route = self.route.map(|route| ("route", route));
        let mut cbor = vec![MAP | (members.len() as u8 + u8::from(route.is_some()))];
        for text in members.into_iter().chain(route).flat_map(|(name, text)| [name, text]) {
            // A length in the four bytes that follow.
            cbor.push(TEXT | 26);
            cbor.extend((text.len() as u32).to_be_bytes());
            cbor.extend(text.as_bytes());
        }
        cbor
    }
}

#[derive(Serialize)]
struct Json<'a> {
    error: Error<'a>,
    #[serde(rename = "__type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
}

fn to_json(document: &Json<'_>) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// Returns a text as the content of an element. What XML 1.0 has no character for becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // As it is, a parser would read it as a line's end.
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {
                escaped.push(char::REPLACEMENT_CHARACTER);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use xmlparser::{ElementEnd, Token, Tokenizer};

    use super::*;

    const DOCUMENT: ErrorDocument<'_> =
        ErrorDocument { code: "NoCredentials", message: "a < b & c", route: Some("/orders"), is_clients_fault: false };

    fn text(document: ErrorDocument<'_>, dialect: Dialect) -> String {
        String::from_utf8(document.body(dialect)).unwrap()
    }

    /// Reads XML, and returns the elements' names in their order and the texts as they are meant.
    fn read_xml(xml: &str) -> (Vec<String>, Vec<String>) {
        let (mut open, mut names, mut texts) = (Vec::new(), Vec::new(), Vec::new());
        for token in Tokenizer::from(xml) {
            match token.unwrap_or_else(|error| panic!("{xml}: {error}")) {
                Token::ElementStart { local, .. } => {
                    open.push(local.to_string());
                    names.push(local.to_string());
                }
                Token::ElementEnd { end: ElementEnd::Close(_, name), .. } => {
                    assert_eq!(open.pop().as_deref(), Some(name.as_str()), "{xml}");
                }
                Token::Text { text } if !open.is_empty() => texts.push(unescape(&text)),
                Token::Declaration { .. } | Token::Text { .. } | Token::ElementEnd { end: ElementEnd::Open, .. } => {}
                other => panic!("{other:?} in {xml}"),
            }
        }
        assert!(open.is_empty(), "{xml}");
        (names, texts)
    }

    fn unescape(text: &str) -> String {
        let mut parts = text.split('&');
        let mut read = parts.next().unwrap().to_owned();
        for part in parts {
            let (reference, rest) = part.split_once(';').expect("a reference ends in a semicolon");
            let character = match reference {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "#13" => '\r',
                other => panic!("&{other};"),
            };
            read.push(character);
            read.push_str(rest);
        }
        read
    }

    #[test]
    fn json_keeps_its_shape_and_gains_what_sdks_read() {
        let plain: serde_json::Value = serde_json::from_slice(&DOCUMENT.body(Dialect::Plain)).unwrap();
        let error = serde_json::json!({"code": "NoCredentials", "message": "a < b & c", "route": "/orders"});
        assert_eq!(plain, serde_json::json!({"error": error}));
        let json: serde_json::Value = serde_json::from_slice(&DOCUMENT.body(Dialect::Json)).unwrap();
        assert_eq!(json, serde_json::json!({"error": error, "__type": "NoCredentials", "message": "a < b & c"}));
        assert!(DOCUMENT.headers(Dialect::Json).contains(&("x-amzn-errortype", "NoCredentials")));
        let plain: serde_json::Value =
            serde_json::from_slice(&ErrorDocument { route: None, ..DOCUMENT }.json()).unwrap();
        assert_eq!(plain["error"].get("route"), None);
    }

    #[test]
    fn each_xml_has_the_elements_of_its_protocol() {
        let members = "<Code>NoCredentials</Code><Message>a &lt; b &amp; c</Message><Route>/orders</Route>";
        for (dialect, expected) in [
            (Dialect::S3, format!("<Error>{members}</Error>")),
            (Dialect::Xml, format!("<ErrorResponse><Error><Type>Receiver</Type>{members}</Error></ErrorResponse>")),
            (Dialect::Ec2, format!("<Response><Errors><Error>{members}</Error></Errors></Response>")),
        ] {
            assert_eq!(text(DOCUMENT, dialect), format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{expected}"));
        }
        let sender = ErrorDocument { is_clients_fault: true, route: None, ..DOCUMENT };
        assert!(text(sender, Dialect::Xml).contains("<Type>Sender</Type>"));
    }

    #[test]
    fn cbor_is_a_map_of_texts() {
        let document = ErrorDocument { code: "NoRoute", message: "ü", route: None, is_clients_fault: true };
        let expected = b"\xa2\x7a\0\0\0\x06__type\x7a\0\0\0\x07NoRoute\x7a\0\0\0\x07message\x7a\0\0\0\x02\xc3\xbc";
        assert_eq!(document.body(Dialect::Cbor), expected);
        assert_eq!(DOCUMENT.body(Dialect::RpcV2Cbor)[0], 0xa3);
    }

    proptest! {
        #[test]
        fn xml_is_well_formed_whatever_the_message_and_the_route(message: String, route: String, random in "[\0-\u{ffff}<>&;]*") {
            for message in [&message, &random] {
                let document = ErrorDocument { message, route: Some(&route), ..DOCUMENT };
                for dialect in [Dialect::S3, Dialect::Xml, Dialect::Ec2] {
                    let (names, texts) = read_xml(&text(document, dialect));
                    prop_assert_eq!(&names[names.len() - 3..], ["Code", "Message", "Route"]);
                    let readable = |c: char| if unescape(&escape(&c.to_string())) == c.to_string() { c } else { '\u{fffd}' };
                    let kept: Vec<String> = [message, &route].iter().map(|text| text.chars().map(readable).collect()).filter(|text: &String| !text.is_empty()).collect();
                    prop_assert!(texts.ends_with(&kept), "{:?} {:?}", texts, kept);
                }
            }
        }
    }
}
