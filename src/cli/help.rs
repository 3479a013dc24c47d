//! The texts of `--help`, one for each command.
//!
//! At most 80 columns. A test compares them with the options that `cli.rs` knows, and `docs/sharelinkd.8` with them.

pub const HELP: &str = "\
sharelinkd shows a social app's live content on the web page behind a share
link.

Usage: sharelinkd COMMAND [OPTIONS]

Commands:
  demo      Relay and demo business server in one process: try this first
  config    Print a commented configuration to start from
  check     Check a configuration: its errors, or what it means and costs
  run       Serve
  status    Say how the running relay is; the exit code says it too
  console   Talk to the running relay, or to a box over a serial cable
  bench     Measure what the relay costs on this machine
  drop-in   Print the limits that systemd is to set for this board
  help      Print this, or the help of a command: sharelinkd help run
  version   Print version, board and target

Options:
  -h, --help      Print this; behind a command, the help of that command
  -V, --version   Print version, board and target

Exit codes: 0 done, 1 could not be done (the last line says why), 64 wrong
arguments, 69 no relay to talk to, 74 input or output failed, 78 wrong
configuration; of `status`: 0 healthy, 1 degraded, 2 down.
";

pub const RUN: &str = "\
Serve pages and keep the uplink to the business server.

Usage: sharelinkd run --config FILE

Options:
  -c, --config FILE   The configuration, in TOML; `sharelinkd config` prints one
  -h, --help          Print this

SIGTERM drains and exits 0, SIGHUP reads the configuration again. Of a
configuration that is wrong every error is told with its line, and nothing
starts (exit 78).
";

pub const CHECK: &str = "\
Check a configuration as `run` would, start nothing, and print what it means:
every key with its value, and the relay's memory sum, term by term.

Usage: sharelinkd check --config FILE

Options:
  -c, --config FILE   The configuration
  -h, --help          Print this

Exits 0 where `run` would start, else 78 with every error on standard error.
";

pub const CONFIG: &str = "\
Print the configuration as shipped: every key with its default, commented.

Usage: sharelinkd config > sharelinkd.toml

Options:
  -h, --help   Print this
";

pub const STATUS: &str = "\
Say how the running relay is: uplink, pages, memory, and the conditions that an
operator should look at, each with its code.

Usage: sharelinkd status [--json] [--socket PATH]

Options:
  --socket PATH   The relay's console socket, as [console] socket names it
                  [default: /run/sharelinkd/console.sock]
  --json          As one line of JSON
  -h, --help      Print this

Exits 0 where it is healthy, 1 where there are conditions (degraded), 2 where
it drains or does not answer (down).
";

pub const CONSOLE: &str = "\
Talk to the running relay's console, or to a box at the other end of a serial
cable. `help` there lists the commands. Ctrl-] leaves.

Usage: sharelinkd console [--socket PATH] [COMMAND [WORD]]
       sharelinkd console --serial DEVICE [--speed N]

Options:
  --socket PATH     The relay's console socket, as [console] socket names it
                    [default: /run/sharelinkd/console.sock]
  --serial DEVICE   The serial device that the cable is on: /dev/ttyUSB0
  --speed N         Its bits a second [default: 115200]
  -h, --help        Print this

With a command, prints its answer and exits 0, or 1 where it can't be done:
  sharelinkd console pages slow
";

pub const DROP_IN: &str = "\
Print a drop-in for sharelinkd.service: what systemd is to allow the relay, as
its board and its configuration say (memory, tasks, open files, and no login
prompt on the console's serial line). Packages bring one.

Usage: sharelinkd drop-in [--board NAME] [--config FILE]

Options:
  --board NAME        Of another board than this binary was built for
  -c, --config FILE   With this configuration in place of the default one
  -h, --help          Print this

Example, for a serial line that the configuration names:
  sharelinkd drop-in --config /etc/sharelinkd/sharelinkd.toml \\
    > /etc/systemd/system/sharelinkd.service.d/20-configuration.conf
";

pub const DEMO: &str = "\
Run a relay and a demo business server in one process, connected by a real
uplink over loopback, with a room that lives by itself. Prints two addresses:
the share page, which viewers see, and the host page, which runs the room.

Usage: sharelinkd demo [--port N] [--host-port N] [--origin ORIGIN]...

Options:
  -p, --port N      Port of the share page, on loopback [default: 8080]
  --host-port N     Port of the host page, on loopback [default: 8081]
  --origin ORIGIN   Pages of this origin may connect too, such as your own
                    page's http://localhost:3000; may be given several times
  -h, --help        Print this

Port 0 takes any free one. Where a default port is taken, the next is used.
";

pub const BENCH_OPTIONS: [&str; 13] = [
    "--mode",
    "--pages",
    "--under-way",
    "--size",
    "--seconds",
    "--rate",
    "--runs",
    "--ceiling",
    "--json",
    "--relay",
    "--business",
    "--process",
    "--help",
];

pub const BENCH: &str = "\
Measure what the relay costs on this machine: starts one, is its business
server and its pages over the real protocols on loopback, and reports.

Usage: sharelinkd bench [--mode MODE] [OPTIONS]

Modes:
  flat       So many publications under way, as fast as pages get them [default]
  rate       So many publications a second: latency
  idle       Pages that are subscribed and get nothing: memory
  arrivals   Pages that arrive as fast as they can
  stalled    One page in a hundred reads nothing
  media      A stream of 1.2 Mbit/s to every page

Options:
  --mode MODE     What is measured
  --pages N       Pages [default: 1000]
  --under-way N   Publications under way at the same time [default: 1]
  --size N        Bytes of a publication's frame [default: 200]
  --seconds N     Length of a run [default: 5]
  --rate N        Publications a second, in mode rate [default: 100]
  --runs N        Runs, of which the medians are reported [default: 1]
  --ceiling       In turn with the relay, the least that any relay could do:
                  one thread that writes a ready frame to each socket
  --json          Report as JSON
  --relay ADDRESS
                  Measure the relay whose pages connect here, in place of one
                  of the bench's own
  --business ADDRESS
                  Be that relay's business server here: one of its
                  uplink.addresses; its secret must be empty
  --process ID    That relay's process, where it is on this machine: without
                  it nothing is known of its processor time and memory
  -h, --help      Print this

Examples:
  sharelinkd bench --under-way 4 --runs 5 --ceiling
  sharelinkd bench --mode idle --pages 8000
  sharelinkd bench --relay 192.0.2.7:8080 --business 0.0.0.0:7400

Fails where a message was lost and not told by a gap.
";

pub const VERSION: &str = "\
Print the version, the board that the relay was built for, and the target that
it was compiled for.

Usage: sharelinkd version
";
