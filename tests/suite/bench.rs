//! The load generator of the product: every mode runs, reports, and loses nothing. No times are asserted.

use std::net::TcpListener;

use serde_json::Value;

use crate::world::{Process, program};

fn bench(arguments: &[&str]) -> Value {
    let common = ["bench", "--pages", "20", "--seconds", "1", "--json"];
    let output = program().args(common).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_mode_reports_and_loses_nothing() {
    for mode in ["flat", "rate", "stalled", "media"] {
        let report = bench(&["--mode", mode, "--under-way", "4"]);
        assert_eq!(report["mode"], mode);
        assert_eq!(report["relay"]["lost and not told"], 0.0, "{report}");
        assert!(report["relay"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
        assert!(report["relay"]["processor for each delivery, us"].as_f64().unwrap() > 0.0, "{report}");
    }
    for mode in ["idle", "arrivals"] {
        let report = bench(&["--mode", mode]);
        assert!(report["relay"]["arrivals a second"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn the_ceiling_is_measured_beside_it() {
    let report = bench(&["--ceiling"]);
    assert!(report["ceiling"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
}

#[test]
fn a_relay_that_runs_already_can_be_measured() {
    let business = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let relay = Process::start_as("attached", &format!("[uplink]\naddresses = [\"{business}\"]\n"));
    let (address, process) = (relay.address.to_string(), relay.child.id().to_string());
    let at = ["--relay", &address, "--business", &business.to_string()];
    let report = bench(&[&at[..], &["--process", &process]].concat());
    assert_eq!(report["relay"]["lost and not told"], 0.0, "{report}");
    assert!(report["relay"]["processor for each delivery, us"].as_f64().unwrap() > 0.0, "{report}");
    // Of a process that nobody named nothing is made up.
    let report = bench(&at);
    assert!(report["relay"]["deliveries a second"].as_f64().unwrap() > 0.0, "{report}");
    assert_eq!(report["relay"]["processor for each delivery, us"], Value::Null, "{report}");
}

#[test]
fn what_the_bench_can_t_do_is_said_at_once() {
    for (arguments, said) in [
        (&["--pages", "1000000"][..], "pages: take fewer (--pages)"),
        (&["--relay", "127.0.0.1:1"], "both --relay ADDRESS and --business ADDRESS"),
        (&["--relay", "here", "--business", "127.0.0.1:1"], "is no address and port"),
        (&["--mode", "idle", "--ceiling"], "--ceiling is for the modes"),
    ] {
        let output = program().arg("bench").args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{arguments:?}: {text}");
    }
}
