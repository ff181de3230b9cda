//! A request's path and query in the two forms that a signature needs.
//!
//! The *wire form* is sent upstream. Every reader derives the same canonical form from it: a verifier may decode before it
//! encodes, or not, and may read `+` in a query as a blank, or not.
//!
//! The *canonical form* is signed. Services differ in how they derive it from the path on the wire:
//!
//! | style | wire path | canonical path |
//! | --- | --- | --- |
//! | [`UriStyle::S3`] | decoded and encoded again as AWS does; `%2F` is the `/` that S3 reads in a key | the same bytes |
//! | [`UriStyle::S3Control`] | the same, but `%2F` stays, as in the ARNs that its paths hold | the same bytes |
//! | [`UriStyle::Standard`] | as written; bytes not allowed in a URI are encoded | normalized (RFC 3986, 5.2.4, and no empty segments), each segment encoded once more |
//!
//! The query has one style. On the wire each name and value is decoded and encoded again, in the order written, with `+` as
//! a blank (`%20`), as AWS reads it. Empty pairs and the parameters of presigning are dropped, for S3 also those of
//! Signature Version 2. The canonical query is the wire query sorted, with a `=` in each pair.

use super::hex;
use crate::aws_endpoint;
use crate::path::percent::escaped_byte;

/// The way in which a service derives the canonical path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UriStyle {
    /// Encoded twice, normalized: all services except S3's.
    #[default]
    Standard,
    /// Encoded once, not normalized: an object key may hold `//`.
    S3,
    /// Like `S3`, for its control API, where a `%2F` belongs to a parameter.
    S3Control,
}

impl UriStyle {
    /// Returns the style for a signing name and the authority that is sent: S3's control API has the signing name of S3.
    pub fn of(service: &str, authority: &[u8]) -> Self {
        match is_s3(service) {
            false => Self::Standard,
            true if aws_endpoint::is_s3_control(authority) => Self::S3Control,
            true => Self::S3,
        }
    }
}

/// Returns whether a signing name is of the S3 family, whose endpoint rules in AWS's SDKs set `disableDoubleEncoding`.
pub fn is_s3(service: &str) -> bool {
    matches!(service, "s3" | "s3-object-lambda" | "s3-outposts" | "s3express")
}

/// Path and query in wire form, in a buffer that is reused across requests.
#[derive(Debug, Default)]
pub struct WireUri {
    bytes: Vec<u8>,
    path_len: usize,
    style: UriStyle,
}

impl WireUri {
    /// Writes another request's path and query in wire form. The path should have passed [`crate::path::SafePath`]; no other
    /// path panics either.
    pub fn set(&mut self, style: UriStyle, path: &[u8], query: Option<&[u8]>) {
        self.style = style;
        self.bytes.clear();
        write_wire_path(style, path, &mut self.bytes);
        self.path_len = self.bytes.len();
        if let Some(query) = query {
            self.bytes.push(b'?');
            write_wire_query(style, query, &mut self.bytes);
            if self.bytes.len() == self.path_len + 1 {
                self.bytes.truncate(self.path_len);
            }
        }
    }

    /// Returns the value of `:path`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the path.
    pub fn path(&self) -> &[u8] {
        self.bytes.get(..self.path_len).unwrap_or_default()
    }

    /// Returns the query without its `?`; empty if there is none.
    pub fn query(&self) -> &[u8] {
        self.bytes.get(self.path_len + 1..).unwrap_or_default()
    }

    /// Makes a URI with its path as written, which no proxy would forward, for vectors that sign one.
    #[cfg(test)]
    pub(super) fn with_path_as_written(style: UriStyle, path: &[u8], query: Option<&[u8]>) -> Self {
        let mut uri = Self::default();
        uri.set(style, b"", query);
        uri.bytes.splice(0..0, path.iter().copied());
        uri.path_len = path.len();
        uri
    }

    /// Returns the style of its canonical path.
    pub(super) fn style(&self) -> UriStyle {
        self.style
    }
}

/// The treatment of a byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ByteRule {
    /// It is kept.
    Keep,
    /// It is percent-encoded.
    Encode,
    /// The `%` of an escape, which is kept as written. Any other `%` is literal and encoded.
    KeepEscape,
    /// The `%` of an escape, which is decoded and encoded again. Any other `%` is literal and encoded.
    Reencode,
    /// Like [`ByteRule::Reencode`], but an encoded `/` becomes a literal one.
    ReencodeKey,
    /// It becomes a blank, `%20`.
    Blank,
}

