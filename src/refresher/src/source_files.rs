//! Checks the files that are read whole before they are read: the SDK would read a device without an end, and wait at a
//! pipe forever.

use std::env;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Many times the size of a file with profiles, a token or options.
const LARGEST_FILE: u64 = 1 << 20;

/// The SDK's shared files: the variable that names one, and its default.
const SHARED_FILES: [(&str, &str); 2] =
    [("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")];

/// The variables that name a file with a token.
const TOKEN_FILES: [&str; 2] = ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"];

/// A file that is not read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFileError {
    /// It may have no end, or block.
    #[error("{} ({setting}) is a {kind}; use a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
        /// Its type.
        kind: &'static str,
    },
    /// It can't be what it is meant to be.
    #[error("{} ({setting}) is larger than {} KiB; use a smaller file", path.display(), LARGEST_FILE >> 10)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The setting that names it.
        setting: &'static str,
    },
}

/// Checks the files that the environment names, and the default ones.
///
/// # Errors
/// [`SourceFileError`] for the first that can't be read safely.
pub fn check_environment() -> Result<(), SourceFileError> {
    for (variable, default) in SHARED_FILES {
        let path = env::var_os(variable).map_or_else(|| default.into(), PathBuf::from);
        check(&expand_home(path), variable)?;
    }
    for variable in TOKEN_FILES {
        if let Some(path) = env::var_os(variable) {
            check(Path::new(&path), variable)?;
        }
    }
    Ok(())
}

/// Checks that a file is a regular one of a bounded size, or a link to such a file, as Kubernetes mounts them. Accepts
/// `/dev/null`, which is a usual way to disable a file, and files that can't be looked at: reading them reports why.
///
/// # Errors
/// [`SourceFileError`].
pub fn check(path: &Path, setting: &'static str) -> Result<(), SourceFileError> {
    let Ok(metadata) = fs::metadata(path) else {
        return Ok(());
    };
    let file_type = metadata.file_type();
    if file_type.is_file() {
        if metadata.len() > LARGEST_FILE {
            return Err(SourceFileError::TooLarge { path: path.to_owned(), setting });
        }
        return Ok(());
    }
    let is_null = |null: fs::Metadata| file_type.is_char_device() && null.rdev() == metadata.rdev();
    if fs::metadata("/dev/null").is_ok_and(is_null) {
        return Ok(());
    }
    let kind = if file_type.is_dir() {
        "directory"
    } else if file_type.is_fifo() {
        "pipe"
    } else if file_type.is_socket() {
        "socket"
    } else {
        "device"
    };
    Err(SourceFileError::NotRegular { path: path.to_owned(), setting, kind })
}

/// Replaces a leading `~`, as the SDK does.
fn expand_home(path: PathBuf) -> PathBuf {
    match (path.strip_prefix("~"), env::var_os("HOME")) {
        (Ok(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_regular_file_of_a_bounded_size_is_accepted_through_links_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let file = fs::File::create(path("file")).unwrap();
        symlink("file", path("link")).unwrap();
        symlink("link", path("link to a link")).unwrap();
        symlink("/dev/null", path("null")).unwrap();
        file.set_len(LARGEST_FILE).unwrap();
        for accepted in ["file", "link", "link to a link", "null", "absent", "file/absent"] {
            assert_eq!(check(&path(accepted), "--config"), Ok(()), "{accepted}");
        }
        file.set_len(LARGEST_FILE + 1).unwrap();
        let error = check(&path("link"), "--config").unwrap_err().to_string();
        assert_eq!(error, format!("{} (--config) is larger than 1024 KiB; use a smaller file", path("link").display()));
    }

    #[test]
    fn what_may_have_no_end_or_block_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        symlink("/dev/zero", path("zero")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        let refused = [
            (path("zero"), "device"),
            ("/dev/zero".into(), "device"),
            (path("socket"), "socket"),
            (path("."), "directory"),
        ];
        for (path, kind) in refused {
            let error = check(&path, "AWS_CONFIG_FILE").unwrap_err().to_string();
            assert_eq!(error, format!("{} (AWS_CONFIG_FILE) is a {kind}; use a regular file", path.display()));
        }
    }
}
