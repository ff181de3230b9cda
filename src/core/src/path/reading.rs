//! The ways in which upstreams split a path into segments.
//!
//! RFC 3986 splits at `/` alone, and servers disagree on the rest: some read `%2F`, `%5C` or `\` as a slash, some drop empty
//! segments, some drop path parameters, and some do several of these, in either order. A [`Reading`] is one such way.
//! [`Spelling::readings`] lists those that can make a difference for a path, so that most paths have one.

use super::percent::Decode;

/// The longest segment that a reading yields, in bytes after decoding. No prefix of a policy has a longer one.
pub const SEGMENT_MAX: usize = 1024;

/// The parts of a path that upstreams read in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spelling {
    /// `%2F`.
    pub encoded_slash: bool,
    /// `\` or `%5C`, which are sent alike.
    pub backslash: bool,
    /// A mark that may end a segment's name: `;`, `?`, `#` or NUL, raw or encoded.
    pub parameters: bool,
    /// A segment that is empty in one reading at least, other than the last one.
    pub empty_segment: bool,
}

impl Spelling {
    /// The spelling of a path that may have all of them.
    pub(crate) const ANY: Self = Self { encoded_slash: true, backslash: true, parameters: true, empty_segment: true };

    /// Returns whether the path has one reading only: as written.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }

    /// Lists the readings of a path that is spelled like this, the one as written first.
    pub fn readings(self) -> impl Iterator<Item = Reading> {
        READINGS.into_iter().filter(move |reading| reading.differs_for(self))
    }
}

/// The meaning of another spelling of a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slash {
    /// A byte of the segment.
    Literal,
    /// A slash.
    Separator,
    /// A slash, but only after raw parameters are dropped: it ends one whose mark is escaped, such as `%3B`.
    AfterRawParameters,
    /// A slash, but only after parameters are dropped: in a parameter it is dropped with it.
    AfterParameters,
}

/// The spelling of the mark that begins a parameter. After a raw one, everything up to the slash belongs to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Raw,
    Escaped,
}

/// A way to split a path into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    encoded_slash: Slash,
    backslash: Slash,
    /// `true` if a segment's name ends at `;`, `?`, `#` or NUL, raw or encoded.
    drops_parameters: bool,
    /// `true` if a run of slashes is one slash.
    drops_empty: bool,
}

const READINGS: [Reading; 40] = {
    let as_written = Reading {
        encoded_slash: Slash::Literal,
        backslash: Slash::Literal,
        drops_parameters: false,
        drops_empty: false,
    };
    let mut readings = [as_written; 40];
    // Without parameters to drop, a slash has two meanings.
    let slashes = [Slash::Literal, Slash::Separator, Slash::AfterRawParameters, Slash::AfterParameters];
    let (mut count, mut number) = (0, 0);
    while number < 64 {
        let reading = Reading {
            encoded_slash: slashes[number % 4],
            backslash: slashes[number / 4 % 4],
            drops_parameters: number / 16 % 2 == 1,
            drops_empty: number / 32 == 1,
        };
        let is_possible = reading.drops_parameters
            || matches!(
                (reading.encoded_slash, reading.backslash),
                (Slash::Literal | Slash::Separator, Slash::Literal | Slash::Separator)
            );
        if is_possible {
            readings[count] = reading;
            count += 1;
        }
        number += 1;
    }
    assert!(count == readings.len());
    readings
};

impl Reading {
    /// Returns whether the reading can differ from the others for a path that is spelled like this.
    fn differs_for(self, spelling: Spelling) -> bool {
        (spelling.encoded_slash || self.encoded_slash == Slash::Literal)
            && (spelling.backslash || self.backslash == Slash::Literal)
            && (spelling.parameters || !self.drops_parameters)
            && (spelling.empty_segment || !self.drops_empty)
    }