type ByteRules = [ByteRule; 256];

const ENCODED: ByteRules = byte_rules(b"", &[]);
const S3_PATH: ByteRules = byte_rules(b"/", &[(b'%', ByteRule::ReencodeKey)]);
const S3_CONTROL_PATH: ByteRules = byte_rules(b"/", &[(b'%', ByteRule::Reencode)]);
/// RFC 3986's `pchar` and `/`.
const STANDARD_PATH: ByteRules = byte_rules(b"!$&'()*+,;=:@/", &[(b'%', ByteRule::KeepEscape)]);
const QUERY: ByteRules = byte_rules(b"", &[(b'%', ByteRule::Reencode), (b'+', ByteRule::Blank)]);

/// Makes a table that keeps letters, digits, `-._~` and `kept`, applies the rules of `special`, and encodes the rest.
const fn byte_rules(kept: &[u8], special: &[(u8, ByteRule)]) -> ByteRules {
    let mut table = [ByteRule::Encode; 256];
    let mut byte = 0;
    while byte < 256 {
        if is_unreserved(byte as u8) {
            table[byte] = ByteRule::Keep;
        }
        byte += 1;
    }
    let mut i = 0;
    while i < kept.len() {
        table[kept[i] as usize] = ByteRule::Keep;
        i += 1;
    }
    let mut i = 0;
    while i < special.len() {
        table[special[i].0 as usize] = special[i].1;
        i += 1;
    }
    table
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Writes each byte by its rule. Runs of kept bytes are copied whole.
fn write(mut bytes: &[u8], rules: &ByteRules, out: &mut Vec<u8>) {
    loop {
        let is_kept = |&byte: &u8| rules[usize::from(byte)] == ByteRule::Keep;
        let run = bytes.iter().position(|byte| !is_kept(byte)).unwrap_or(bytes.len());
        let (kept, rest) = bytes.split_at(run);
        out.extend_from_slice(kept);
        let Some((&byte, rest)) = rest.split_first() else { return };
        bytes = rest;
        let rule = rules[usize::from(byte)];
        match rule {
            ByteRule::Keep => out.push(byte),
            ByteRule::Encode => out.extend_from_slice(&hex::escape(byte)),
            ByteRule::Blank => out.extend_from_slice(b"%20"),
            ByteRule::KeepEscape if escaped_byte(rest).is_some() => out.push(byte),
            ByteRule::KeepEscape => out.extend_from_slice(b"%25"),
            ByteRule::Reencode | ByteRule::ReencodeKey => match escaped_byte(rest) {
                Some(decoded) => {
                    bytes = rest.get(2..).unwrap_or_default();
                    if is_unreserved(decoded) || (decoded == b'/' && rule == ByteRule::ReencodeKey) {
                        out.push(decoded);
                    } else {
                        out.extend_from_slice(&hex::escape(decoded));
                    }
                }
                None => out.extend_from_slice(b"%25"),
            },
        }
    }
}

fn write_wire_path(style: UriStyle, path: &[u8], out: &mut Vec<u8>) {
    match style {
        UriStyle::Standard => write(path, &STANDARD_PATH, out),
        UriStyle::S3 => write(path, &S3_PATH, out),
        UriStyle::S3Control => write(path, &S3_CONTROL_PATH, out),
    }
}

fn write_wire_query(style: UriStyle, query: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let found = write_pairs(query, 0, out);
    if style != UriStyle::Standard && found == ALL_VERSION_2 {
        out.truncate(start);
        write_pairs(query, ALL_VERSION_2, out);
    }
}

/// Writes the pairs of a query in wire form, without those of presigning and those in `dropped`, a set of Signature Version
/// 2 parameters. Returns the set of these that the query has.
fn write_pairs(query: &[u8], dropped: u8, out: &mut Vec<u8>) -> u8 {
    let start = out.len();
    let mut found = 0;
    for pair in query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()) {
        let before_pair = out.len();
        if before_pair > start {
            out.push(b'&');
        }
        let name_start = out.len();
        let mut parts = pair.splitn(2, |&byte| byte == b'=');
        write(parts.next().unwrap_or_default(), &QUERY, out);
        let name = out.get(name_start..).unwrap_or_default();
        let version_2 = version_2_parameter(name);
        found |= version_2;
        if is_presigning_parameter(name) || version_2 & dropped != 0 {
            out.truncate(before_pair);
            continue;
        }
        if let Some(value) = parts.next() {
            out.push(b'=');
            write(value, &QUERY, out);
        }
    }
    found
}

