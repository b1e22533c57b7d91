//! iperf3 from one node to another: what one TCP stream can do there. The best options that it has for that.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use devcluster::free_port;
use serde_json::Value;

use super::daemon;
use super::host::Host;

/// GB/s at the receiver.
pub fn rate(from: Host, to: Host, bytes: u64) -> Result<f64> {
    let (address, port) = (to.address(), free_port()?);
    let place = ["--port", &port.to_string()];
    let mut server = to.command("iperf3");
    let server = daemon::start(server.args(["--server", "--one-off", "--bind", &address]).args(place), port)?;
    let mut client = from.command("iperf3");
    client.args(["--client", &address, "--bytes", &bytes.to_string()]).args(place);
    let output = client.args(["--length", "1M", "--zerocopy", "--json"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "iperf3: {said}");
    // One that serves nobody any more is of no use, however it ends.
    drop(server);
    received(&serde_json::from_str(&said)?)
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
