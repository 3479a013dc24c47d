//! What the configuration takes, what it refuses and with which words, and that what `check` prints
//! is the same configuration.
#![cfg(test)]

use std::{collections::BTreeSet, io, os::unix::fs::PermissionsExt as _, path::PathBuf};

use hub::admission;
use sha2::{Digest as _, Sha256};
use sharelinkd::config::certificate_notes::Report;

use super::{numbers::NUMBERS, *};
use crate::ingest::{INIT_SIZE_MAX, SOUND_SIZE_MAX};

/// 32 characters, which are 24 bytes in base64.
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const HASH: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";

/// What the relay's reader of certificates says of a file that it may not read, of one that the
/// service's group may not, and how to keep one from everybody: in its own words.
const CLOSED: &str = "under systemd: `chgrp {GROUP}` and `chmod 640`, as in /etc/sharelinkd/tls";
const UNREADABLE: &str =
    "can't be read by the group {GROUP}, which the service has: `chgrp {GROUP}` it and `chmod 640`";
const EXPOSED: &str = "`chgrp {GROUP}` it and `chmod 640`, and the same with 750 for its directory";

/// On a machine with secrets, certificates and CAs of these names.
fn parse(text: &str) -> Result<Config, Vec<String>> {
    let read_secret = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        Some(name @ ("one" | "two" | "three" | "four" | "five")) => {
            Ok(format!("0123456789abcdef-{name}\r\n").into_bytes())
        }
        Some("hook") => Ok(format!("{WEBHOOK_SECRET}\n").into_bytes()),
        Some("short") => Ok(b"short".to_vec()),
        Some("empty") => Ok(b"\n".to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let wrong = |file: &Path| Err((format!("{} is none", file.display()), "name another".to_owned()));
    let around = Surroundings {
        read_secret: &read_secret,
        resolve: &|name| Path::new("/etc/hub").join(name),
        check_pair: &|chain, _| match chain.file_name().and_then(|name| name.to_str()) {
            Some("chain") => Ok(Report::default()),
            Some("foreign") => {
                let notes = [UNREADABLE, EXPOSED].map(|note| note.replace("{GROUP}", GROUP));
                Ok(Report { notes: notes.into_iter().chain(["it is old".to_owned()]).collect(), ..Report::default() })
            }
            Some("closed") => Err(("it can't be read".to_owned(), CLOSED.replace("{GROUP}", GROUP))),
            _ => wrong(chain).map(|()| Report::default()),
        },
        check_ca: &|file| {
            if file.ends_with("ca") { Ok(vec!["the CA is old".to_owned()]) } else { wrong(file).map(|()| Vec::new()) }
        },
        ..Surroundings::without_files("box")
    };
    let line = |problem: Problem| format!("{}: {}; {}", problem.line, problem.what, problem.remedy);
    Config::parse(text, &around).map_err(|problems| problems.into_iter().map(line).collect())
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{text}: {errors:#?}"))
}

fn errors(text: &str) -> Vec<String> {
    parse(text).err().unwrap_or_default()
}

/// Every key with another value than the default.
fn full() -> String {
    format!(
        r#"
        [api]
        listen = ["0.0.0.0:443", "[::1]:0"]
        certificate_file = "chain"
        key_file = "key"
        trusted_proxies = ["10.0.0.0/8", "::1"]
        keys = [
            {{ name = "shop \"1\"", hash = "{HASH}", scopes = "publish, read", topics = "shop/a" }},
            {{ name = "ops", hash = "sha256:{}", scopes = "admin", topics = "" }},
        ]
        [uplink]
        listen = "0.0.0.0:7401"
        secret_file = ["one", "/run/two"]
        relays = [{{ name = "gate 門", secret_file = "three" }}]
        [uplink.tls]
        certificate_file = "chain"
        key_file = "key"
        ca_file = "ca"
        [links]
        admission = "signed or webhook"
        keys = [{{ id = "7", key_file = "one" }}, {{ id = "0", key_file = "two" }}]
        ttl_s = 60
        grant_ttl_s = 61
        pages_url = "https://share.example/"
        [webhook]
        url = "https://api.example/hook?x=1"
        secret_files = ["hook"]
        timeout_s = 9
        calls_max = 7
        events = false
        ca_file = "ca"
        [pusher]
        app_id = "17"
        key = "shop-1"
        secret_file = ["four", "/run/five"]
        [topics]
        fleet_key_file = "three"
        revocations_file = "revoked"
        history_s = 61
        [limits]
        relays = 3
        [log]
        level = "debug"
        format = "json"
        "#,
        "ab".repeat(32)
    )
}

#[test]
fn nothing_at_all_is_the_default() {
    let config = good("");
    assert_eq!(config.api.listen, ["127.0.0.1:8090".parse().unwrap()]);
    assert_eq!(config.uplink.listen, ["127.0.0.1:7400".parse().unwrap()]);
    assert_eq!((config.links.admission, config.webhook.as_ref()), (admission::Links::Signed, None));
    // Only this machine reaches the relays' listener.
    assert_eq!(config.secrets(), (vec![Vec::new()], vec![None]));
    let notes = config.notes();
    assert!(notes.len() == 4 && notes[0].contains("sharelink-hub key"), "{notes:#?}");
    // Numbers that the machine has as well are the same there.
    let numbers = config.numbers;
    assert_eq!(numbers.engine(), hub::memory::Limits::default());
    let hub = config.hub(&[1; 32]);
    assert_eq!(hub.limits, hub::settings::Limits::default());
    let [a, b] = [&hub.admission, &admission::Settings::default()];
    assert_eq!(
        (a.calls_max, a.waiting_max, a.grants_max, a.ttl_s),
        (b.calls_max, b.waiting_max, b.grants_max, b.ttl_s)
    );
    let shipped = board::ALL.iter().filter(|board| board.name != "tiny");
    let least = shipped.map(|board| board.state.data_size_max.min(board.messages.data_size_max)).min();
    assert_eq!(config.http().limits.json_size_max, least.unwrap() as usize, "what the hub takes, no box may drop");
}

#[test]
fn the_file_as_shipped_is_the_default_commented_or_not() {
    let uncommented: Vec<&str> = Config::default_text()
        .lines()
        .map(|line| {
            let key = line.strip_prefix('#');
            key.filter(|rest| rest.starts_with(|first: char| first.is_ascii_lowercase())).unwrap_or(line)
        })
        .collect();
    assert_eq!(good(Config::default_text()), good(""));
    assert_eq!(good(&uncommented.join("\n")), good(""));
    // It names every key that `check` prints, and in its order.
    let keys = |text: &str| {
        let lines = text.lines().map(str::to_owned);
        let key = |line: String| {
            line.starts_with('[').then(|| line.clone()).or_else(|| Some(line.split_once(" = ")?.0.to_owned()))
        };
        lines
            .filter(|line| line.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
            .filter_map(key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&uncommented.join("\n")), keys(&good("").to_string()));
    assert!(NUMBERS.iter().map(|number| number.key).collect::<BTreeSet<_>>().len() == NUMBERS.len());
}

#[test]
fn what_is_printed_reads_back_and_keeps_the_secrets() {
    let config = good(&full());
    let printed = config.to_string();
    assert!(!printed.contains("hook?x=1"), "a path may hold a secret: {printed}");
    let whole = printed.replace("url = \"https://api.example\"", "url = \"https://api.example/hook?x=1\"");
    assert_eq!(parse(&whole), Ok(config.clone()), "{printed}");
    let other = Config {
        webhook: config.webhook.clone().map(|hook| Webhook { url: hook.url + "2", ..hook }),
        ..config.clone()
    };
    assert_eq!(config.changes(&other), ["webhook.url"]);
    assert_eq!(config.links.pages_url.as_deref(), Some("https://share.example"));
    let secrets = ["0123456789abcdef", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
    let inline = good("[uplink]\nsecret = \"0123456789abcdef\"\n");
    let again = inline.to_string().replace("# secret: set, 16 bytes", "secret = \"0123456789abcdef\"");
    assert_eq!(parse(&again), Ok(inline.clone()));
    for text in
        [printed, format!("{config:?}"), inline.to_string(), format!("{inline:?}"), format!("{:?}", config.hub(&[]))]
    {
        assert!(secrets.iter().all(|secret| !text.contains(secret)), "{text}");
    }
    assert_eq!(parse(&good("").to_string()), Ok(good("")));
}

#[test]
fn keys_become_settings() {
    let config = good(&full());
    let (secrets, owners) = config.secrets();
    assert_eq!(
        secrets,
        [b"0123456789abcdef-one".to_vec(), b"0123456789abcdef-two".to_vec(), b"0123456789abcdef-three".to_vec()]
    );
    assert_eq!(owners, [None, None, Some("gate 門".to_owned())]);
    let http = config.http();
    let [shop, ops] = http.keys.as_slice() else { panic!("{:?}", http.keys) };
    assert_eq!((shop.hash[1], shop.hash[31], shop.below.as_str()), (0x11, 0xff, "shop/a"));
    assert!(shop.scopes.publish && shop.scopes.read && !shop.scopes.admin && ops.scopes.admin);
    let pusher = http.pusher.as_ref().unwrap();
    assert_eq!((pusher.id.as_str(), pusher.key.as_str()), ("17", "shop-1"));
    assert_eq!(pusher.secrets, [b"0123456789abcdef-four".to_vec(), b"0123456789abcdef-five".to_vec()]);
    let admission = config.admission();
    assert_eq!(admission.keys.iter().map(|key| key.id).collect::<Vec<_>>(), [7, 0]);
    assert_eq!((admission.calls_max, admission.ttl_s), (7, 61));
    let webhook = config.webhook.as_ref().unwrap();
    assert_eq!(webhook.secrets[0].secret.bytes().len(), 24);
    assert_eq!(config.hub(&[]).business.limits.relays_max, 3);
    assert_eq!(config.numbers.engine().history_ttl.as_secs(), 61);
    assert_eq!(config.file_notes, ["[uplink.tls] the CA is old", "[webhook] the CA is old"]);
}

#[test]
fn every_error_is_reported_with_its_line_not_only_the_first() {
    let text = "[api]\nlisten = \"localhost:80\"\nplaintext = 1\nkeys = [{ name = \"a\" }]\n[uplink]\nsecret_file = \"none\"\n\
                relays = 5\n[links]\nadmission = \"open\"\nttl_s = 0\n[webhook]\nurl = \"ftp://x\"\n[topics]\nmessages = -1\n\
                [limits]\nrelays = 5000\n[log]\nformat = \"xml\"\n[hub]\nx = 1\n";
    let errors = errors(text);
    let lines: BTreeSet<u32> = errors.iter().map(|text| text.split(':').next().unwrap().parse().unwrap()).collect();
    assert_eq!(lines.into_iter().collect::<Vec<_>>(), [2, 3, 4, 6, 7, 9, 10, 12, 14, 16, 18, 19], "{errors:#?}");
}

#[test]
fn each_error_has_its_remedy() {
    let key = |name: &str, hash: &str, scopes: &str, topics: &str| {
        format!("[api]\nkeys = [{{ name = {name:?}, hash = {hash:?}, scopes = {scopes:?}, topics = {topics:?} }}]")
    };
    let pusher =
        |id: &str, key: &str, file: &str| format!("[pusher]\napp_id = {id:?}\nkey = {key:?}\nsecret_file = {file}");
    let webhook = |url: &str| format!("[webhook]\nsecret_files = \"hook\"\nurl = {url:?}");
    for (text, line, remedy) in [
        (
            "[api]\nlisten = \"0.0.0.0:8090\"".to_owned(),
            2,
            "set certificate_file and key_file below [api], or write plaintext = true",
        ),
        ("[api]\ncertificate_file = \"chain\"".to_owned(), 2, "add key_file below [api]"),
        ("[api]\nkey_file = \"key\"".to_owned(), 2, "add certificate_file below [api]"),
        ("[api]\ncertificate_file = \"other\"\nkey_file = \"key\"".to_owned(), 2, "name another"),
        ("[api]\ntrusted_proxies = \"proxy\"".to_owned(), 2, "10.0.0.0/8"),
        (key("", HASH, "read", ""), 2, "whose key it is"),
        (key("a", "slk_0123", "read", ""), 2, "what `sharelink-hub key` prints: the hash, not the key"),
        (key("a", &HASH[..70], "read", ""), 2, "`sharelink-hub key`"),
        (key("a", &HASH.replace("00", "+0"), "read", ""), 2, "`sharelink-hub key`"),
        (key("a", &HASH.replace("00", "é"), "read", ""), 2, "`sharelink-hub key`"),
        (key("a", HASH, "publsh", ""), 2, "did you mean publish?"),
        (key("a", HASH, "everything", ""), 2, "choose from publish, read, admin"),
        (key("a", HASH, "", ""), 2, "choose from publish"),
        (key("a", HASH, "read", "a b"), 2, "\"\" for all topics"),
        (
            format!(
                "[api]\nkeys = [\n{0},\n{0}]",
                format_args!("{{ name = \"a\", hash = \"{HASH}\", scopes = \"read\", topics = \"\" }}")
            ),
            4,
            "make each its own",
        ),
        ("[uplink]\nlisten = \"0.0.0.0:7400\"\nplaintext = true".to_owned(), 2, "`sharelink-hub secret` makes one"),
        (
            "[uplink]\nlisten = \"0.0.0.0:7400\"\nsecret_file = \"one\"".to_owned(),
            2,
            "below [uplink.tls], or write plaintext = true",
        ),
        ("[uplink]\nsecret = \"a\"\nsecret_file = \"one\"".to_owned(), 2, "keep one of them"),
        ("[uplink]\nsecret_file = [\"one\", \"two\", \"three\"]".to_owned(), 2, "at most two"),
        ("[uplink]\nsecret_file = \"none\"".to_owned(), 2, "an absolute path"),
        ("[uplink]\nsecret_file = \"empty\"".to_owned(), 2, "on one line"),
        ("[uplink]\nsecret_file = [\"one\", \"one\"]".to_owned(), 1, "make one for each"),
        (
            "[uplink]\nsecret_file = \"one\"\nrelays = [{ name = \"a\", secret_file = \"one\" }]".to_owned(),
            1,
            "make one for each",
        ),
        ("[uplink]\nrelays = [{ name = \"\", secret_file = \"one\" }]".to_owned(), 2, "the relay's own [uplink] name"),
        ("[uplink.tls]\nca_file = \"ca\"".to_owned(), 2, "add certificate_file and key_file"),
        ("[uplink]\nlisten = \"127.0.0.1:8090\"".to_owned(), 2, "different ports"),
        ("[log]\n[api]\nlisten = \"127.0.0.1:7400\"".to_owned(), 3, "different ports"),
        ("[links]\nadmission = \"sined\"".to_owned(), 2, "did you mean \"signed\"?"),
        ("[links]\nadmission = \"open\"".to_owned(), 2, "choose one of \"signed\", \"webhook\""),
        ("[links]\nadmission = \"webhook\"".to_owned(), 1, "set url and secret_files below [webhook]"),
        ("[links]\nkeys = [{ id = \"256\", key_file = \"one\" }]".to_owned(), 2, "write id = \"1\""),
        ("[links]\nkeys = [{ id = \"01\", key_file = \"one\" }]".to_owned(), 2, "write id = \"1\""),
        ("[links]\nkeys = [{ id = \"1\", key_file = \"short\" }]".to_owned(), 2, "sharelink-hub secret > FILE"),
        (
            "[links]\nkeys = [{ id = \"1\", key_file = \"one\" }, { id = \"1\", key_file = \"two\" }]".to_owned(),
            2,
            "another number",
        ),
        ("[links]\npages_url = \"share.example\"".to_owned(), 2, "https://share.example"),
        ("[webhook]\nurl = \"https://api.example\"".to_owned(), 2, "sharelink-hub secret --webhook"),
        ("[webhook]\nsecret_files = \"hook\"".to_owned(), 2, "as url below [webhook]"),
        ("[webhook]\nurl = \"https://a\"\nsecret_files = \"one\"".to_owned(), 3, "secret --webhook > FILE"),
        ("[webhook]\nurl = \"https://a\"\nsecret_files = \"hook\"\nca_file = \"none\"".to_owned(), 4, "name another"),
        ("[webhook]\ntimeout_s = 10".to_owned(), 2, "from 1 to 9"),
        (webhook("api.example"), 3, "https://host/path"),
        (webhook("ftp://api.example/"), 3, "https://api.example/sharelink"),
        (webhook("https://user:word@api.example/"), 3, "calls are signed"),
        (webhook("https://api.example/#x"), 3, "remove everything from #"),
        (webhook("http://192.0.2.7/"), 3, "use https://"),
        (webhook("http://[2001:db8::7]/"), 3, "use https://"),
        (webhook("https://169.254.169.254/latest"), 3, "the address of your API"),
        (webhook("https://[fe80::1]/"), 3, "the address of your API"),
        (webhook("https://[::ffff:169.254.169.254]/"), 3, "the address of your API"),
        (webhook("http://0.0.0.0/"), 3, "the address of your API"),
        ("[pusher]\nkey = \"a\"".to_owned(), 2, "add app_id = \"1\" below [pusher]"),
        ("[pusher]\n\nsecret_file = \"one\"".to_owned(), 3, "add app_id = \"1\" below [pusher]"),
        ("[pusher]\nsecret_file = \"one\"\napp_id = \"1\"".to_owned(), 3, "add key = \"shop\""),
        ("[pusher]\nkey = \"a\"\napp_id = \"1\"".to_owned(), 3, "`sharelink-hub secret` makes one"),
        (pusher("a/b", "a", "\"one\""), 2, "write app_id = \"1\""),
        (pusher("1", "slk_0123 4", "\"one\""), 3, "write key = \"1\""),
        (pusher("1", "a", "\"short\""), 4, "sharelink-hub secret > FILE"),
        (pusher("1", "a", "\"none\""), 4, "an absolute path"),
        (pusher("1", "a", "[\"one\", \"two\", \"three\"]"), 4, "at most two"),
        (format!("{}\n[uplink]\nsecret_file = \"one\"", pusher("1", "a", "\"one\"")), 1, "make one for each"),
        (format!("{}\n[topics]\nfleet_key_file = \"one\"", pusher("1", "a", "\"one\"")), 1, "make one for each"),
        (
            // The hash of the secret in the file.
            format!(
                "{}\n[api]\nkeys = [{{ name = \"a\", hash = \"sha256:{}\", scopes = \"read\", topics = \"\" }}]",
                pusher("1", "a", "\"one\""),
                Sha256::digest("0123456789abcdef-one").iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            ),
            1,
            "make one for each",
        ),
        ("[topics]\nfleet_key_file = \"short\"".to_owned(), 2, "sharelink-hub secret > FILE"),
        ("[log]\nlevel = \"loud\"".to_owned(), 2, "choose one of off"),
        ("[log]\nformat = \"xml\"".to_owned(), 2, "choose \"text\""),
        ("[limits]\ntopcs = 1".to_owned(), 2, "topics"),
    ] {
        let errors = errors(&text);
        assert!(!errors.is_empty(), "{text}");
        let is_told = |error: &String| error.starts_with(&format!("{line}: ")) && error.contains(remedy);
        assert!(errors.iter().any(is_told), "{text}: {errors:#?} lack {line} and {remedy:?}");
        assert!(
            errors.iter().all(|error| !error.contains("slk_0123") && !error.contains("sharelinkd config")),
            "{errors:#?}"
        );
    }
}

#[test]
fn private_addresses_and_names_may_be_called_in_clear() {
    for url in [
        "http://127.0.0.1:3000/hook",
        "http://10.1.2.3/",
        "http://[fd00::1]:80/",
        "http://api:3000/",
        "https://192.0.2.7",
    ] {
        let config = good(&format!("[webhook]\nsecret_files = \"hook\"\nurl = {url:?}"));
        assert_eq!(config.webhook.unwrap().url, url);
    }
}

#[test]
fn a_name_that_is_called_in_clear_is_told_of() {
    let is_told = |url: &str| {
        let notes = good(&format!("[webhook]\nsecret_files = \"hook\"\nurl = {url:?}")).notes();
        notes.iter().any(|note| note.contains("public address it is never called") && !note.contains("/hook"))
    };
    assert!(is_told("http://api.example.com/hook"));
    for url in ["http://api:3000/hook", "http://localhost/hook", "http://10.1.2.3/hook", "https://api.example.com/hook"]
    {
        assert!(!is_told(url), "{url}");
    }
}

#[test]
fn listeners_beyond_the_machine_need_tls_or_consent_and_a_secret() {
    let tls = "certificate_file = \"chain\"\nkey_file = \"key\"\n";
    good(&format!("[api]\nlisten = \"0.0.0.0:8090\"\n{tls}"));
    good("[api]\nlisten = \"0.0.0.0:8090\"\nplaintext = true");
    good(&format!("[uplink]\nlisten = \"0.0.0.0:7400\"\nsecret_file = \"one\"\n[uplink.tls]\n{tls}"));
    good("[uplink]\nlisten = \"0.0.0.0:7400\"\nrelays = [{ name = \"a\", secret_file = \"one\" }]\nplaintext = true");
    let short = good("[uplink]\nlisten = \"0.0.0.0:7400\"\nsecret_file = \"short\"\nplaintext = true").notes();
    assert!(short.iter().any(|note| note.contains("a secret has only 5 bytes")), "{short:#?}");
    let dev = good("[links]\nadmission = \"dev\"").notes();
    assert!(dev.iter().any(|note| note.contains("for development alone")), "{dev:#?}");
}

#[test]
fn changed_keys_are_named_and_never_their_values() {
    let changes = |before: &str, after: &str| good(before).changes(&good(after));
    assert_eq!(changes("", ""), [""; 0]);
    assert_eq!(changes("", "[uplink]\nsecret = \"hunter2\""), ["uplink.secret"]);
    assert_eq!(changes("", "[limits]\nrelays = 5\n[log]\nformat = \"json\""), ["limits.relays", "log.format"]);
    let keys = format!("[api]\nkeys = [{{ name = \"a\", hash = \"{HASH}\", scopes = \"read\", topics = \"\" }}]");
    assert_eq!(changes("", &keys), ["api.keys"]);
    // The same files, and another secret in one of them.
    let before = good(&full());
    let mut after = before.clone();
    after.uplink.relays[0].secret.secret = Secret::new(b"another".to_vec());
    after.links.keys[0].key.secret = Secret::new(b"another".to_vec());
    after.pusher.as_mut().unwrap().secrets[0].secret = Secret::new(b"another".to_vec());
    assert_eq!(before.changes(&after), ["links.keys", "pusher.secret_file", "uplink.relays"]);
}

#[test]
fn the_sum_has_every_limit_in_it() {
    let figures = |config: &Config| sum(config);
    let before = good("");
    for number in NUMBERS {
        // Not memory of their own: times, parts of the engine's bound and of the room of answers,
        // what nothing is kept of, and queues of the machine that hold what others count.
        let queues =
            ["topics", "idempotency_keys", "calls", "connections_per_address", "group_kib", "json_kib", "batch_kib"];
        let is_elsewhere = number.section == "topics" || queues.contains(&number.key);
        let text = format!("[{}]\n{} = {}\n", number.section, number.key, number.of(&before.numbers) / 2);
        let changes = figures(&good(&text)) != figures(&before);
        assert_eq!(changes, !is_elsewhere, "{}", number.key);
    }
    // What is there only where it is configured.
    let hook = "[webhook]\nurl = \"https://api.example\"\nsecret_files = \"hook\"\n";
    let tls = "certificate_file = \"chain\"\nkey_file = \"key\"";
    for (before, after) in [
        (String::new(), format!("{hook}events = false")),
        (format!("{hook}events = false"), hook.to_owned()),
        (format!("{hook}calls_max = 32"), format!("{hook}calls_max = 64")),
        (String::new(), "[topics]\nmessages_kib = 100000".to_owned()),
        (String::new(), "[limits]\nbatch_kib = 65536".to_owned()),
        (String::new(), "[topics]\nrevocations_file = \"revoked\"".to_owned()),
        (String::new(), format!("[uplink.tls]\n{tls}")),
        (
            format!("[uplink.tls]\n{tls}"),
            format!("[uplink]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n[uplink.tls]\n{tls}"),
        ),
    ] {
        let total = |text: &str| sum::terms(&good(text)).iter().map(|(_, bytes)| bytes).sum::<usize>();
        assert!(total(&after) > total(&before), "{before:?} {after:?}");
    }
    // An answer is made in the room of all answers.
    let numbers = Numbers { messages_kib: 1024, ..Numbers::default() };
    assert!(numbers.answer_size_max() > 2 << 20, "as it is and as JSON: {}", numbers.answer_size_max());
}

#[test]
fn broken_texts_give_problems_and_never_a_panic() {
    let text = full();
    for (at, _) in text.char_indices().step_by(7) {
        for noise in ["", "[", "\"", "=", "{", "\n", "\0", "é", "1e9"] {
            let (before, after) = text.split_at(at);
            let _ = parse(&format!("{before}{noise}{after}"));
            let _ = parse(&format!("{before}{noise}"));
        }
    }
}

#[test]
fn the_directory_of_revocations_must_be_there() {
    let file = std::env::temp_dir().join(format!("sharelink-hub-directory-{}.toml", std::process::id()));
    std::fs::write(&file, "[topics]\n\nrevocations_file = \"/nowhere/at/all/revoked\"\n").unwrap();
    let errors = Config::load(&file).unwrap_err();
    let _ = std::fs::remove_file(&file);
    let text = errors[0].to_string();
    assert!(errors.len() == 1 && text.contains(":3: ") && text.contains("no directory /nowhere/at/all"), "{text}");
}

#[test]
fn what_a_start_lacks_is_told_in_the_order_of_lines_and_once_the_file_is_good() {
    let folder = Folder::new("order");
    let text = folder.text("[topics]\nrevocations_file = \"gone/revoked\"\n", "https://api.example");
    let loaded = |text: &str| {
        let lines = |errors: Vec<ConfigError>| errors.into_iter().map(|error| error.line).collect::<Vec<_>>();
        Config::load_with(&folder.write(text), None, no_roots).map_err(lines)
    };
    assert_eq!(loaded(&text), Err(vec![2, 4]));
    assert_eq!(loaded(&format!("{text}timeout_s = 0\n")), Err(vec![6]));
}

#[test]
fn a_reload_does_not_need_what_the_hub_has() {
    let folder = Folder::new("reload");
    std::fs::create_dir(folder.0.join("there")).unwrap();
    let at = |directory: &str, url: &str, more: &str| {
        folder.text(&format!("{more}[topics]\nrevocations_file = \"{directory}/revoked\"\n"), url)
    };
    let of_start = at("there", "https://api.example", "");
    let running = Config::load_with(&folder.write(&of_start), None, || Ok(())).unwrap();
    assert_eq!(running.file_notes, [""; 0]);
    std::fs::remove_dir(folder.0.join("there")).unwrap();
    let reload = |text: &str| Config::load_with(&folder.write(text), Some(&running), no_roots);
    // A key is taken away, and another URL is called by the same CAs.
    let taken = reload(&at("there", "https://other.example", "[links]\nttl_s = 60\n")).unwrap();
    let words =
        ["begins with https:, and there are no CAs; install them", "[topics] revocations_file: there is no dir"];
    assert_eq!((taken.links.ttl_s, taken.file_notes.len()), (60, words.len()), "{:?}", taken.file_notes);
    for words in words {
        assert!(taken.file_notes.iter().any(|note| note.contains(words)), "{words}: {:?}", taken.file_notes);
    }
    // What changed is looked at, and a start needs everything.
    let errors = reload(&at("elsewhere", "https://api.example", "")).unwrap_err();
    assert!(errors.len() == 1 && errors[0].what.contains("revocations_file"), "{errors:?}");
    assert_eq!(Config::load_with(&folder.write(&of_start), None, no_roots).unwrap_err().len(), 2);
    let in_clear =
        Config { webhook: running.webhook.clone().map(|hook| Webhook { url: "http://a".into(), ..hook }), ..running };
    let errors = Config::load_with(&folder.write(&of_start), Some(&in_clear), no_roots).unwrap_err();
    assert!(errors.len() == 1 && errors[0].what.contains("there are no CAs"), "{errors:?}");
}

fn no_roots() -> Result<(), Wrong> {
    Err(("there are no CAs".to_owned(), "install them".to_owned()))
}

/// A temporary folder with a webhook's secret.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("sharelink-hub-config-{name}-{}", std::process::id()));
        // A killed process with this number may have left it.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        let hook = folder.join("hook");
        std::fs::write(&hook, WEBHOOK_SECRET).unwrap();
        // Otherwise there is a note.
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self(folder)
    }

    /// A configuration with a webhook, of three lines, behind these.
    fn text(&self, before: &str, url: &str) -> String {
        format!("{before}[webhook]\nurl = {url:?}\nsecret_files = {:?}\n", self.0.join("hook").to_str().unwrap())
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.0.join("hub.toml");
        std::fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_error_of_a_missing_file_names_it() {
    let errors = Config::load(&PathBuf::from("/nowhere/hub.toml")).unwrap_err();
    let line = errors[0].to_string();
    assert!(
        errors.len() == 1
            && line.starts_with("/nowhere/hub.toml: can't be read: ")
            && line.contains("sharelink-hub config"),
        "{line}"
    );
}

#[test]
fn every_configuration_and_command_in_the_document_is_good() {
    let text = include_str!("../../../docs/hub.md");
    let read_secret = |path: &Path| match path.to_str() {
        Some(path) if path.contains("webhook") => Ok(format!("{WEBHOOK_SECRET}\n").into_bytes()),
        Some(path) => Ok(format!("a secret of {path}\n").into_bytes()),
        None => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let around = Surroundings {
        read_secret: &read_secret,
        check_pair: &|_, _| Ok(Report::default()),
        check_ca: &|_| Ok(Vec::new()),
        ..Surroundings::without_files("box")
    };
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let is_hub = |block: &&str| block.contains("[api]") || block.contains("[pusher]");
    let (hubs, relays): (Vec<&str>, Vec<&str>) = blocks.into_iter().partition(is_hub);
    assert_eq!((hubs.len(), relays.len()), (3, 1));
    for block in hubs {
        let block = block.replace("sha256:5d7c...", HASH);
        if let Err(problems) = Config::parse(&block, &around) {
            panic!("{block}: {problems:#?}");
        }
    }
    let relay = sharelinkd::config::Config::parse(relays[0], board::SELECTED, &around);
    assert!(relay.is_ok(), "{relay:?}");
    let mut calls = 0;
    for line in text.split('`').skip(1).step_by(2).flat_map(str::lines) {
        // Where the program itself is called, by whatever path.
        let Some((before, call)) = line.split_once("sharelink-hub ") else { continue };
        if before.contains(' ') {
            continue;
        }
        let words = call.split(['>', '|']).next().unwrap().split_whitespace().map(std::ffi::OsString::from);
        let parsed = crate::cli::parse(words);
        assert!(parsed.is_ok(), "{line}: {parsed:?}");
        calls += 1;
    }
    assert!(calls >= 8, "{calls}");
}

#[test]
fn the_group_of_the_relays_service_is_not_the_hubs() {
    let api = |chain: &str| parse(&format!("[api]\ncertificate_file = \"{chain}\"\nkey_file = \"key\"\n"));
    let exposed = "[api] `chgrp sharelink-hub` it and `chmod 640`, and the same with 750 for its directory";
    assert_eq!(api("foreign").unwrap().file_notes, [exposed, "[api] it is old"]);
    let refused = api("closed").unwrap_err().concat();
    assert!(refused.ends_with("; under systemd: `chgrp sharelink-hub` and `chmod 640`"), "{refused}");
    let source = include_str!("../../../src/config/certificates.rs");
    for words in [CLOSED, UNREADABLE, &format!("\"{EXPOSED}\"")] {
        assert!(source.contains(words), "{words}");
    }
}

#[test]
fn what_comes_in_as_shipped_fits_every_box() {
    let numbers = Numbers::default();
    let [chunk, group] = [numbers.chunk_kib, numbers.group_kib].map(|kib| kib << 10);
    for board in board::ALL.iter().filter(|board| board.name != "tiny") {
        assert!(chunk <= board.video.data_size_max, "{}", board.name);
        assert!(SOUND_SIZE_MAX <= board.audio.data_size_max as usize, "{}", board.name);
        assert!(INIT_SIZE_MAX <= board.init.data_size_max as usize, "{}", board.name);
        // Two seconds with a chunk each 50 ms, none of which fills its last block.
        let rounding = 40 * board.block_size / 2;
        assert!(group + rounding <= board.video.blocks_max * board.block_size, "{}", board.name);
    }
}