/// All three parameters of [`version_2_parameter`].
const ALL_VERSION_2: u8 = 0b111;

/// Returns a bit for each parameter by which S3 recognizes a query signed with Signature Version 2, and 0 for any other.
/// boto3, the AWS CLI's version 1 and s3cmd still presign with it. Each parameter alone is an ordinary one; S3 rejects a
/// request that has all three and an `authorization` header.
fn version_2_parameter(name: &[u8]) -> u8 {
    match name.len() {
        14 if name.eq_ignore_ascii_case(b"AWSAccessKeyId") => 0b001,
        9 if name.eq_ignore_ascii_case(b"Signature") => 0b010,
        7 if name.eq_ignore_ascii_case(b"Expires") => 0b100,
        _ => 0,
    }
}

/// Returns whether presigning sets this parameter. A request that the client has presigned is signed again.
fn is_presigning_parameter(name: &[u8]) -> bool {
    const PARAMETERS: [&[u8]; 10] = [
        b"algorithm",
        b"credential",
        b"date",
        b"expires",
        b"signedheaders",
        b"signature",
        b"security-token",
        b"region-set",
        b"content-sha256",
        b"s3session-token",
    ];
    match name.split_at_checked(6) {
        Some((beginning, rest)) => {
            beginning.eq_ignore_ascii_case(b"x-amz-") && PARAMETERS.iter().any(|p| rest.eq_ignore_ascii_case(p))
        }
        None => false,
    }
}

/// Writes the canonical form of a path in wire form (or, in tests, as written).
pub(super) fn write_canonical_path(style: UriStyle, path: &[u8], out: &mut Vec<u8>) {
    match style {
        UriStyle::S3 | UriStyle::S3Control => out.extend_from_slice(path),
        UriStyle::Standard => write_normalized(path, out),
    }
}

fn write_normalized(path: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                let written = out.get(start..).unwrap_or_default();
                let parent = written.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                out.truncate(start + parent);
            }
            _ => {
                out.push(b'/');
                write_encoded(segment, out);
            }
        }
    }
    let is_directory = [&b"/"[..], b"/.", b"/.."].iter().any(|end| path.ends_with(end));
    if is_directory || out.len() == start {
        out.push(b'/');
    }
}

/// Writes bytes in AWS's encoding: all except RFC 3986's unreserved characters are escaped.
pub(crate) fn write_encoded(bytes: &[u8], out: &mut Vec<u8>) {
    write(bytes, &ENCODED, out);
}

/// The position of a parameter in a wire query: its name ends at `name_end`; its value, if any, follows the `=`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Parameter {
    fn name<'q>(&self, query: &'q [u8]) -> &'q [u8] {
        query.get(self.start..self.name_end).unwrap_or_default()
    }

    fn value<'q>(&self, query: &'q [u8]) -> &'q [u8] {
        query.get(self.name_end + 1..self.end).unwrap_or_default()
    }
}

