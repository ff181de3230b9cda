//! Checks of a Unix socket before it gets credentials.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::error::ProxyError;

/// Rejects a socket that another user of the machine could have created, or could replace.
pub(super) fn check(path: &Path) -> Result<(), ProxyError> {
    let socket = match std::fs::metadata(path) {
        Ok(socket) => socket,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ProxyError::NoSocket(path.into())),
        Err(error) => return Err(ProxyError::Connect(error)),
    };
    if !socket.file_type().is_socket() {
        return Err(ProxyError::NotASocket(path.into()));
    }
    check_owner(path, socket.uid())?;
    let mode = socket.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(ProxyError::SocketMode { path: path.into(), mode });
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::metadata(directory).map_err(ProxyError::Connect)?.mode() & 0o7777;
    // In a directory with the sticky bit, such as /tmp, only its owner can remove the socket.
    if mode & 0o002 != 0 && mode & 0o1000 == 0 {
        return Err(ProxyError::DirectoryMode { path: directory.into(), mode });
    }
    Ok(())
}

/// Rejects a socket of another user.
pub(super) fn check_owner(path: &Path, owner: u32) -> Result<(), ProxyError> {
    let root = 0;
    if owner == root || owner == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(ProxyError::SocketOwner { path: path.into(), owner })
    }
}
