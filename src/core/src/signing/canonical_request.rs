//! The canonical request: the text that is signed.

use std::ops::Range;

use super::payload_hash::PayloadHash;
use super::signed_headers;
use super::uri::{self, Parameter, WireUri};

/// A request to sign. Its headers are passed separately, in the form in which the caller has them.
#[derive(Debug, Clone, Copy)]
pub struct UnsignedRequest<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The authority as sent, without a default port.
    pub authority: &'a [u8],
    /// Path and query as sent.
    pub uri: &'a WireUri,
    /// The body's hash or mark.
    pub payload: PayloadHash,
    /// Additional headers that the policy signs, in lower case.
    pub signed_headers: &'a [String],
}

#[cfg(test)]
impl<'a> UnsignedRequest<'a> {
    /// Makes a GET without a body, for tests.
    pub(super) fn get(uri: &'a WireUri) -> Self {
        Self { method: b"GET", authority: b"h", uri, payload: PayloadHash::Empty, signed_headers: &[] }
    }
}

/// A builder of canonical requests that reuses its buffers.
#[derive(Debug, Default)]
pub(super) struct CanonicalRequest {
    text: Vec<u8>,
    headers: CanonicalHeaders,
    /// The start of the headers in the text.
    headers_start: usize,
    parameters: Vec<Parameter>,
}

impl CanonicalRequest {
    /// Starts another request with its authority and those of `headers` that are signed. Further headers may be added; then
    /// they must be sorted.
    pub(super) fn start<'h>(
        &mut self,
        request: &UnsignedRequest<'_>,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    ) -> &mut CanonicalHeaders {
        self.headers.clear();
        for (name, value) in headers {
            if signed_headers::is_signed(name, request.signed_headers) {
                self.headers.add(name, value);
            }
        }
        // After the client's usual header, a content type, and before our own, so that there is usually nothing to sort.
        self.headers.add(b"host", request.authority);
        &mut self.headers
    }

    /// Writes the whole text. `query` is in wire form, and may have parameters that the request's own does not.
    pub(super) fn finish(&mut self, request: &UnsignedRequest<'_>, query: &[u8]) {
        let text = &mut self.text;
        text.clear();
        text.extend_from_slice(request.method);
        text.push(b'\n');
        uri::write_canonical_path(request.uri.style(), request.uri.path(), text);
        text.push(b'\n');
        uri::write_canonical_query(query, &mut self.parameters, text);
        text.push(b'\n');
        self.headers_start = text.len();
        text.extend_from_slice(self.headers.lines());
        text.push(b'\n');
        text.extend_from_slice(&self.headers.names);
        text.push(b'\n');
        text.extend_from_slice(request.payload.as_bytes());
    }

    /// Returns the text that was finished last.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the range of the lines of date and session token, if they are adjacent: most of the text, and equal for all
    /// requests that one key signs in a second.
    pub(super) fn date_and_token(&self) -> Option<Range<usize>> {
        let Range { start, end } = self.headers.adjacent(b"x-amz-date", b"x-amz-security-token")?;
        Some(self.headers_start + start..self.headers_start + end)
    }

    /// Returns the names of the signed headers, after sorting: `host;x-amz-date`.
    pub(super) fn signed_headers(&self) -> &[u8] {
        &self.headers.names
    }
}

/// The signed headers of one request, copied in canonical form: names in lower case, values without outer blanks and with
/// inner runs of blanks collapsed.
#[derive(Debug, Default)]
pub(super) struct CanonicalHeaders {
    lines: Vec<u8>,
    fields: Vec<Field>,
    names: Vec<u8>,
    /// Scratch space to sort in.
    sorted: Vec<u8>,
}

/// A line `name:value` and its end.
#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    name_end: usize,
    end: usize,
}

impl Field {
    fn name<'l>(&self, lines: &'l [u8]) -> &'l [u8] {
        lines.get(self.start..self.name_end).unwrap_or_default()
    }

    fn value_and_end<'l>(&self, lines: &'l [u8]) -> &'l [u8] {
        lines.get(self.name_end + 1..self.end).unwrap_or_default()
    }

    fn line<'l>(&self, lines: &'l [u8]) -> &'l [u8] {
        lines.get(self.start..self.end).unwrap_or_default()
    }
}

impl CanonicalHeaders {
    fn clear(&mut self) {
        self.lines.clear();
        self.fields.clear();
    }

