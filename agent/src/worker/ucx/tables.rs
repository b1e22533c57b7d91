//! Reads what UCX prints about the protocols that it has selected (`UCX_PROTO_INFO`): a table for each kind of endpoint and
//! operation, with the lanes for each range of lengths. Pure; what it does not know it lets pass.
//!
//! ```text
//! [1795706981.650862] [vm:25444:0]   +--------+-------------+-----------------------------------+
//! [1795706981.650862] [vm:25444:0]   | src intra-node cfg#1                                     |
//! [1795706981.650862] [vm:25444:0]   | remote memory write by ucp_put* from host memory to host |
//! [1795706981.650862] [vm:25444:0]   +--------+-------------+-----------------------------------+
//! [1795706981.650862] [vm:25444:0]   | Range  | Description |              Config               |
//! [1795706981.650862] [vm:25444:0]   +--------+-------------+-----------------------------------+
//! [1795706981.650862] [vm:25444:0]   | 0..inf | zero-copy   | 52% on tcp/lo and 48% on tcp/eth0 |
//! [1795706981.650862] [vm:25444:0]   +--------+-------------+-----------------------------------+
//! ```

use crate::protocol::Used;

/// The operation that moves every chunk. UCX prints the tables of these only: see `UCX_PROTO_INFO`.
pub(super) const OPERATION: &str = "ucp_put";
/// The endpoint from a process to itself.
const SELF: &str = "self cfg#";
const ENDPOINT: &str = "cfg#";
/// Devices of transports that go through no network.
const NO_NETWORK: [&str; 3] = ["memory", "cuda", "rocm"];

/// Tables of the endpoints to others, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Tables {
    rows: Vec<Row>,
    endpoint: Option<String>,
    operation: Option<String>,
}

/// Lengths of messages from `least` on, and how they go.
#[derive(Debug)]
struct Row {
    least: u64,
    most: u64,
    config: String,
}

impl Tables {
    /// Takes a line; false if it is no part of a table, but something for people.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let text = without_prefix(line).trim();
        if text.starts_with("+--") {
            return true;
        }
        let Some(inner) = text.strip_prefix('|').and_then(|text| text.strip_suffix('|')) else {
            return false;
        };
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        match cells[..] {
            [title] if title.contains(ENDPOINT) => {
                self.endpoint = Some(title.to_owned());
                self.operation = None;
            }
            [title] => self.operation = Some(title.to_owned()),
            [range, _, config] if self.is_of_interest() => {
                if let Some((least, most)) = range_of(range) {
                    self.rows.push(Row { least, most, config: config.to_owned() });
                }
            }
            _ => {}
        }
        true
    }

    fn is_of_interest(&self) -> bool {
        let to_other = self.endpoint.as_ref().is_some_and(|endpoint| !endpoint.contains(SELF));
        to_other && self.operation.as_ref().is_some_and(|operation| operation.contains(OPERATION))
    }

    /// What messages of that length go over. Empty if UCX has not said.
    pub(super) fn used(&self, length: u64) -> Used {
        let mut used = Used::default();
        for row in self.rows.iter().filter(|row| (row.least..=row.most).contains(&length)) {
            for lane in row.config.split([' ', ',']) {
                let Some((transport, device)) = lane.split_once('/') else { continue };
                // Behind the device there may be the number of a path.
                let device = device.split('/').next().unwrap_or_default();
                add(&mut used.transports, transport);
                if !NO_NETWORK.contains(&device) {
                    add(&mut used.devices, device);
                }
            }
        }
        used
    }
}

fn add(names: &mut Vec<String>, name: &str) {
    if !name.is_empty() && !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// Without `[time] [host:process:thread]`.
fn without_prefix(line: &str) -> &str {
    let mut rest = line.trim_start();
    for _ in 0..2 {
        match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((_, behind)) => rest = behind.trim_start(),
            None => break,
        }
    }
    rest
}

/// `16516..inf`, `1..2K`, or one number.
fn range_of(text: &str) -> Option<(u64, u64)> {
    match text.split_once("..") {
        Some((least, most)) => Some((number(least)?, number(most)?)),
        None => number(text).map(|number| (number, number)),
    }
}

fn number(text: &str) -> Option<u64> {
    if text == "inf" {
        return Some(u64::MAX);
    }
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' => (&text[..text.len() - 1], 10),
        b'M' => (&text[..text.len() - 1], 20),
        b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by the UCX 1.23.0 of NIXL 1.5.1: `tcp` over `lo`, shared memory, `tcp` over two devices.
    const TCP: &str = include_str!("golden/tcp.txt");
    const SHARED: &str = include_str!("golden/sm.txt");
    const STRIPED: &str = include_str!("golden/striped.txt");
    /// Never printed here: put together from UCX' format and from lines in public logs.
    const RDMA: &str = include_str!("golden/rdma-made-up.txt");

    fn read(text: &str) -> (Tables, Vec<String>) {
        let mut tables = Tables::default();
        let others = text.lines().filter(|line| !tables.take(line)).map(str::to_owned).collect();
        (tables, others)
    }

    #[test]
    fn what_the_real_ucx_says() {
        for (text, transports, devices) in [
            (TCP, vec!["tcp"], vec!["lo"]),
            (SHARED, vec!["cma"], vec![]),
            (STRIPED, vec!["tcp"], vec!["lo", "eth0"]),
            (RDMA, vec!["rc_mlx5"], vec!["mlx5_0:1", "mlx5_1:1"]),
            ("", vec![], vec![]),
        ] {
            let (tables, others) = read(text);
            let used = tables.used(1 << 20);
            assert_eq!((used.transports, used.devices), (owned(&transports), owned(&devices)));
            assert!(others.iter().all(|line| line.contains("WARN")), "{others:?}");
        }
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn lengths_decide() {
        let (tables, _) = read(RDMA);
        assert_eq!(tables.used(100).devices, ["mlx5_0:1"]);
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("8185..65528", Some((8185, 65528))),
            ("1..2K", Some((1, 2048))),
            ("4M..inf", Some((4 << 20, u64::MAX))),
            ("Range", None),
            ("..", None),
            ("99999999999999999999..inf", None),
            ("20000000000G", None),
        ] {
            assert_eq!(range_of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_table_is_for_people_and_what_is_strange_does_no_harm() {
        for line in [
            "[1795707174.524801] [vm:26867:0]     ucp_context.c:1508 UCX  WARN  network device 'ifb0' is not available",
            "[1] [vm:1:0] tcp_ep.c:1 UCX  ERROR recv failed: a | b",
            "",
            "|",
        ] {
            assert!(!Tables::default().take(line), "{line}");
        }
        let (tables, _) = read(
            "| x cfg#1 |\n| by ucp_put* |\n| 0..inf | c |\n| 0..inf | d | tcp/ |\n| 0..1 | é | /é |\n||",
        );
        let used = tables.used(1);
        assert_eq!((used.transports, used.devices), (owned(&["tcp"]), owned(&["é"])), "only words");
    }
}