    /// Calls `visit` for each segment of an absolute path until it returns `false`: with the segment's bytes after
    /// decoding, and whether a slash follows. A segment longer than [`SEGMENT_MAX`] is `None`, visited as soon as that is
    /// known, as if a slash followed.
    ///
    /// In every reading, the segment after a final slash is empty and the last one.
    pub fn visit_segments(self, path: &[u8], visit: &mut dyn FnMut(Option<&[u8]>, bool) -> bool) {
        let mut room = [0; SEGMENT_MAX];
        let (mut len, mut parameter) = (0, None);
        for byte in Decode::new(path.strip_prefix(b"/").unwrap_or(path)) {
            let slash = match byte.value {
                b'/' if !byte.escaped => Slash::Separator,
                b'/' => self.encoded_slash,
                b'\\' => self.backslash,
                _ => Slash::Literal,
            };
            let ends = match slash {
                Slash::Literal => false,
                Slash::Separator => true,
                Slash::AfterRawParameters => parameter != Some(Mark::Raw),
                Slash::AfterParameters => parameter.is_none(),
            };
            if ends {
                let dropped = len == 0 && self.drops_empty;
                if !dropped && len <= SEGMENT_MAX && !visit(room.get(..len), true) {
                    return;
                }
                (len, parameter) = (0, None);
            } else if self.drops_parameters && ends_name(byte.value) {
                let is_raw = !byte.escaped || parameter == Some(Mark::Raw);
                parameter = Some(if is_raw { Mark::Raw } else { Mark::Escaped });
            } else if parameter.is_none() {
                match room.get_mut(len) {
                    Some(free) => *free = byte.value,
                    // A visitor that stops here reads no further: a path of many kilobytes costs no more than a segment.
                    None if len == SEGMENT_MAX && !visit(None, true) => return,
                    None => {}
                }
                len = (len + 1).min(SEGMENT_MAX + 1);
            }
        }
        if len <= SEGMENT_MAX {
            visit(room.get(..len), false);
        }
    }
}

/// Returns whether parsers end a segment's name at this byte: at path parameters (RFC 3986, 3.3), or where they end the
/// path.
pub(super) fn ends_name(byte: u8) -> bool {
    matches!(byte, b';' | b'?' | b'#' | 0)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::path::SafePath;

    fn readings(path: &str) -> BTreeSet<String> {
        let path = SafePath::check(path.as_bytes()).unwrap();
        let read = |reading: Reading| {
            let mut read = String::new();
            reading.visit_segments(path.path(), &mut |segment, _| {
                read.push('/');
                read.push_str(&segment.unwrap().escape_ascii().to_string().replace('/', "|"));
                true
            });
            read
        };
        path.spelling().readings().map(read).collect()
    }

    #[test]
    fn a_plain_path_has_one_reading() {
        for path in ["/", "/a", "/a/", "/a/b.c", "/%61=b@c:d", "/a/%C3%BC%20"] {
            let safe = SafePath::check(path.as_bytes()).unwrap();
            assert!(safe.spelling().is_plain(), "{path}");
            assert_eq!(safe.spelling().readings().count(), 1, "{path}");
        }
    }

    #[test]
    fn a_path_has_the_readings_of_the_upstreams() {
        for (path, expected) in [
            ("/a%2Fb", &["/a|b", "/a/b"][..]),
            ("/a%5cb\\c", &["/a\\\\b\\\\c", "/a/b/c"]),
            ("//a///b/", &["//a///b/", "/a/b/"]),
            ("/a;x=1/b", &["/a;x=1/b", "/a/b"]),
            ("/a%3Fx/b", &["/a?x/b", "/a/b"]),
            ("/a%00/b%23", &["/a\\x00/b#", "/a/b"]),
            ("/;x/a", &["/;x/a", "//a", "/a"]),
            // A slash in a parameter is dropped with it, or ends it.
            ("/a;%2Fb", &["/a;|b", "/a;/b", "/a", "/a/b"]),
            ("/a%3B%2Fb", &["/a;|b", "/a;/b", "/a", "/a/b"]),
            // Parameters may be dropped twice, before and after escapes are decoded.
            ("/;%2Fb/%3B%2Fc", &["/;|b/;|c", "/;/b/;/c", "//", "/", "//b//c", "/b/c", "///c", "/c"]),
            ("/%2F", &["/|", "//", "/"]),
        ] {
            let expected: BTreeSet<String> = expected.iter().map(|&path| path.to_owned()).collect();
            assert_eq!(readings(path), expected, "{path}");
        }
    }

    #[test]
    fn the_reading_as_written_is_the_first() {
        let mut segments = Vec::new();
        Spelling::ANY.readings().next().unwrap().visit_segments(b"/a%2fb;c//d/", &mut |segment, slash| {
            segments.push((segment.unwrap().to_vec(), slash));
            true
        });
        let expected = [(&b"a/b;c"[..], true), (b"", true), (b"d", true), (b"", false)];
        assert_eq!(segments, expected.map(|(segment, slash)| (segment.to_vec(), slash)));
    }

    #[test]
    fn a_segment_that_no_prefix_can_have_is_not_kept() {
        let path = [b"/", "a".repeat(SEGMENT_MAX + 1).as_bytes(), b"/b"].concat();
        let mut lengths = Vec::new();
        Spelling::default().readings().next().unwrap().visit_segments(&path, &mut |segment, _| {
            lengths.push(segment.map(<[u8]>::len));
            true
        });
        assert_eq!(lengths, [None, Some(1)]);
    }
}