    /// Adds a header. Values of a repeated name are joined in the order of their addition.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let start = self.lines.len();
        self.lines.extend_from_slice(name);
        if let Some(name) = self.lines.get_mut(start..) {
            name.make_ascii_lowercase();
        }
        self.end_line(start, |lines| write_trimmed(value, lines));
    }

    /// Adds a header that is already in canonical form.
    pub(super) fn add_canonical(&mut self, name: &[u8], value: &[u8]) {
        let start = self.lines.len();
        self.lines.extend_from_slice(name);
        self.end_line(start, |lines| lines.extend_from_slice(value));
    }

    fn end_line(&mut self, start: usize, write_value: impl FnOnce(&mut Vec<u8>)) {
        let name_end = self.lines.len();
        self.lines.push(b':');
        write_value(&mut self.lines);
        self.lines.push(b'\n');
        self.fields.push(Field { start, name_end, end: self.lines.len() });
    }

    /// Sorts the lines and joins those of one name, `name:value,value`. Called after all are added.
    pub(super) fn sort(&mut self) {
        if !self.fields.is_sorted_by(|a, b| a.name(&self.lines) < b.name(&self.lines)) {
            self.rewrite_sorted();
        }
        self.names.clear();
        for field in &self.fields {
            if !self.names.is_empty() {
                self.names.push(b';');
            }
            self.names.extend_from_slice(field.name(&self.lines));
        }
    }

    fn rewrite_sorted(&mut self) {
        let Self { lines, fields, sorted, .. } = self;
        // The values of a name keep their order. Sorting allocates nothing.
        fields.sort_unstable_by(|a, b| (a.name(lines), a.start).cmp(&(b.name(lines), b.start)));
        sorted.clear();
        let mut names = 0;
        for index in 0..fields.len() {
            let field = fields[index];
            if let Some(same) = fields[..names].last_mut().filter(|last| last.name(sorted) == field.name(lines)) {
                // Replaces the end of the line.
                sorted.pop();
                sorted.push(b',');
                sorted.extend_from_slice(field.value_and_end(lines));
                same.end = sorted.len();
            } else {
                let start = sorted.len();
                sorted.extend_from_slice(field.line(lines));
                let name_end = start + (field.name_end - field.start);
                fields[names] = Field { start, name_end, end: sorted.len() };
                names += 1;
            }
        }
        fields.truncate(names);
        std::mem::swap(lines, sorted);
    }

    /// Returns all lines, after sorting.
    pub(super) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Returns the range of the lines of two names, if one follows the other.
    fn adjacent(&self, first: &[u8], second: &[u8]) -> Option<Range<usize>> {
        self.fields.array_windows().find_map(|[a, b]| {
            (a.name(&self.lines) == first && b.name(&self.lines) == second).then_some(a.start..b.end)
        })
    }
}

/// Writes a value with each run of white space, tabs included, as one blank, like AWS's SDKs for Java, C and Python.
fn write_trimmed(value: &[u8], out: &mut Vec<u8>) {
    let mut words = value.split(|&byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    if let Some(first) = words.next() {
        out.extend_from_slice(first);
    }
    for word in words {
        out.push(b' ');
        out.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use super::super::WireUri;
    use super::*;

    fn lines(headers: &[(&str, &str)]) -> (String, String) {
        let mut canonical = CanonicalHeaders::default();
        canonical.add(b"of-an-earlier", b"request");
        canonical.clear();
        for (name, value) in headers {
            canonical.add(name.as_bytes(), value.as_bytes());
        }
        canonical.sort();
        (String::from_utf8(canonical.lines).unwrap(), String::from_utf8(canonical.names).unwrap())
    }

    #[test]
    fn lines_in_order_stand_as_they_were_added() {
        let (lines, names) = lines(&[("content-type", "a"), ("host", "h"), ("x-a", "1")]);
        assert_eq!(lines, "content-type:a\nhost:h\nx-a:1\n");
        assert_eq!(names, "content-type;host;x-a");
    }

    #[test]
    fn date_and_token_are_found_where_they_follow_one_another() {
        let mut canonical = CanonicalRequest::default();
        let uri = WireUri::default();
        for (client_header, is_found) in [("content-type", true), ("x-amz-target", true), ("x-amz-meta-a", false)] {
            let request = UnsignedRequest::get(&uri);
            let headers = canonical.start(&request, [(client_header.as_bytes(), &b"v"[..])]);
            headers.add_canonical(b"x-amz-date", b"20150830T123600Z");
            headers.add_canonical(b"x-amz-security-token", b"token");
            headers.sort();
            canonical.finish(&request, b"");
            let found = canonical.date_and_token().map(|range| &canonical.text()[range]);
            let expected = b"x-amz-date:20150830T123600Z\nx-amz-security-token:token\n";
            assert_eq!(found, is_found.then_some(&expected[..]), "{client_header}");
        }
    }

    #[test]
    fn headers_are_sorted_and_joined_and_their_blanks_collapsed() {
        let (lines, names) = lines(&[
            ("X-B", "  \"a \t b\"\t "),
            ("host", "h"),
            ("x-a", "2"),
            ("X-A", ""),
            ("x-a", "1"),
            ("x-empty", "   "),
        ]);
        assert_eq!(lines, "host:h\nx-a:2,,1\nx-b:\"a b\"\nx-empty:\n");
        assert_eq!(names, "host;x-a;x-b;x-empty");
    }
}
