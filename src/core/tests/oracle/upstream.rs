//! How upstreams may read a path: a model of their leniencies that shares no code with the filter. The property tests and
//! the fuzz targets hold the filter's paths against it.

/// Returns whether some upstream that decodes `path` at most once could read it as one outside of `target`, or could be led through
/// a directory outside of it.
pub fn may_leave(target: &[u8], path: &[u8]) -> bool {
    READINGS.iter().any(|reading| {
        let root = reading.segments(target);
        // A path that ends in a slash names what is below that.
        let root = root.strip_suffix(&[Vec::new()]).unwrap_or(&root);
        let segments = reading.segments(path);
        let Some(rest) = segments.strip_prefix(root) else { return true };
        let mut depth = 0_usize;
        for segment in rest {
            match segment.as_slice() {
                b".." if depth == 0 => return true,
                b".." => depth -= 1,
                b"." => {}
                b"" if reading.merges_slashes => {}
                _ => depth += 1,
            }
        }
        false
    })
}

/// Decodes percent escapes once; other text stays.
pub fn decode_once(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let escape =
            text.get(at + 1..at + 3).filter(|digits| text[at] == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        match escape {
            Some(digits) => {
                let digits = std::str::from_utf8(digits).expect("hexadecimal digits are ASCII");
                decoded.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits are a byte"));
                at += 3;
            }
            None => {
                decoded.push(text[at]);
                at += 1;
            }
        }
    }
    decoded
}

/// One way to read a path.
#[derive(Debug, Clone, Copy)]
struct Reading {
    decodes: bool,
    backslash_divides: bool,
    /// Segments are cut at the first of these: `;` begins parameters, NUL ends a C string, `?` and `#` end a path.
    cut_at: &'static [u8],
    merges_slashes: bool,
}

const fn reading(decodes: bool, backslash_divides: bool, cut_at: &'static [u8], merges_slashes: bool) -> Reading {
    Reading { decodes, backslash_divides, cut_at, merges_slashes }
}

const READINGS: [Reading; 12] = [
    reading(false, false, b"", false),
    reading(false, false, b"", true),
    reading(false, true, b"", false),
    reading(false, true, b";", true),
    reading(false, true, b";?#\0", false),
    reading(true, false, b"", false),
    reading(true, false, b"", true),
    reading(true, true, b"", false),
    reading(true, true, b"", true),
    reading(true, false, b";", false),
    reading(true, true, b";?#\0", false),
    reading(true, true, b";?#\0", true),
];

impl Reading {
    /// Returns the segments after the leading slash.
    fn segments(self, path: &[u8]) -> Vec<Vec<u8>> {
        let path = if self.decodes { decode_once(path) } else { path.to_vec() };
        let divides = |byte: &u8| *byte == b'/' || (self.backslash_divides && *byte == b'\\');
        let cut = |segment: &[u8]| segment.split(|byte| self.cut_at.contains(byte)).next().unwrap_or_default().to_vec();
        path.split(divides).skip(1).map(cut).filter(|segment| !(self.merges_slashes && segment.is_empty())).collect()
    }
}

/// A way to split a path into segments, step by step. An encoded slash and a backslash each become a slash at some step or
/// never: before anything is dropped, once raw parameters are, or once all of them are. A parameter begins at the first `;`,
/// `?`, `#` or NUL and ends with the segment.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    encoded_slash: Option<Step>,
    backslash: Option<Step>,
    drops_parameters: bool,
    merges: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    First,
    AfterRaw,
    Last,
}

/// Returns all ways to split a path; the first one is as written.
#[allow(dead_code, reason = "not every program that has this model splits paths")]
pub fn splits() -> Vec<Split> {
    const STEPS: [Option<Step>; 4] = [None, Some(Step::First), Some(Step::AfterRaw), Some(Step::Last)];
    let mut splits = Vec::new();
    for (merges, drops_parameters) in [(false, false), (false, true), (true, false), (true, true)] {
        for encoded_slash in STEPS {
            splits.extend(STEPS.map(|backslash| Split { encoded_slash, backslash, drops_parameters, merges }));
        }
    }
    splits
}

/// A byte after decoding, and whether it was an escape.
type Decoded = (u8, bool);

impl Split {
    /// Returns the decoded segments after the first slash; the last one is empty if the path ends in a slash.
    #[allow(dead_code, reason = "not every program that has this model splits paths")]
    pub fn segments(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let mut segments: Vec<Vec<Decoded>> =
            path.split(|byte| *byte == b'/').skip(1).map(decode_and_remember).collect();
        for step in [Step::First, Step::AfterRaw, Step::Last] {
            let divides = |(byte, _): &Decoded| match byte {
                b'/' => self.encoded_slash == Some(step),
                b'\\' => self.backslash == Some(step),
                _ => false,
            };
            segments = segments.iter().flat_map(|segment| segment.split(divides).map(<[Decoded]>::to_vec)).collect();
            if self.drops_parameters && step != Step::Last {
                for segment in &mut segments {
                    let begins =
                        |(byte, escaped): &Decoded| b";?#\0".contains(byte) && (step != Step::First || !escaped);
                    segment.truncate(segment.iter().position(begins).unwrap_or(segment.len()));
                }
            }
        }
        if self.merges {
            let last = segments.pop();
            segments.retain(|segment| !segment.is_empty());
            segments.extend(last);
        }
        segments.into_iter().map(|segment| segment.into_iter().map(|(byte, _)| byte).collect()).collect()
    }
}

fn decode_and_remember(text: &[u8]) -> Vec<Decoded> {
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let escape = text.get(at..at + 3).map(decode_once).filter(|decoded| decoded.len() == 1);
        decoded.push(escape.as_ref().map_or((text[at], false), |byte| (byte[0], true)));
        at += if escape.is_some() { 3 } else { 1 };
    }
    decoded
}

/// The model sees what it is there to see.
#[test]
fn the_model_knows_the_ways_out() {
    for path in [
        "/p/..",
        "/p/../x",
        "/p/a/../../x",
        "/p/%2e%2e",
        "/p/.%2E/x",
        "/p/a%2f..%2f..",
        "/p/..;x/y",
        "/p\\..",
        "/p%5c..",
        "/p/..%00",
        "/p/..%3fx",
        "/p/%2e%2e%23",
        "/px",
        "/",
        "/q/p",
        "/p/./../x",
        "/p/a//../..",
        "/p/a//../../../x",
    ] {
        assert!(may_leave(b"/p", path.as_bytes()), "{path}");
    }
    for path in ["/p", "/p/", "/p/a/..", "/p/.", "/p//x", "/p/...", "/p/%252e%252e", "/p/a..", "/p/a/../b"] {
        assert!(!may_leave(b"/p", path.as_bytes()), "{path}");
        assert!(!may_leave(b"", path.as_bytes()), "{path}");
    }
    assert!(may_leave(b"", b"/..") && may_leave(b"/", b"/.."));
    assert!(!may_leave(b"/p/", b"/p/x") && may_leave(b"/p/", b"/p/../x"));
}
