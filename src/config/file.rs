//! Reads an operator's file: completely, up to a maximum size, and without ever blocking.
//!
//! Owns what may be read (only regular files) and what counts as text (UTF-8; a leading byte order
//! mark is dropped). Refuses directories, pipes, devices and sockets without opening them: a pipe
//! blocks, some devices never end, and opening a device can have side effects. Each error says what
//! it found and how to fix it. Knows nothing of the file's contents.

use std::fs::{FileType, OpenOptions, metadata, read_link};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why the bytes of a file are not text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoText {
    /// The offset of the first bad byte; `None` for the file as a whole.
    pub at: Option<usize>,
    /// What is wrong.
    pub what: &'static str,
    /// How to fix it.
    pub remedy: &'static str,
}

/// Reads a regular file of at most `size_max` bytes.
///
/// # Errors
/// Why it can't be read; [`remedy`] says how to fix it.
pub fn read(path: &Path, size_max: u64) -> io::Result<Vec<u8>> {
    let found = metadata(path).map_err(|error| match read_link(path) {
        Ok(target) if error.kind() == ErrorKind::NotFound => {
            io::Error::new(error.kind(), format!("it is a link to {}, which does not exist", target.display()))
        }
        _ => error,
    })?;
    refuse_all_but_files(found.file_type())?;
    // It may have been replaced by a pipe since the check: opening it must not block.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    refuse_all_but_files(file.metadata()?.file_type())?;
    // It doesn't grow, so that nothing of a key stays behind.
    let size = usize::try_from(found.len().min(size_max)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(size + 1);
    file.take(size_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > size_max {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {size_max} bytes")));
    }
    Ok(bytes)
}

/// The remedy for an error of [`read`]. `otherwise` is the remedy for a missing file and for rarer
/// errors.
#[must_use]
pub const fn remedy(kind: ErrorKind, otherwise: &str) -> &str {
    match kind {
        ErrorKind::PermissionDenied => {
            "give the program's user read permission on the file, and search permission on every directory above it"
        }
        ErrorKind::IsADirectory | ErrorKind::InvalidInput => "name a regular file, or a link to one",
        ErrorKind::FileTooLarge => "name the right file, or shorten it",
        _ => otherwise,
    }
}

/// The bytes as text, without a leading byte order mark.
///
/// # Errors
/// Why they are not text.
pub fn text(bytes: &[u8]) -> Result<&str, NoText> {
    const REMEDY: &str = "save the file as UTF-8 text";
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(NoText { at: None, what: "is UTF-16", remedy: REMEDY });
    }
    // ASCII text in UTF-16 without a byte order mark is valid UTF-8 with a NUL in every character.
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err(NoText { at: Some(at), what: "has a NUL byte, as UTF-16 and binary files have", remedy: REMEDY });
    }
    let bare = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    std::str::from_utf8(bare).map_err(|cause| {
        let at = bytes.len() - bare.len() + cause.valid_up_to();
        NoText { at: Some(at), what: "is not UTF-8", remedy: REMEDY }
    })
}

fn refuse_all_but_files(found: FileType) -> io::Result<()> {
    let (kind, what) = match found {
        found if found.is_file() => return Ok(()),
        found if found.is_dir() => (ErrorKind::IsADirectory, "it is a directory"),
        found if found.is_fifo() => (ErrorKind::InvalidInput, "it is a pipe"),
        found if found.is_socket() => (ErrorKind::InvalidInput, "it is a socket"),
        _ => (ErrorKind::InvalidInput, "it is a device"),
    };
    Err(io::Error::new(kind, what))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_dir_all, write};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;

    /// A directory, removed when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sharelinkd-{name}-{}", std::process::id()));
            // A killed process with this number may have left it.
            let _ = remove_dir_all(&path);
            create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_a_regular_file_is_read_and_nothing_blocks() {
        let folder = Folder::new("files");
        let path = |name: &str| folder.0.join(name);
        write(path("file"), "12345").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        symlink("loop", path("loop")).unwrap();
        assert!(read(&path("loop"), 4).unwrap_err().to_string().contains("symbolic links"));
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(path("socket")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&path(name), 5).unwrap(), b"12345");
        }
        for (path, kind, word) in [
            (path("file"), ErrorKind::FileTooLarge, "more than 4 bytes"),
            (path("none"), ErrorKind::NotFound, "No such file"),
            (path("dangling"), ErrorKind::NotFound, "a link to nowhere, which does not exist"),
            (path("file/under"), ErrorKind::NotADirectory, "Not a directory"),
            (folder.0.clone(), ErrorKind::IsADirectory, "a directory"),
            (path("pipe"), ErrorKind::InvalidInput, "a pipe"),
            (path("socket"), ErrorKind::InvalidInput, "a socket"),
            ("/dev/null".into(), ErrorKind::InvalidInput, "a device"),
            ("/dev/zero".into(), ErrorKind::InvalidInput, "a device"),
        ] {
            let error = read(&path, 4).unwrap_err();
            assert_eq!(error.kind(), kind, "{}: {error}", path.display());
            assert!(error.to_string().contains(word), "{}: {error}", path.display());
            assert!(!remedy(kind, "else").is_empty());
        }
    }

    #[test]
    fn text_is_utf_8_with_or_without_its_mark() {
        assert_eq!(text(b""), Ok(""));
        assert_eq!(text("\u{feff}a\r\n".as_bytes()), Ok("a\r\n"));
        assert_eq!(text("é\u{feff}".as_bytes()), Ok("é\u{feff}"));
        for (bytes, at, word) in [
            (&b"\xff\xfea\0"[..], None, "UTF-16"),
            (b"\xfe\xff\0a", None, "UTF-16"),
            (b"a\0b\0", Some(1), "NUL"),
            (b"ab\xff", Some(2), "not UTF-8"),
            (b"\xef\xbb\xbfa\xff", Some(4), "not UTF-8"),
        ] {
            let wrong = text(bytes).unwrap_err();
            assert!(wrong.at == at && wrong.what.contains(word), "{bytes:?}: {wrong:?}");
        }
    }
}
