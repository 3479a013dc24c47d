//! The command line: parses arguments into a [`Command`].
//!
//! Owns the commands and options, and their help. Refuses unknown ones, and suggests the closest
//! known one. Executes nothing: that is done by `main.rs`. Knows nothing of files, configurations
//! or sockets.

mod help;

use std::{ffi::OsString, path::PathBuf};

use document::nearest;
use lexopt::Arg;

use self::help::{CHECK, CONFIG, DEV, HELP, KEY, PUSH, RUN, SAY, SECRET, STATUS, VERSION};
use crate::{
    client::{Say, Target},
    dev,
    secrets::KeyOptions,
};

/// What the user asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve, with this configuration.
    Run(PathBuf),
    /// Validate this configuration and print its effect.
    Check(PathBuf),
    /// Print the commented default configuration.
    Config,
    /// Make an API key.
    Key(KeyOptions),
    /// Make a secret; in the form of Standard Webhooks if `true`.
    Secret(bool),
    /// Run hub and relay for development.
    Dev(dev::Options),
    /// Run the relay of `dev`, with this configuration: its child process.
    DevRelay(PathBuf),
    /// Send standard input to this topic.
    Push(Target, String),
    /// Publish a message.
    Say(Target, Say),
    /// Print who is connected; as JSON if `true`.
    Status(Target, bool),
    /// Print this help.
    Help(&'static str),
    /// Print the version.
    Version,
}

/// A wrong command line: one line that says what is wrong and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(pub String);

/// A command's name, the options that it takes, and its help.
struct About {
    name: &'static str,
    options: &'static [&'static str],
    help: &'static str,
}

const COMMANDS: [About; 11] = [
    About { name: "dev", options: &["--port", "--api-port", "--json", "--help"], help: DEV },
    About { name: "config", options: &["--help"], help: CONFIG },
    About { name: "key", options: &["--name", "--scopes", "--topics", "--help"], help: KEY },
    About { name: "secret", options: &["--webhook", "--help"], help: SECRET },
    About { name: "check", options: &["--config", "--help"], help: CHECK },
    About { name: "run", options: &["--config", "--help"], help: RUN },
    About { name: "push", options: &["--api", "--key-file", "--ca-file", "--help"], help: PUSH },
    About { name: "say", options: &["--from", "--api", "--key-file", "--ca-file", "--help"], help: SAY },
    About { name: "status", options: &["--json", "--api", "--key-file", "--ca-file", "--help"], help: STATUS },
    About { name: "help", options: &["--help"], help: HELP },
    About { name: "version", options: &["--help"], help: VERSION },
];

/// Parses the arguments, without the program's name.
///
/// # Errors
/// The first error.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let name = match next(&mut parser)? {
        None => {
            return wrong(
                "no command: `sharelink-hub dev` shows what it does, `sharelink-hub --help` lists all commands",
            );
        }
        Some(Word::Option(option)) if option == "-h" || option == "--help" => return Ok(Command::Help(HELP)),
        Some(Word::Option(option)) if option == "-V" || option == "--version" => return Ok(Command::Version),
        Some(Word::Option(option)) => {
            let near = suggestion(&option, ["--help", "--version"]);
            return wrong(&format!("unknown option {option} before a command{near}"));
        }
        Some(Word::Value(name)) => name,
    };
    if name == dev::RELAY {
        // Internal: started by `dev` as its child process.
        return value(&mut parser, dev::RELAY, "FILE").map(|path| Command::DevRelay(path.into()));
    }
    let Some(about) = COMMANDS.iter().find(|about| about.name == name) else {
        let near = suggestion(&name, COMMANDS.iter().map(|about| about.name));
        return wrong(&format!("unknown command {name:?}{near}"));
    };
    options(about, &mut parser)
}

enum Word {
    Option(String),
    Value(String),
}

