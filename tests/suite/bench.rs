//! The load generator of the product: every mode runs, reports, and loses nothing. No times are asserted.

use serde_json::Value;

use crate::world::program;

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
