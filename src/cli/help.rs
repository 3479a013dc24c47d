//! The texts of `--help`, one for each command.
//!
//! At most 80 columns wide. Tests compare them with the options that `cli.rs` knows, and the manual
//! page `docs/sharelinkd.8.md` with them.

pub const HELP: &str = "\
sharelinkd shows a social app's live content on the web page behind a share
link.

Usage: sharelinkd COMMAND [OPTIONS]

Commands:
  demo      Relay and demo business server in one process: try this first
  config    Print a commented configuration to start from
  check     Validate a configuration; print its errors, or its effect and cost
  run       Run the relay
  status    Print the health of the running relay, also as the exit code
  console   Open the console of the running relay, or over a serial cable
  bench     Measure the relay's performance on this machine
  drop-in   Print the systemd limits for this board
  help      Print this, or the help of a command: sharelinkd help run
  version   Print version, board and target

Options:
  -h, --help      Print this; after a command, the help of that command
  -V, --version   Print version, board and target

Exit codes: 0 success, 1 failure (the last line says why), 64 wrong arguments,
69 no running relay, 74 input or output failed, 78 wrong configuration; of
`status`: 0 healthy, 1 degraded, 2 down.
";

pub const RUN: &str = "\
Serve pages, and keep a connection to the business server (the uplink).

Usage: sharelinkd run --config FILE

Options:
  -c, --config FILE   The configuration, in TOML; `sharelinkd config` prints one
  -h, --help          Print this

SIGTERM drains and exits 0, SIGHUP reloads the configuration. With a wrong
configuration it does not start: it prints every error with its line, and
exits 78.
";

pub const CHECK: &str = "\
Validate a configuration as `run` would, without starting anything. Print its
effect: every key with its value, and the relay's memory sum, term by term.

Usage: sharelinkd check --config FILE

Options:
  -c, --config FILE   The configuration
  -h, --help          Print this

Exits 0 if `run` would start, else 78 with every error on standard error.
";

pub const CONFIG: &str = "\
Print the shipped configuration: every key with its default and a comment.

Usage: sharelinkd config > sharelinkd.toml

Options:
  -h, --help   Print this
";

pub const STATUS: &str = "\
Print the health of the running relay: uplink, pages, memory, and the conditions
that need an operator's attention, each with its code.

Usage: sharelinkd status [--json] [--socket PATH]

Options:
  --socket PATH   The relay's console socket, as in [console] socket
                  [default: /run/sharelinkd/console.sock]
  --json          Print one line of JSON
  -h, --help      Print this

Exits 0 if it is healthy, 1 if there are conditions (degraded), 2 if it drains
or does not answer (down).
";

pub const CONSOLE: &str = "\
Open the console of the running relay, or of a box at the other end of a serial
cable. There, `help` lists the commands. Ctrl-] leaves.

Usage: sharelinkd console [--socket PATH] [COMMAND [WORD]]
       sharelinkd console --serial DEVICE [--speed N]

Options:
  --socket PATH     The relay's console socket, as in [console] socket
                    [default: /run/sharelinkd/console.sock]
  --serial DEVICE   The serial device of the cable, such as /dev/ttyUSB0
  --speed N         Its speed in bits per second [default: 115200]
  -h, --help        Print this

With a command, prints its answer and exits 0, or 1 if it fails:
  sharelinkd console pages slow
";

pub const DROP_IN: &str = "\
Print a drop-in for sharelinkd.service with the limits that follow from the
board and the configuration (memory, tasks, open files), and access to the
console's serial line. Packages contain one.

Usage: sharelinkd drop-in [--board NAME] [--config FILE]

Options:
  --board NAME        For this board instead of the one of this binary
  -c, --config FILE   For this configuration instead of the default one
  -h, --help          Print this

Example, for a serial line that the configuration names:
  sharelinkd drop-in --config /etc/sharelinkd/sharelinkd.toml \\
    > /etc/systemd/system/sharelinkd.service.d/20-configuration.conf
";