fn next(parser: &mut lexopt::Parser) -> Result<Option<Word>, UsageError> {
    let word = parser.next().map_err(|error| UsageError(format!("{error}: see `sharelink-hub --help`")))?;
    Ok(word.map(|word| match word {
        Arg::Short(letter) => Word::Option(format!("-{letter}")),
        Arg::Long(name) => Word::Option(format!("--{name}")),
        Arg::Value(value) => Word::Value(value.to_string_lossy().into_owned()),
    }))
}

/// What was given to a command.
#[derive(Default)]
struct Given {
    config: Option<PathBuf>,
    words: Vec<String>,
    name: Option<String>,
    scopes: Option<String>,
    topics: Option<String>,
    from: Option<String>,
    api: Option<String>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    port: Option<u16>,
    api_port: Option<u16>,
    is_json: bool,
    is_for_webhooks: bool,
}

fn options(about: &'static About, parser: &mut lexopt::Parser) -> Result<Command, UsageError> {
    let name = about.name;
    let mut given = Given::default();
    let words_max = match name {
        "say" => 2,
        "push" => 1,
        "help" => 1,
        _ => 0,
    };
    while let Some(word) = next(parser)? {
        let option = match word {
            Word::Option(option) => option,
            Word::Value(value) if given.words.len() < words_max => {
                given.words.push(value);
                continue;
            }
            Word::Value(value) if name == "say" => {
                return wrong(&format!("unexpected {value:?}: put the text in quotes: say TOPIC 'a text'"));
            }
            Word::Value(value) if about.options.contains(&"--config") && given.config.is_none() => {
                return wrong(&format!("unexpected {value:?}: write --config {value}"));
            }
            Word::Value(value) => return wrong(&format!("unexpected {value:?}: see `sharelink-hub {name} --help`")),
        };
        let full = match option.as_str() {
            "-h" => "--help",
            "-c" => "--config",
            "-p" => "--port",
            full => full,
        };
        if !about.options.contains(&full) {
            return match nearest(&option, about.options.iter().copied()) {
                Some(near) => wrong(&format!("unknown option {option} of {name}: did you mean {near}?")),
                None => wrong(&format!("unknown option {option} of {name}: see `sharelink-hub {name} --help`")),
            };
        }
        if full == "--help" {
            return Ok(Command::Help(about.help));
        }
        given.take(full, parser)?;
    }
    given.command(name)
}

impl Given {
    fn take(&mut self, option: &str, parser: &mut lexopt::Parser) -> Result<(), UsageError> {
        let mut text = |form: &str| value(parser, option, form).map(|text| text.to_string_lossy().into_owned());
        match option {
            "--config" => once(&mut self.config, option, text("FILE")?.into()),
            "--name" => once(&mut self.name, option, text("NAME")?),
            "--scopes" => once(&mut self.scopes, option, text("'publish read'")?),
            "--topics" => once(&mut self.topics, option, text("PREFIX")?),
            "--from" => once(&mut self.from, option, text("NAME")?),
            "--api" => once(&mut self.api, option, text("http://127.0.0.1:8090")?),
            "--key-file" => once(&mut self.key_file, option, text("FILE")?.into()),
            "--ca-file" => once(&mut self.ca_file, option, text("FILE")?.into()),
            "--port" => once(&mut self.port, option, port(parser, option)?),
            "--api-port" => once(&mut self.api_port, option, port(parser, option)?),
            "--webhook" => {
                self.is_for_webhooks = true;
                Ok(())
            }
            // `--json`: nothing else is in a command's list.
            _ => {
                self.is_json = true;
                Ok(())
            }
        }
    }

