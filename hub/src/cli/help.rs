//! The texts of `--help`, one for each command.
//!
//! At most 80 columns wide. A test compares them with the options that `cli.rs` knows, and the
//! defaults in them with the code's.

pub const HELP: &str = "\
sharelink-hub takes what your back end publishes over HTTP, and shows it by
relays on share pages.

Usage: sharelink-hub COMMAND [OPTIONS]

Commands:
  dev       Hub and relay on this machine, nothing to install: try this first
  config    Print a commented configuration to start from
  key       Make a key for the API
  secret    Make a secret for relays, links or the webhook
  check     Validate a configuration; print its errors, or its effect and cost
  run       Run the hub
  push      Send picture and sound from standard input to a topic
  say       Publish a message to a topic
  status    Print who is connected to the running hub
  help      Print this, or the help of a command: sharelink-hub help run
  version   Print the version

Options:
  -h, --help      Print this; after a command, the help of that command
  -V, --version   Print the version

Exit codes: 0 success, 1 failure (the last line says why), 64 wrong arguments,
69 no running hub, 74 input or output failed, 78 wrong configuration.
";

pub const RUN: &str = "\
Serve the API and relays.

Usage: sharelink-hub run --config FILE

Options:
  -c, --config FILE   The configuration, in TOML; `sharelink-hub config` prints
                      one
  -h, --help          Print this

SIGTERM and SIGINT finish the requests under way, then send relays what was
acknowledged, each for at most 5 s, and exit 0. SIGHUP reloads the
configuration; a wrong one changes nothing. With a wrong configuration it does
not start: it prints every error with its line, and exits 78.
";

pub const CHECK: &str = "\
Validate a configuration as `run` would, without starting anything. Print its
effect: every key with its value, and what its limits cost in memory.

Usage: sharelink-hub check --config FILE

Options:
  -c, --config FILE   The configuration
  -h, --help          Print this

Exits 0 if `run` would start, else 78 with every error on standard error.
";

pub const CONFIG: &str = "\
Print the shipped configuration: every key with its default and a comment.

Usage: sharelink-hub config > hub.toml

Options:
  -h, --help   Print this
";

pub const KEY: &str = "\
Make a random key for the API. Print it once, with the row for [api] keys that
has its hash: the hub's configuration never has the key itself.

Usage: sharelink-hub key [--name NAME] [--scopes SCOPES] [--topics PREFIX]

Options:
  --name NAME       What logs call its owner [default: backend]
  --scopes SCOPES   What it may do, of publish, read, admin,
                    ingest [default: publish read]
  --topics PREFIX   For topics below this prefix alone [default: all]
  -h, --help        Print this
";

pub const SECRET: &str = "\
Make a random secret of 32 bytes, for a file of its own: for relays ([uplink]
secret_file), signed links ([links] keys) or topics ([topics] fleet_key_file).

Usage: sharelink-hub secret [--webhook] > FILE

Options:
  --webhook    In the form of Standard Webhooks, for [webhook] secret_files
  -h, --help   Print this

`umask 077` before it keeps the file from other users.
";

pub const DEV: &str = "\
Start a hub and a relay on this machine, on loopback alone. Everybody may watch
every topic. Prints a share link, a key, and lines to paste. Ctrl-C ends both;
nothing is kept.

Usage: sharelink-hub dev [--port N] [--api-port N] [--json]

Options:
  -p, --port N   Port of the share pages [default: 8080]
  --api-port N   Port of the API [default: 8090]
  --json         Print one line of JSON instead: share, api, key, topic, uplink
  -h, --help     Print this

Port 0 is any free one.
";

pub const SAY: &str = "\
Publish a message, as the share page shows it, to a topic.

Usage: sharelink-hub say [OPTIONS] TOPIC TEXT

Options:
  --from NAME       Who says it
  --api URL         The hub's API [default: http://127.0.0.1:8090]
  --key-file FILE   A file with the key [default: the variable SHARELINK_KEY]
  --ca-file FILE    The CA of the API's certificate, PEM [default: the system's]
  -h, --help        Print this

Exits 69 if the hub does not answer.
";

pub const PUSH: &str = "\
Send picture and sound to a topic: fragmented MP4 or WebM from standard input,
for as long as it comes. Connects again where the connection breaks.

Usage: ENCODER | sharelink-hub push [OPTIONS] TOPIC

Options:
  --api URL         The hub's API [default: http://127.0.0.1:8090]
  --key-file FILE   A file with the key or token [default: the variable
                    SHARELINK_KEY]
  --ca-file FILE    The CA of the API's certificate, PEM [default: the system's]
  -h, --help        Print this

The key needs the scope ingest. Exits 0 when the input has ended, 1 if the hub
refuses it for good or it is none that can be split.
";

pub const STATUS: &str = "\
Print who is connected to the running hub. The key needs the scope read.

Usage: sharelink-hub status [--json] [--api URL] [--key-file FILE]
                            [--ca-file FILE]

Options:
  --json            Print the API's answer itself
  --api URL         The hub's API [default: http://127.0.0.1:8090]
  --key-file FILE   A file with the key [default: the variable SHARELINK_KEY]
  --ca-file FILE    The CA of the API's certificate, PEM [default: the system's]
  -h, --help        Print this

Exits 0 if the engine answers, 1 if not or if the key is refused, 69 if the hub
does not answer.
";

pub const VERSION: &str = "\
Print the version.

Usage: sharelink-hub version
";
