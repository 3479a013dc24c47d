//! Certificates that change while the relay runs: by SIGHUP, and by a look at their files once a
//! minute.
//!
//! A look follows links and compares what it finds with the files that were read last, so a rename,
//! another target of a link or of a directory's link, and a file that was written in place are all
//! seen. Owns the pairs in force, and why their files can't be used. A pair is read and matched as
//! a whole before anything changes; a bad one changes nothing, and holds up no other. In the middle
//! of a renewal the files may not match: that is reported if the next look finds it too. Pages keep
//! their keys, and clients their tickets. The files are small and local, and are read between two
//! turns: they must be on a file system that answers at once, which nothing here can check.

use std::fs;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use smol::Timer;

use super::Server;
use super::handshake::{Acceptor, Failed};
use crate::certificate::{Served, Summary};
use crate::clock;
use crate::config::Wrong;
use crate::config::certificate_notes;
use crate::config::certificates::{Pair, load};
use crate::config::{CertificateFiles, MinVersion, Tls};
use crate::daemon::Daemon;

/// Interval of the looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Bytes of the reason why files can't be used that are kept, at most: paths may be long.
const TROUBLE_SIZE_MAX: usize = 400;

/// The pairs in force, in the order of the configuration.
#[derive(Clone)]
pub struct Certificates {
    rows: Vec<Row>,
    /// The same, as the console shows them.
    served: Vec<Served>,
}

#[derive(Clone)]
struct Row {
    files: CertificateFiles,
    pair: Pair,
    /// The files when the pair was read.
    stamps: [Option<Stamp>; 2],
    /// The stamps were the same at two readings. A file that changes twice within one tick of the
    /// kernel's clock may keep its stamp, so the first reading isn't the last.
    is_settled: bool,
    trouble: Trouble,
}

/// Whether the files can be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    /// Not at the last look: a renewal may be in progress.
    New,
    /// Not at the last two looks; the reason.
    Lasting(String),
}

/// A file as the kernel identifies it. Whatever writes to a file changes its ctime, and nobody can
/// set that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Looked {
    /// Nothing new.
    Same,
    /// The files can be used again, and hold the pair in force.
    Mended,
    /// Another pair.
    Replaced,
    /// The files can't be used.
    Bad,
}