    fn command(self, name: &str) -> Result<Command, UsageError> {
        let target = Target {
            api: self.api.unwrap_or_else(|| format!("http://127.0.0.1:{}", dev::API_PORT)),
            key_file: self.key_file,
            ca_file: self.ca_file,
        };
        match (name, self.config) {
            ("run", Some(config)) => Ok(Command::Run(config)),
            ("check", Some(config)) => Ok(Command::Check(config)),
            ("run" | "check", None) => {
                wrong(&format!("{name} needs --config FILE: `sharelink-hub config > FILE` writes one to start from"))
            }
            ("config", _) => Ok(Command::Config),
            ("key", _) => Ok(Command::Key(KeyOptions {
                name: self.name.unwrap_or_else(|| "backend".to_owned()),
                scopes: self.scopes.unwrap_or_else(|| "publish read".to_owned()),
                topics: self.topics.unwrap_or_default(),
            })),
            ("secret", _) => Ok(Command::Secret(self.is_for_webhooks)),
            ("dev", _) => {
                let pages_port = self.port.unwrap_or(dev::PAGES_PORT);
                let api_port = self.api_port.unwrap_or(dev::API_PORT);
                if pages_port == api_port && pages_port != 0 {
                    return wrong(&format!(
                        "pages and API can't both have port {api_port}: choose another with --port or --api-port"
                    ));
                }
                Ok(Command::Dev(dev::Options { pages_port, api_port, is_json: self.is_json }))
            }
            ("say", _) => match <[String; 2]>::try_from(self.words) {
                Ok([_, text]) if text.trim().is_empty() => {
                    wrong("say needs a text that is not empty: sharelink-hub say demo 'hello'")
                }
                Ok([topic, text]) => Ok(Command::Say(target, Say { topic, text, from: self.from })),
                Err(_) => wrong("say needs a topic and a text: sharelink-hub say demo 'hello'"),
            },
            ("push", _) => match <[String; 1]>::try_from(self.words) {
                Ok([topic]) => Ok(Command::Push(target, topic)),
                Err(_) => wrong("push needs a topic: ffmpeg ... -f mp4 pipe: | sharelink-hub push demo"),
            },
            ("status", _) => Ok(Command::Status(target, self.is_json)),
            ("version", _) => Ok(Command::Version),
            _ => help_on(self.words.first().map(String::as_str)),
        }
    }
}

fn help_on(topic: Option<&str>) -> Result<Command, UsageError> {
    let Some(topic) = topic else { return Ok(Command::Help(HELP)) };
    match COMMANDS.iter().find(|about| about.name == topic) {
        Some(about) => Ok(Command::Help(about.help)),
        None => wrong(&format!("no help on {topic:?}{}", suggestion(topic, COMMANDS.iter().map(|about| about.name)))),
    }
}

fn value(parser: &mut lexopt::Parser, option: &str, form: &str) -> Result<OsString, UsageError> {
    match parser.value() {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => wrong(&format!("{option} needs a value: write {option} {form}")),
    }
}

fn port(parser: &mut lexopt::Parser, option: &str) -> Result<u16, UsageError> {
    let text = value(parser, option, "N")?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(port) => Ok(port),
        None => {
            wrong(&format!("{option} {text:?} is not a port: write a number from 1 to 65535, or 0 for any free one"))
        }
    }
}

fn once<T>(place: &mut Option<T>, option: &str, value: T) -> Result<(), UsageError> {
    if place.replace(value).is_some() { wrong(&format!("{option} is given twice: keep one of them")) } else { Ok(()) }
}

fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(word, known) {
        Some(near) => format!(": did you mean {near}?"),
        None => ": see `sharelink-hub --help`".to_owned(),
    }
}

