//! iperf3 from one node to another: what one TCP stream can do there. The best options that it has for that.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::host::Host;
use super::owned::Owned;

const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// GB/s at the receiver.
pub fn rate(from: Host, to: Host, bytes: u64) -> Result<f64> {
    let mut server = to.command("iperf3");
    let server =
        Owned::start(server.args(["--server", "--one-off"]).stdin(Stdio::null()).stdout(Stdio::null()))?;
    let deadline = Instant::now() + STARTED_WITHIN;
    loop {
        let mut client = from.command("iperf3");
        client.args([
            "--client",
            &to.address(),
            "--bytes",
            &bytes.to_string(),
            "--length",
            "1M",
            "--zerocopy",
            "--json",
        ]);
        let output = client.stdin(Stdio::null()).output()?;
        if output.status.success() {
            server.wait(STARTED_WITHIN)?;
            return received(&serde_json::from_slice(&output.stdout)?);
        }
        // It does not listen yet.
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(Instant::now() < deadline && !server.has_ended(Duration::from_millis(20))?, "iperf3: {said}");
    }
}

fn received(report: &Value) -> Result<f64> {
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    Ok(bits.context("iperf3 reports no rate")? / 8e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_rate_is_taken() {
        let report = serde_json::json!({"end": {"sum_sent": {"bits_per_second": 9e9},
                                               "sum_received": {"bits_per_second": 8e9}}});
        assert_eq!(received(&report).unwrap(), 1.0);
        assert!(received(&serde_json::json!({"error": "x"})).is_err());
    }
}