impl Certificates {
    /// Reads all pairs.
    ///
    /// # Errors
    /// What is wrong with each bad one, and its line in the configuration.
    pub fn of(files: &[CertificateFiles]) -> Result<Self, Vec<(u32, Wrong)>> {
        let (mut rows, mut wrong) = (Vec::with_capacity(files.len()), Vec::new());
        for files in files {
            match Row::of(files) {
                Ok(row) => rows.push(row),
                Err(what) => wrong.push((files.line, what)),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut certificates = Self { rows, served: Vec::new() };
        certificates.show();
        Ok(certificates)
    }

    /// The pairs, for handshakes.
    pub fn pairs(&self) -> Vec<Pair> {
        self.rows.iter().map(|row| row.pair.clone()).collect()
    }

    /// What the console shows.
    pub fn served(&self) -> &[Served] {
        &self.served
    }

    fn is_same_as(&self, other: &Self) -> bool {
        let same = |(one, two): (&Row, &Row)| one.pair.is_same_as(&two.pair);
        self.rows.len() == other.rows.len() && self.rows.iter().zip(&other.rows).all(same)
    }

    /// Looks at the files of each pair, and reads those that have changed. Somebody who asked is
    /// told at once what is wrong, and doesn't want the stamps to be believed.
    fn look(&mut self, is_asked: bool) -> Vec<Looked> {
        let looked: Vec<Looked> = self.rows.iter_mut().map(|row| row.look(is_asked)).collect();
        if looked.iter().any(|looked| *looked != Looked::Same) {
            self.show();
        }
        looked
    }

    fn show(&mut self) {
        let served = |row: &Row| Served {
            file: row.files.certificate_file.display().to_string(),
            summary: Summary::of(row.pair.chain()).ok(),
            trouble: match &row.trouble {
                Trouble::Lasting(why) => Some(why.clone()),
                Trouble::None | Trouble::New => None,
            },
        };
        self.served = self.rows.iter().map(served).collect();
    }
}

impl Row {
    fn of(files: &CertificateFiles) -> Result<Self, Wrong> {
        // Before the reading: a change during it is seen by the next look.
        let before = stamps(files);
        let pair = load(&files.certificate_file, &files.key_file)?;
        if stamps(files) != before {
            let what = format!("{} or its key changed while it was read", files.certificate_file.display());
            return Err((what, "wait until both are written".to_owned()));
        }
        let stamps = before;
        // What the check said of the files before is the configuration's.
        let files = CertificateFiles { notes: Vec::new(), about: String::new(), ..files.clone() };
        Ok(Self { files, pair, stamps, is_settled: false, trouble: Trouble::None })
    }

    fn look(&mut self, is_asked: bool) -> Looked {
        let is_calm = self.trouble == Trouble::None;
        if is_calm && !is_asked && self.is_settled && stamps(&self.files) == self.stamps {
            return Looked::Same;
        }
        match Self::of(&self.files) {
            Ok(read) => {
                let before = mem::replace(self, read);
                self.is_settled = self.stamps == before.stamps;
                match before.trouble {
                    _ if !before.pair.is_same_as(&self.pair) => Looked::Replaced,
                    Trouble::Lasting(_) => Looked::Mended,
                    Trouble::None | Trouble::New => Looked::Same,
                }
            }
            Err(_) if is_calm && !is_asked => {
                self.trouble = Trouble::New;
                Looked::Same
            }
            Err((what, remedy)) => {
                let mut why = format!("{what}; {remedy}");
                why.truncate(why.floor_char_boundary(TROUBLE_SIZE_MAX));
                let why = Trouble::Lasting(why);
                if mem::replace(&mut self.trouble, why.clone()) == why && !is_asked {
                    Looked::Same
                } else {
                    Looked::Bad
                }
            }
        }
    }
}

fn stamps(files: &CertificateFiles) -> [Option<Stamp>; 2] {
    [&files.certificate_file, &files.key_file].map(|file| stamp(file))
}

/// The file that a path leads to; `None` if it leads to none, or can't be followed.
fn stamp(path: &Path) -> Option<Stamp> {
    let found = fs::metadata(path).ok()?;
    Some(Stamp {
        device: found.dev(),
        inode: found.ino(),
        size: found.size(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

impl Server {
    /// Looks at the files of the certificates in force, and takes what has changed. `is_asked`:
    /// somebody waits for it, and wants to be told of all that is wrong now.
    pub fn look(&self, is_asked: bool) {
        let mut fresh = self.certificates.borrow().clone();
        let looked = fresh.look(is_asked);
        if looked.contains(&Looked::Replaced)
            && let Err(failed) = self.replace_acceptor(&fresh, self.min_version.get())
        {
            log::error!("[tls] the certificates stay as they were: {failed}");
            return;
        }
        self.count(|counts| counts.reloads += u64::from(looked.contains(&Looked::Replaced)));
        for (row, looked) in fresh.rows.iter().zip(looked) {
            self.report(row, &looked);
        }
        *self.certificates.borrow_mut() = fresh;
    }

    fn report(&self, row: &Row, looked: &Looked) {
        let file = &row.files.certificate_file;
        match (looked, &row.trouble) {
            (Looked::Replaced, _) => {
                let report = certificate_notes::report(&row.pair, file, clock::wall_s());
                log::info!("[tls] certificates: {} has changed and is in use now: {}", file.display(), report.about);
                for note in report.notes {
                    log::warn!("[tls] certificates: {note}");
                }
            }
            (Looked::Mended, _) => {
                log::info!("[tls] certificates: {} can be used again, and has not changed", file.display());
            }
            (Looked::Bad, Trouble::Lasting(why)) => {
                self.count(|counts| counts.reloads_failed += 1);
                log::warn!("[tls] certificates: {why}; the previous certificate stays in use");
            }
            _ => {}
        }
    }

    /// Takes another configuration: its certificates, and the lowest version.
    ///
    /// # Errors
    /// What is wrong with each bad pair, and its line, or 0; nothing has changed.
    pub fn take(&self, tls: &Tls) -> Result<(), Vec<(u32, Wrong)>> {
        let fresh = Certificates::of(&tls.certificates)?;
        let is_other = !fresh.is_same_as(&self.certificates.borrow());
        if is_other || self.min_version.get() != tls.min_version {
            self.replace_acceptor(&fresh, tls.min_version).map_err(|failed| {
                vec![(0, (format!("no handshake can be prepared: {failed}"), "reload again".into()))]
            })?;
            self.min_version.set(tls.min_version);
            self.count(|counts| counts.reloads += u64::from(is_other));
            let running = self.certificates.borrow();
            for (index, row) in fresh.rows.iter().enumerate() {
                if !running.rows.get(index).is_some_and(|before| before.pair.is_same_as(&row.pair)) {
                    log::info!("[tls] certificates: {} is in use now", row.files.certificate_file.display());
                }
            }
        }
        *self.certificates.borrow_mut() = fresh;
        Ok(())
    }

    /// New handshakes have these certificates from now on, and the tickets of the previous ones.
    fn replace_acceptor(&self, certificates: &Certificates, min_version: MinVersion) -> Result<(), Failed> {
        let fresh = Acceptor::new(&certificates.pairs(), min_version, Some(&self.acceptor.borrow()))?;
        *self.acceptor.borrow_mut() = fresh;
        Ok(())
    }
}

/// Looks at the files of the certificates for as long as the daemon runs.
pub(in crate::daemon) async fn watch(daemon: Rc<Daemon>, every: Duration) {
    let Some(server) = &daemon.tls else { return };
    loop {
        Timer::after(every).await;
        server.look(false);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, rename, write};
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use smol::{LocalExecutor, future};

    use super::super::super::{listen, systemd};
    use super::*;
    use crate::clock::Clock;
    use crate::config::certificate_notes::Report;
    use crate::config::certificates::tests::{Folder, P256};
    use crate::config::{Config, Surroundings};
    use crate::console::TlsCounts;
    use board::HOST;

    /// A folder with the pairs `a`, `b` and `c`.
    fn folder() -> Folder {
        let folder = Folder::new();
        for name in ["a", "b", "c"] {
            folder.pair(name, P256);
        }
        folder
    }

    /// Writes another pair into these files, in place. Each time with another size, since all may
    /// happen within a tick of the kernel's clock.
    fn put(folder: &Folder, name: &str, certificate: &str, key: &str) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let end = "\n".repeat(COUNT.fetch_add(1, Ordering::Relaxed));
        for (to, from) in [(certificate, format!("{name}.pem")), (key, format!("{name}.key"))] {
            write(folder.path(to), fs::read_to_string(folder.path(&from)).unwrap() + &end).unwrap();
        }
    }

    /// A configuration with these pairs of files.
    fn config(folder: &Folder, pairs: &[(&str, &str)], version: &str) -> Config {
        let pair = |(certificate, key): &(&str, &str)| {
            let (certificate, key) = (folder.path(certificate), folder.path(key));
            format!("{{ certificate_file = \"{}\", key_file = \"{}\" }}", certificate.display(), key.display())
        };
        let pairs: Vec<String> = pairs.iter().map(pair).collect();
        let text = format!(
            "[tls]\nlisten = \"127.0.0.1:0\"\nmin_version = \"{version}\"\ncertificates = [{}]\n",
            pairs.join(", ")
        );
        let around = Surroundings { check_pair: &|_, _| Ok(Report::default()), ..Surroundings::without_files("box") };
        Config::parse(&text, &HOST, &around).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn server(folder: &Folder, pairs: &[(&str, &str)]) -> Server {
        let tls = config(folder, pairs, "1.2").tls.unwrap();
        Server::new(&tls, &HOST, Clock::start()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Names of the certificates in force, by their first label, and the figures of reloads.
    fn state(server: &Server) -> (String, u64, u64) {
        let TlsCounts { reloads, reloads_failed, .. } = server.counts();
        let certificates = server.certificates();
        let names =
            certificates.served().iter().map(|served| served.summary.as_ref().unwrap().names.replace(".example", ""));
        (names.collect::<Vec<_>>().join(" "), reloads, reloads_failed)
    }

    fn trouble(server: &Server, index: usize) -> Option<String> {
        server.certificates().served()[index].trouble.clone()
    }

    #[test]
    fn whatever_way_files_change_the_next_look_sees_it() {
        let folder = folder();
        for name in ["archive-1", "archive-2", "live"] {
            create_dir(folder.path(name)).unwrap();
        }
        put(&folder, "a", "archive-1/chain.pem", "archive-1/privkey.pem");
        put(&folder, "b", "archive-2/chain.pem", "archive-2/privkey.pem");
        for file in ["chain.pem", "privkey.pem"] {
            // certbot: links in a directory that stays, to files that are never written again.
            symlink(format!("../archive-1/{file}"), folder.path(&format!("live/{file}"))).unwrap();
        }
        symlink("archive-1", folder.path("current")).unwrap();
        put(&folder, "a", "in-place.pem", "in-place.key");
        put(&folder, "a", "renamed.pem", "renamed.key");
        // A link that stays, to a link that changes.
        create_dir(folder.path("behind")).unwrap();
        for (link, file) in [("outer.pem", "chain.pem"), ("outer.key", "privkey.pem")] {
            symlink(format!("../archive-1/{file}"), folder.path(&format!("behind/{file}"))).unwrap();
            symlink(format!("behind/{file}"), folder.path(link)).unwrap();
        }
        let changes: [(&str, &str, &dyn Fn()); 5] = [
            ("outer.pem", "outer.key", &|| {
                for file in ["chain.pem", "privkey.pem"] {
                    symlink(format!("../archive-2/{file}"), folder.path("new")).unwrap();
                    rename(folder.path("new"), folder.path(&format!("behind/{file}"))).unwrap();
                }
            }),
            ("in-place.pem", "in-place.key", &|| put(&folder, "b", "in-place.pem", "in-place.key")),
            ("renamed.pem", "renamed.key", &|| {
                put(&folder, "b", "new.pem", "new.key");
                rename(folder.path("new.pem"), folder.path("renamed.pem")).unwrap();
                rename(folder.path("new.key"), folder.path("renamed.key")).unwrap();
            }),
            ("live/chain.pem", "live/privkey.pem", &|| {
                for file in ["chain.pem", "privkey.pem"] {
                    symlink(format!("../archive-2/{file}"), folder.path("new")).unwrap();
                    rename(folder.path("new"), folder.path(&format!("live/{file}"))).unwrap();
                }
            }),
            ("current/chain.pem", "current/privkey.pem", &|| {
                symlink("archive-2", folder.path("new")).unwrap();
                rename(folder.path("new"), folder.path("current")).unwrap();
            }),
        ];
        for (certificate, key, change) in changes {
            let server = server(&folder, &[(certificate, key)]);
            for _ in 0..3 {
                server.look(false);
            }
            assert_eq!(state(&server), ("a".to_owned(), 0, 0), "{certificate}: nothing has changed");
            change();
            server.look(false);
            assert_eq!(state(&server), ("b".to_owned(), 1, 0), "{certificate}");
            for _ in 0..3 {
                server.look(false);
            }
            assert_eq!(state(&server), ("b".to_owned(), 1, 0), "{certificate}: once");
        }
    }

    #[test]
    fn a_file_that_changes_within_a_tick_of_its_reading_is_read_again() {
        let folder = folder();
        put(&folder, "a", "x.pem", "x.key");
        let server = server(&folder, &[("x.pem", "x.key")]);
        put(&folder, "b", "x.pem", "x.key");
        // As if the kernel's clock had not ticked, and the sizes were the same.
        let now = stamps(&server.certificates().rows[0].files);
        server.certificates.borrow_mut().rows[0].stamps = now;
        server.look(false);
        assert_eq!(state(&server).0, "b");
    }

    #[test]
    fn half_of_a_renewal_is_waited_for_and_then_reported_until_it_is_whole() {
        let folder = folder();
        put(&folder, "a", "x.pem", "x.key");
        let server = server(&folder, &[("x.pem", "x.key")]);
        let copy = |from: &str, to: &str| write(folder.path(to), fs::read(folder.path(from)).unwrap()).unwrap();
        // Only one file has changed when the first look comes.
        copy("b.pem", "x.pem");
        server.look(false);
        assert_eq!((state(&server), trouble(&server, 0)), (("a".to_owned(), 0, 0), None));
        copy("b.key", "x.key");
        server.look(false);
        assert_eq!((state(&server), trouble(&server, 0)), (("b".to_owned(), 1, 0), None));
        // Again, and it stays so.
        copy("c.key", "x.key");
        server.look(false);
        assert_eq!(trouble(&server, 0), None);
        for _ in 0..3 {
            server.look(false);
            let why = trouble(&server, 0).unwrap();
            let expected = format!(
                "key_file {} does not match certificate_file {}; name the key",
                folder.path("x.key").display(),
                folder.path("x.pem").display()
            );
            assert!(why.starts_with(&expected), "{why}");
            assert_eq!(state(&server), ("b".to_owned(), 1, 1), "reported once");
        }
        copy("c.pem", "x.pem");
        server.look(false);
        assert_eq!((state(&server), trouble(&server, 0)), (("c".to_owned(), 2, 1), None));
    }

    #[test]
    fn a_file_that_is_missing_or_damaged_is_reported_and_then_as_before() {
        let folder = folder();
        put(&folder, "a", "x.pem", "x.key");
        let server = server(&folder, &[("x.pem", "x.key")]);
        rename(folder.path("x.key"), folder.path("away")).unwrap();
        server.look(false);
        assert_eq!(trouble(&server, 0), None);
        server.look(false);
        assert!(trouble(&server, 0).is_some_and(|why| why.contains("x.key can't be read: No such file")));
        let text = fs::read_to_string(folder.path("x.pem")).unwrap();
        write(folder.path("x.pem"), &text[..text.len() / 2]).unwrap();
        server.look(false);
        assert!(trouble(&server, 0).is_some_and(|why| why.contains("x.pem is damaged")), "another reason");
        put(&folder, "a", "x.pem", "x.key");
        server.look(false);
        assert_eq!((state(&server), trouble(&server, 0)), (("a".to_owned(), 0, 2), None));
    }

    #[test]
    fn a_bad_pair_holds_up_no_other_and_who_asks_is_told_at_once() {
        let folder = folder();
        for file in ["x", "y"] {
            put(&folder, "a", &format!("{file}.pem"), &format!("{file}.key"));
        }
        let server = server(&folder, &[("x.pem", "x.key"), ("y.pem", "y.key")]);
        put(&folder, "b", "x.pem", "away");
        put(&folder, "c", "y.pem", "y.key");
        server.look(true);
        assert_eq!(state(&server), ("a c".to_owned(), 1, 1));
        assert!(trouble(&server, 0).is_some() && trouble(&server, 1).is_none());
        server.look(true);
        assert_eq!(state(&server), ("a c".to_owned(), 1, 2), "each time");
    }

    #[test]
    fn another_configuration_is_taken_as_a_whole_or_not_at_all() {
        let folder = folder();
        let server = server(&folder, &[("a.pem", "a.key")]);
        let take = |pairs: &[(&str, &str)], version| server.take(&config(&folder, pairs, version).tls.unwrap());
        let wrong = take(&[("b.pem", "b.key"), ("c.pem", "a.key"), ("none", "c.key")], "1.3").unwrap_err();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(
            wrong[0].0 == 4 && wrong[0].1.0.contains("does not match") && wrong[1].1.0.contains("none can't be read")
        );
        assert_eq!((state(&server), server.min_version.get()), (("a".to_owned(), 0, 0), MinVersion::V12));
        assert_eq!(take(&[("b.pem", "b.key"), ("c.pem", "c.key")], "1.2"), Ok(()));
        assert_eq!(state(&server), ("b c".to_owned(), 1, 0));
        assert_eq!(take(&[("b.pem", "b.key"), ("c.pem", "c.key")], "1.2"), Ok(()));
        assert_eq!(state(&server), ("b c".to_owned(), 1, 0), "the same is no other acceptor");
        assert_eq!(take(&[("b.pem", "b.key"), ("c.pem", "c.key")], "1.3"), Ok(()));
        assert_eq!((state(&server).1, server.min_version.get()), (1, MinVersion::V13), "the certificates are the same");
    }

    #[test]
    fn the_files_are_looked_at_for_as_long_as_the_daemon_runs() {
        let folder = folder();
        put(&folder, "a", "x.pem", "x.key");
        let listeners = listen::Listeners::default();
        let config = config(&folder, &[("x.pem", "x.key")], "1.2");
        let daemon = Daemon::new(config, None, &listeners, &listeners, systemd::Notify::default()).unwrap();
        let executor = LocalExecutor::new();
        let _watch = executor.spawn(watch(Rc::clone(&daemon), Duration::from_millis(1)));
        let in_force = || daemon.look(|view| view.tls.unwrap().certificates[0].summary.clone().unwrap().names);
        assert_eq!(in_force(), "a.example");
        let changes = async {
            for name in ["b", "c", "a"] {
                put(&folder, name, "x.pem", "x.key");
                while in_force() != format!("{name}.example") {
                    Timer::after(Duration::from_millis(1)).await;
                }
            }
        };
        let late = async {
            Timer::after(Duration::from_secs(20)).await;
            panic!("nobody looks");
        };
        smol::block_on(executor.run(future::or(changes, late)));
    }
}