fn wrong<T>(text: &str) -> Result<T, UsageError> {
    Err(UsageError(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|UsageError(text)| text)
    }

    #[test]
    fn commands_are_read() {
        assert_eq!(parsed("run --config a.toml"), Ok(Command::Run("a.toml".into())));
        assert_eq!(parsed("check -c a.toml"), Ok(Command::Check("a.toml".into())));
        assert_eq!(parsed("config"), Ok(Command::Config));
        let key = |name: &str, scopes: &str, topics: &str| {
            let [name, scopes, topics] = [name, scopes, topics].map(str::to_owned);
            Ok(Command::Key(KeyOptions { name, scopes, topics }))
        };
        assert_eq!(parsed("key"), key("backend", "publish read", ""));
        assert_eq!(parsed("key --name shop --scopes read --topics shop"), key("shop", "read", "shop"));
        assert_eq!(parsed("secret"), Ok(Command::Secret(false)));
        assert_eq!(parsed("secret --webhook"), Ok(Command::Secret(true)));
        let dev = |pages_port, api_port, is_json| Ok(Command::Dev(dev::Options { pages_port, api_port, is_json }));
        assert_eq!(parsed("dev"), dev(8080, 8090, false));
        assert_eq!(parsed("dev --json -p 0 --api-port=0"), dev(0, 0, true));
        let target = Target { api: "http://127.0.0.1:8090".to_owned(), key_file: None, ca_file: None };
        let say = Say { topic: "demo".to_owned(), text: "hello".to_owned(), from: Some("Ann".to_owned()) };
        assert_eq!(parsed("say demo --from Ann hello"), Ok(Command::Say(target.clone(), say)));
        assert_eq!(parsed("status"), Ok(Command::Status(target, false)));
        let far = Target {
            api: "https://hub.example".to_owned(),
            key_file: Some("k".into()),
            ca_file: Some("ca.pem".into()),
        };
        assert_eq!(
            parsed("status --json --api https://hub.example --key-file k --ca-file ca.pem"),
            Ok(Command::Status(far, true))
        );
        for line in ["--version", "-V", "version"] {
            assert_eq!(parsed(line), Ok(Command::Version), "{line}");
        }
        for line in ["--help", "-h", "help", "help help"] {
            assert_eq!(parsed(line), Ok(Command::Help(HELP)), "{line}");
        }
        for line in ["run --help", "run -c x -h", "help run"] {
            assert_eq!(parsed(line), Ok(Command::Help(RUN)), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_comes_with_what_to_write() {
        let cases = [
            ("", "no command: `sharelink-hub dev`"),
            ("rnu", "unknown command \"rnu\": did you mean run?"),
            ("push", "push needs a topic: ffmpeg"),
            ("frobnicate", "unknown command \"frobnicate\": see `sharelink-hub --help`"),
            ("--hepl", "did you mean --help?"),
            ("run", "`sharelink-hub config > FILE`"),
            ("run --config", "write --config FILE"),
            ("run --conifg x", "did you mean --config?"),
            ("run --config a --config b", "given twice"),
            ("run a.toml", "unexpected \"a.toml\": write --config a.toml"),
            ("run --config a b", "unexpected \"b\": see `sharelink-hub run --help`"),
            ("check hub.toml", "unexpected \"hub.toml\": write --config hub.toml"),
            ("config --port 1", "unknown option --port of config"),
            ("dev --port 65536", "is not a port: write a number"),
            ("dev --port 9081 --api-port 9081", "can't both have port 9081"),
            ("say demo", "say needs a topic and a text"),
            ("say demo hello all", "put the text in quotes"),
            ("help rnu", "did you mean run?"),
        ];
        for (line, text) in cases {
            assert!(matches!(parsed(line), Err(error) if error.contains(text)), "{line}: {:?}", parsed(line));
        }
    }

    #[test]
    fn nothing_is_not_said() {
        for text in ["", " "] {
            let said = parse(["say", "room", text].map(OsString::from));
            assert!(matches!(&said, Err(UsageError(error)) if error.contains("a text that is not empty")), "{said:?}");
        }
    }

    #[test]
    fn every_command_and_option_is_in_its_help() {
        for about in &COMMANDS {
            assert!(HELP.contains(&format!("\n  {:<10}", about.name)), "{}", about.name);
            assert!(
                about.name == "version" || about.options.iter().all(|option| about.help.contains(option)),
                "{}",
                about.name
            );
            assert!(about.help.lines().all(|line| line.len() <= 80) && about.help.ends_with('\n'), "{}", about.name);
        }
        assert!(DEV.contains(&format!("[default: {}]", dev::PAGES_PORT)));
        assert!(DEV.contains(&format!("[default: {}]", dev::API_PORT)));
    }
}