pub const DEMO: &str = "\
Run a relay and a demo business server in one process, connected by a real
uplink over loopback, with a room that runs by itself. Prints two addresses:
the share page for viewers, and the host page, which controls the room.

Usage: sharelinkd demo [--tls] [--listen ADDRESS] [--port N] [--host-port N]
                       [--origin ORIGIN]... [--uplink-tls DIRECTORY]

Options:
  --tls             Serve both pages by https, with certificates of this run
  --listen ADDRESS  Serve both pages at this address, so that phones in the
                    network can open them; 0.0.0.0 is any. Prints QR codes, and
                    gives the host page a key [default: 127.0.0.1]
  -p, --port N      Port of the share page [default: 8080]
  --host-port N     Port of the host page [default: 8081]
  --origin ORIGIN   Also allow pages of this origin to connect, such as your
                    page's http://localhost:3000; may be given several times
  --uplink-tls DIRECTORY
                    TLS on the uplink, with business.pem and business.key
                    from there; with a ca.pem there, the relay shows box-1.pem
  -h, --help        Print this

Port 0 is any free one. If a default port is in use, the next is tried.
";

pub const BENCH_OPTIONS: [&str; 19] = [
    "--mode",
    "--pages",
    "--under-way",
    "--size",
    "--seconds",
    "--rate",
    "--runs",
    "--ceiling",
    "--tls",
    "--plain",
    "--certificate",
    "--key",
    "--suite",
    "--resumed",
    "--json",
    "--relay",
    "--business",
    "--process",
    "--help",
];

pub const BENCH: &str = "\
Measure the relay's performance on this machine: starts one, acts as its
business server and its pages over the real protocols on loopback, and reports.

Usage: sharelinkd bench [--mode MODE] [OPTIONS]

Modes:
  flat       A fixed number of publications in flight: throughput [default]
  rate       A fixed number of publications per second: latency
  idle       Pages that are subscribed and receive nothing: memory
  arrivals   Pages that connect as fast as they can
  stalled    One page in a hundred reads nothing
  media      A stream of 1.2 Mbit/s to every page
  flood      As rate, beside a flood of TLS handshakes, and without it

Options:
  --mode MODE     What to measure
  --pages N       Pages; of the modes idle and arrivals a quarter, at most
                  256, comes first and is not measured [default: 1000]
  --under-way N   Publications in flight at the same time; in mode arrivals,
                  connections [default: 1]
  --size N        Size of a publication's frame, in bytes [default: 200]
  --seconds N     Duration of a run [default: 5]
  --rate N        Publications per second, in mode rate [default: 100]
  --runs N        Number of runs; medians are reported [default: 1]
  --ceiling       Alternate with the minimum that any relay must do: one
                  thread that writes a ready frame to each socket
  --tls           Pages connect by TLS 1.3, each with a full handshake
  --plain         With --tls: alternate with the same relay without TLS
  --certificate FILE
                  With --tls: the chain that the relay serves with, PEM;
                  otherwise one is made, for an ECDSA key on P-256
  --key FILE      The chain's key
  --suite NAME    With --tls: pages offer aes (AES-128-GCM) or chacha20 alone
  --resumed       With --tls, in the modes idle and arrivals: each page resumes
                  a session, by a ticket that was fetched before the run
  --json          Report as JSON
  --relay ADDRESS
                  Measure the running relay whose pages connect here, instead
                  of starting one
  --business ADDRESS
                  Listen here as that relay's business server: one of its
                  uplink.addresses; its secret must be empty
  --process ID    That relay's process, if it is on this machine; without it,
                  its processor time and memory are unknown. With a proxy in
                  front, all of both: ID,ID,ID
  -h, --help      Print this

Examples:
  sharelinkd bench --under-way 4 --runs 5 --ceiling
  sharelinkd bench --mode idle --pages 8000
  sharelinkd bench --mode arrivals --tls --plain
  sharelinkd bench --relay 192.0.2.7:8080 --business 0.0.0.0:7400

Fails if a message was lost without a gap notice.
";

pub const VERSION: &str = "\
Print the version, the board and the target that the relay was built for.

Usage: sharelinkd version
";
