//! The load generator of the product: every mode runs, reports, and loses nothing. Asserts no
//! times, but does assert memory, which does not vary with the machine's load.

use serde_json::Value;

use crate::world::{Process, busy_machine, free_address, program};

fn bench(arguments: &[&str]) -> Value {
    let common = ["bench", "--pages", "20", "--seconds", "1", "--json"];
    let output = program().args(common).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_mode_reports_and_loses_nothing() {
    let _machine = busy_machine();
    for mode in ["flat", "rate", "media"] {
        let report = bench(&["--mode", mode, "--under-way", "4"]);
        assert_eq!(report["mode"], mode);
        assert_eq!(report["relay"]["lost and not told"], 0.0, "{report}");
        assert!(report["relay"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["relay"]["processor for each delivery, us"].as_f64().unwrap() > 0.0, "{report}");
    }
}

fn relay(report: &Value, row: &str) -> f64 {
    report["relay"][row].as_f64().unwrap_or_else(|| panic!("no {row} in {report}"))
}

#[test]
fn a_stalled_page_costs_the_relay_no_memory() {
    let _machine = busy_machine();
    let report = bench(&["--mode", "stalled", "--pages", "200", "--under-way", "4"]);
    assert!(relay(&report, "MB in all") > 0.0, "{report}");
    assert_eq!(relay(&report, "lost and not told"), 0.0, "{report}");
    // Always 0 so far. A queue of 1 MB for the stalled page would show up; a page of the
    // allocator's own is tolerated.
    assert!(relay(&report, "growth of RSS, KiB") <= 64.0, "{report}");
}

#[test]
fn an_idle_page_is_small_and_its_arrival_keeps_nobody_waiting() {
    let _machine = busy_machine();
    for mode in ["idle", "arrivals"] {
        let report = bench(&["--mode", mode, "--pages", "2000"]);
        assert!(relay(&report, "arrivals a second") > 0.0, "{report}");
        // The board's sum has a page's terms; this is what the process grew by for each page.
        let size = relay(&report, "user memory for each page, B");
        assert!((400.0..=1536.0).contains(&size), "{report}");
        assert_eq!(relay(&report, "queued in the kernel for each, B"), 0.0, "{report}");
        // An earlier page pinged every 10 ms, and was answered while the others arrived, not only
        // afterwards.
        let all_ms = 2_000_000.0 / relay(&report, "arrivals a second");
        let usual_ms = relay(&report, "a page's pong meanwhile, p50, us") / 1_000.0;
        assert!(usual_ms > 0.0 && usual_ms < all_ms / 3.0, "{usual_ms} ms of {all_ms}: {report}");
    }
}

#[test]
fn pages_by_tls_are_measured_beside_those_without() {
    let _machine = busy_machine();
    let report = bench(&["--tls", "--ceiling", "--under-way", "4"]);
    assert_eq!((&report["tls"], relay(&report, "lost and not told")), (&Value::Bool(true), 0.0), "{report}");
    assert!(relay(&report, "deliveries a second") > 0.0, "{report}");
    assert!(report["ceiling"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
    let report = bench(&["--tls", "--plain", "--mode", "idle", "--pages", "2000"]);
    let size = |which: &str| report[which]["user memory for each page, B"].as_f64().unwrap();
    // A page's keys take 232 bytes more; built for debugging, the code that was touched is large.
    assert!((200.0..=2000.0).contains(&(size("relay") - size("plain"))), "{report}");
    for (resumed, arguments) in [(false, &[][..]), (true, &["--resumed"])] {
        let herd = ["--tls", "--mode", "arrivals", "--pages", "300", "--under-way", "50", "--suite", "chacha20"];
        // A page whose session is not resumed ends the run.
        let report = bench(&[&herd[..], arguments].concat());
        assert_eq!(report["resumed"], resumed, "{report}");
        assert!(relay(&report, "arrivals a second") > 0.0, "{report}");
    }
    let report = bench(&["--tls", "--mode", "flood"]);
    assert!(relay(&report, "handshakes of the flood a second") > 0.0, "{report}");
    assert_eq!(report["quiet"]["handshakes of the flood a second"], 0.0, "{report}");
    assert!(relay(&report, "latency p99, us") > 0.0, "{report}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for (arguments, why) in [
        (&["--plain"][..], "add --tls"),
        (&["--mode", "flood"], "add --tls"),
        (&["--suite", "aes"], "add --tls"),
        (&["--tls", "--suite", "rc4"], "choose one of aes, chacha20"),
        (&["--tls", "--resumed"], "modes idle and arrivals"),
        (&["--tls", "--plain", "--ceiling"], "one thing"),
        (&["--tls", "--certificate", "a.pem"], "give both"),
        (&["--tls", "--plain", "--relay", "127.0.0.1:1", "--business", "127.0.0.1:2"], "without --relay"),
        (&["--process", "12,x"], "write --process 4711"),
    ] {
        let output = program().arg("bench").args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && said.contains(why), "{arguments:?}: {said}");
    }
}

#[test]
fn the_ceiling_is_measured_beside_it() {
    let _machine = busy_machine();
    let report = bench(&["--ceiling"]);
    assert!(report["ceiling"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_relay_that_runs_already_can_be_measured() {
    let _machine = busy_machine();
    let business = free_address();
    let relay = Process::start_as("attached", &format!("[uplink]\naddresses = [\"{business}\"]\n"));
    let (address, process) = (relay.address.to_string(), relay.child.id().to_string());
    let at = ["--relay", &address, "--business", &business.to_string()];
    let report = bench(&[&at[..], &["--process", &process]].concat());
    assert_eq!(report["relay"]["lost and not told"], 0.0, "{report}");
    assert!(report["relay"]["processor for each delivery, us"].as_f64().unwrap() > 0.0, "{report}");
    // Figures of an unnamed process are left out.
    let report = bench(&at);
    assert!(report["relay"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["relay"]["processor for each delivery, us"], Value::Null, "{report}");
}

#[test]
fn what_the_bench_cannot_do_is_refused_at_once() {
    for (arguments, said) in [
        (&["--pages", "1000000"][..], "pages: take fewer (--pages)"),
        (&["--relay", "127.0.0.1:1"], "both --relay ADDRESS and --business ADDRESS"),
        (&["--relay", "here", "--business", "127.0.0.1:1"], "is not an address and port"),
        (&["--mode", "idle", "--ceiling"], "--ceiling is for the modes"),
    ] {
        let output = program().arg("bench").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{arguments:?}: {text}");
    }
}
