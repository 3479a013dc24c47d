//! Revocations on disk: with the engine `memory`, a revoked link stays revoked over a restart.
//!
//! Owns one file: a line for each revocation, with the link's hash, its end (seconds since 1970)
//! and the reason as JSON. A line is on the disk before the revocation is acknowledged. Once the
//! file has doubled, it is written anew without what has run out and what a later line repeats.
//! Refuses lines of another form, of which the log says so: a line that was cut by a crash is not
//! lost in silence. Holds no links.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use hub::engine::LinkHash;
use sharelinkd::config::file;
use wire::REASON_SIZE_MAX;

/// Up to this size the file only grows, in bytes.
const SIZE_MIN: u64 = 1 << 20;
/// A larger file is not one of ours, in bytes.
const SIZE_MAX: u64 = 16 << 30;

/// A revocation: the link's hash, the reason, and its end, in seconds since 1970.
pub type Row = (LinkHash, Arc<str>, u64);

/// The file.
pub struct Revocations {
    path: PathBuf,
    file: File,
    size: u64,
    /// The size above which it is written anew before it grows, in bytes.
    renewal_size: u64,
}

impl Revocations {
    /// Opens the file, creates it if there is none, and reads what is still in force.
    ///
    /// # Errors
    /// It can't be read or written.
    pub fn open(path: &Path, now_s: u64) -> io::Result<(Self, Vec<Row>)> {
        let bytes = match file::read(path, SIZE_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(&bytes);
        let (mut rows, mut bad) = (BTreeMap::<LinkHash, (Arc<str>, u64)>::new(), 0);
        for line in text.lines() {
            match parse(line) {
                Some((link, reason, end_s)) if end_s > now_s => {
                    let row = rows.entry(link).or_insert((reason, end_s));
                    row.1 = row.1.max(end_s);
                }
                Some(_) => {}
                None => bad += 1,
            }
        }
        if bad > 0 {
            log::warn!("{}: {bad} line(s) are no revocations, and are left out", path.display());
        }
        // Written anew, so that what has run out goes; as a whole, or the old file stays.
        let rows: Vec<Row> = rows.into_iter().map(|(link, (reason, end_s))| (link, reason, end_s)).collect();
        let text: String = rows.iter().map(line).collect();
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // Otherwise the old file may be back after a crash, without the lines to come.
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
        let size = text.len() as u64;
        let renewal_size = (2 * size).max(SIZE_MIN);
        Ok((Self { path: path.to_owned(), file, size, renewal_size }, rows))
    }

    /// Writes a revocation down; on return it is on the disk.
    ///
    /// # Errors
    /// It is not.
    pub fn keep(&mut self, row: &Row, now_s: u64) -> io::Result<()> {
        if self.size > self.renewal_size {
            let (anew, _) = Self::open(&self.path, now_s)?;
            *self = anew;
        }
        let line = line(row);
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data());
        // A line may be there in part: the next one goes into a new file.
        self.size = if written.is_ok() { self.size + line.len() as u64 } else { u64::MAX };
        written
    }

    /// From now on nothing can be written to it, as on a full disk.
    #[cfg(test)]
    pub fn fill(&mut self) {
        if let Ok(full) = OpenOptions::new().write(true).open("/dev/full") {
            self.file = full;
        }
    }
}

fn line((link, reason, end_s): &Row) -> String {
    let mut line = String::new();
    link.iter().for_each(|byte| {
        let _ = write!(line, "{byte:02x}");
    });
    // Texts always have a JSON.
    let reason = serde_json::to_string(&**reason).unwrap_or_default();
    let _ = writeln!(line, " {end_s} {reason}");
    line
}

fn parse(line: &str) -> Option<Row> {
    let mut parts = line.splitn(3, ' ');
    let [hash, end_s, reason] = [parts.next()?, parts.next()?, parts.next()?];
    let reason: String = serde_json::from_str(reason).ok()?;
    let mut link = [0; 32];
    if hash.len() != 64 || !hash.is_ascii() || reason.len() > REASON_SIZE_MAX {
        return None;
    }
    for (place, byte) in link.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hash.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some((link, reason.into(), end_s.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::env::temp_dir;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = temp_dir().join(format!("sharelink-hub-{name}-{}", std::process::id()));
        // A killed process with this number may have left it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        folder
    }

    fn row(link: u8, end_s: u64) -> Row {
        ([link; 32], "it \"leaked\"\nas 图片".into(), end_s)
    }

    #[test]
    fn what_was_written_is_read_until_it_has_run_out() {
        let folder = folder("revocations");
        let path = folder.join("revocations");
        let (mut file, rows) = Revocations::open(&path, 100).unwrap();
        assert!(rows.is_empty());
        file.keep(&row(1, 200), 100).unwrap();
        file.keep(&row(2, 300), 100).unwrap();
        let (mut file, rows) = Revocations::open(&path, 150).unwrap();
        assert_eq!(rows, [row(1, 200), row(2, 300)]);
        file.keep(&row(3, 400), 150).unwrap();
        let (_, rows) = Revocations::open(&path, 200).unwrap();
        assert_eq!(rows, [row(2, 300), row(3, 400)]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2, "the first is gone from the file");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_repeated_does_not_make_it_grow_for_ever() {
        let folder = folder("repeated");
        let path = folder.join("revocations");
        let (mut file, _) = Revocations::open(&path, 100).unwrap();
        for end_s in 200..300 {
            file.renewal_size = 1000;
            file.keep(&row(1, end_s), 100).unwrap();
        }
        assert!(fs::metadata(&path).unwrap().len() < 2000);
        assert_eq!(Revocations::open(&path, 100).unwrap().1, [row(1, 299)], "the latest end holds");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_was_cut_costs_no_other() {
        let folder = folder("cut");
        let path = folder.join("revocations");
        let whole = line(&row(1, 200));
        for size in 0..whole.len() - 1 {
            fs::write(&path, format!("{}{}", line(&row(7, 300)), &whole[..whole.floor_char_boundary(size)])).unwrap();
            let (mut file, rows) = Revocations::open(&path, 100).unwrap();
            assert_eq!(rows, [row(7, 300)], "{size}");
            file.keep(&row(8, 300), 100).unwrap();
            assert_eq!(Revocations::open(&path, 100).unwrap().1, [row(7, 300), row(8, 300)], "{size}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        assert!(Revocations::open(Path::new("/nowhere/revocations"), 0).is_err());
        assert!(Revocations::open(Path::new("/dev/null"), 0).is_err());
    }

    #[test]
    fn after_a_write_that_failed_the_next_one_begins_a_new_file() {
        let folder = folder("full");
        let path = folder.join("revocations");
        let (mut file, _) = Revocations::open(&path, 100).unwrap();
        file.keep(&row(1, 300), 100).unwrap();
        file.fill();
        assert!(file.keep(&row(2, 300), 100).is_err());
        file.keep(&row(3, 300), 100).unwrap();
        assert_eq!(Revocations::open(&path, 100).unwrap().1, [row(1, 300), row(3, 300)]);
        fs::remove_dir_all(folder).unwrap();
    }
}