/// Writes the canonical form of a query in wire form. `parameters` is scratch space.
pub(super) fn write_canonical_query(query: &[u8], parameters: &mut Vec<Parameter>, out: &mut Vec<u8>) {
    parameters.clear();
    let mut start = 0;
    for pair in query.split(|&byte| byte == b'&') {
        let end = start + pair.len();
        if !pair.is_empty() {
            let name_len = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            parameters.push(Parameter { start, name_end: start + name_len, end });
        }
        start = end + 1;
    }
    parameters.sort_unstable_by(|a, b| (a.name(query), a.value(query)).cmp(&(b.name(query), b.value(query))));
    for (index, parameter) in parameters.iter().enumerate() {
        if index > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(parameter.name(query));
        out.push(b'=');
        out.extend_from_slice(parameter.value(query));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wire(style: UriStyle, target: &str) -> String {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.as_bytes())),
            None => (target, None),
        };
        let mut uri = WireUri::default();
        uri.set(style, b"/of/an/earlier/request", Some(b"a=b"));
        uri.set(style, path.as_bytes(), query);
        String::from_utf8(uri.as_bytes().to_vec()).unwrap()
    }

    fn canonical_path(path: &str) -> String {
        let mut out = Vec::new();
        write_canonical_path(UriStyle::Standard, path.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn canonical_query(query: &str) -> String {
        let mut out = Vec::new();
        write_canonical_query(query.as_bytes(), &mut Vec::new(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn s3_paths_are_decoded_and_encoded_again() {
        for (written, sent) in [
            ("/", "/"),
            ("/bucket/a b+c/ü(1).txt", "/bucket/a%20b%2Bc/%C3%BC%281%29.txt"),
            ("/dt=2026-01-01/x@y:z", "/dt%3D2026-01-01/x%40y%3Az"),
            ("/a%2fb%7e%2D", "/a/b~-"),
            ("//a//", "//a//"),
            ("/100%", "/100%25"),
            ("/%00%0a", "/%00%0A"),
            ("/a%252Fb", "/a%252Fb"),
        ] {
            assert_eq!(wire(UriStyle::S3, written), sent);
            assert_eq!(wire(UriStyle::S3, sent), sent, "the wire form is its own wire form");
        }
    }

    #[test]
    fn an_encoded_slash_belongs_to_a_parameter_of_the_control_api() {
        assert_eq!(UriStyle::of("s3", b"s3.eu-west-1.amazonaws.com"), UriStyle::S3);
        assert_eq!(UriStyle::of("s3", b"123456789012.s3-control.eu-west-1.amazonaws.com"), UriStyle::S3Control);
        assert_eq!(UriStyle::of("s3", b"s3-control.s3.eu-west-1.amazonaws.com"), UriStyle::S3, "a bucket");
        assert_eq!(UriStyle::of("s3express", b"s3express-control.eu-west-1.amazonaws.com"), UriStyle::S3Control);
        assert_eq!(UriStyle::of("execute-api", b"s3-control.example.com"), UriStyle::Standard);
        let tags = "/v20180820/tags/arn%3Aaws%3As3%3Aeu-west-1%3A1%3Aaccess-grants%2Fdefault";
        assert_eq!(wire(UriStyle::S3Control, tags), tags);
    }

    #[test]
    fn standard_paths_go_out_as_written() {
        for (written, sent) in [
            ("/a:b@c;d=e+f/%3a%2F*", "/a:b@c;d=e+f/%3a%2F*"),
            ("/a b/ü", "/a%20b/%C3%BC"),
            ("/a\"<>\\^`{|}[]#", "/a%22%3C%3E%5C%5E%60%7B%7C%7D%5B%5D%23"),
            ("/100%/%zz%2", "/100%25/%25zz%252"),
        ] {
            assert_eq!(wire(UriStyle::Standard, written), sent);
            assert_eq!(wire(UriStyle::Standard, sent), sent, "the wire form is its own wire form");
        }
    }

    #[test]
    fn standard_canonical_paths_are_normalized_and_encoded_once_more() {
        for (wire, canonical) in [
            ("", "/"),
            ("/", "/"),
            ("//a//b/", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/../..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a:b%20c%2Fd", "/a%3Ab%2520c%252Fd"),
        ] {
            assert_eq!(canonical_path(wire), canonical);
        }
    }

    #[test]
    fn queries_keep_their_order_on_the_wire() {
        for (written, sent) in [
            ("/?b=2&a=1", "/?b=2&a=1"),
            ("/?acl", "/?acl"),
            ("/?acl=", "/?acl="),
            ("/?q=a+b%20c", "/?q=a%20b%20c"),
            ("/?a=b=c:/d", "/?a=b%3Dc%3A%2Fd"),
            ("/?%zz=100%", "/?%25zz=100%25"),
            ("/?=v&=", "/?=v&="),
            ("/?&&a&&", "/?a"),
            ("/?", "/"),
            ("/?ü=%c3%bc", "/?%C3%BC=%C3%BC"),
        ] {
            assert_eq!(wire(UriStyle::Standard, written), sent);
            assert_eq!(wire(UriStyle::S3, sent), sent, "the wire form is its own wire form");
        }
    }

    #[test]
    fn presigning_parameters_of_the_client_are_left_out() {
        let presigned = "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2Fb&versionId=1&X-Amz-Date=1\
            &X-Amz-Expires=1&x-amz-signedheaders=host&X%2DAmz-Signature=0&X-Amz-Security-Token=t&X-Amz-Region-Set=*";
        assert_eq!(wire(UriStyle::S3, presigned), "/k?versionId=1");
        assert_eq!(wire(UriStyle::S3, "/k?X-Amz-Date"), "/k");
        assert_eq!(
            wire(UriStyle::S3, "/k?X-Amz-Content-Sha256=0&x-amz-s3session-token=t&X-Amz-S3session-Token=t"),
            "/k"
        );
        assert_eq!(wire(UriStyle::S3, "/k?x-amz-meta=1&X-Amz-Dat&x-amz-"), "/k?x-amz-meta=1&X-Amz-Dat&x-amz-");
    }

    #[test]
    fn a_query_presigned_with_version_2_is_left_out_for_s3() {
        for (written, sent) in [
            ("/k?AWSAccessKeyId=AKID&Signature=a%2Bb%3D&Expires=1&versionId=1", "/k?versionId=1"),
            ("/k?a&AWSAccessKeyId=AKID&b=1&Expires=1&x-amz-security-token=t&Signature=s&c", "/k?a&b=1&c"),
            ("/k?AWSAccessKeyId=AKID&Expires=1&Signature=s", "/k"),
            ("/k?AWSAccess%4BeyId=AKID&%45xpires=1&signature", "/k"),
            ("/k?AWSACCESSKEYID=&EXPIRES=&SIGNATURE=", "/k"),
            ("/k?Signature=1&AWSAccessKeyId=AKID&Signature=2&Expires=1&Expires=2&a=b", "/k?a=b"),
            ("/k?AWSAccessKeyId=AKID&Expires=1", "/k?AWSAccessKeyId=AKID&Expires=1"),
            ("/k?Signature=s&Expires=1", "/k?Signature=s&Expires=1"),
            ("/k?AWSAccessKeyId=a&Signature=s&X-Amz-Expires=1", "/k?AWSAccessKeyId=a&Signature=s"),
            ("/k?AWSAccessKeyId=a&Signatures=s&Expires=1", "/k?AWSAccessKeyId=a&Signatures=s&Expires=1"),
        ] {
            for style in [UriStyle::S3, UriStyle::S3Control] {
                assert_eq!(wire(style, written), sent);
                assert_eq!(wire(style, sent), sent, "the wire form is its own wire form");
            }
        }
        let ordinary = "/?AWSAccessKeyId=AKID&Expires=1&Signature=s";
        assert_eq!(wire(UriStyle::Standard, ordinary), ordinary);
    }

    #[test]
    fn canonical_queries_are_sorted_by_name_and_then_by_value() {
        for (wire, canonical) in [
            ("", ""),
            ("acl", "acl="),
            ("b=2&a=2&a=1&a", "a=&a=1&a=2&b=2"),
            ("Param-3=3&Param=2&%E1=1", "%E1=1&Param=2&Param-3=3"),
            ("a%3D=1&a=2", "a=2&a%3D=1"),
            ("=v", "=v"),
        ] {
            assert_eq!(canonical_query(wire), canonical);
        }
    }

    proptest! {
        /// Checks that a query and its wire form decode to the same parameters.
        #[test]
        fn the_wire_form_of_a_query_says_the_same(query in "([a-c=&+%/:;?~ü]|%2[0-9a-fB-F]|%4[1-9]|%C3%BC){0,20}") {
            let mut uri = WireUri::default();
            uri.set(UriStyle::Standard, b"/", Some(query.as_bytes()));
            let written: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
            let sent: Vec<_> = url::form_urlencoded::parse(uri.query()).collect();
            prop_assert_eq!(written, sent);
        }

        /// Checks that the wire form has nothing that a hop could read differently, and is a fixed point.
        #[test]
        fn any_bytes_become_a_uri(
            path in proptest::collection::vec(any::<u8>(), 0..40),
            query in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            s3 in any::<bool>(),
        ) {
            let style = if s3 { UriStyle::S3 } else { UriStyle::Standard };
            let mut uri = WireUri::default();
            uri.set(style, &path, query.as_deref());
            prop_assert!(uri.path().iter().all(|&b| is_unreserved(b) || b"%!$&'()*+,;=:@/".contains(&b)));
            prop_assert!(uri.query().iter().all(|&b| matches!(b, b'%' | b'=' | b'&') || is_unreserved(b)));
            let mut again = WireUri::default();
            again.set(style, uri.path(), Some(uri.query()));
            prop_assert_eq!(again.as_bytes(), uri.as_bytes());
        }
    }
}
