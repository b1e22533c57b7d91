//! The metrics that there must be, and what the documentation says there are.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, ensure};

/// The metrics of the specification with their labels. Where it names none for a thing that has to be told from others
/// (`*_info`, NICs), the labels are those of the documentation (decision 024). One with `?` is empty for some devices, which
/// to Prometheus is no label.
pub const SPECIFIED: &[(&str, &str)] = &[
    ("bytes_total", "backend direction medium namespace"),
    ("files_total", "result"),
    ("stage_duration_seconds", "stage"),
    ("throughput_bytes_per_second", ""),
    ("retries_total", "reason"),
    ("verify_failures_total", ""),
    ("fallbacks_total", "reason"),
    ("inflight_bytes", ""),
    ("registered_bytes", ""),
    ("workers", "state"),
    ("nic_info", "link_layer netdev nic numa_node? pci_bus_id pcie_root port? state"),
    ("gpu_info", "gpu model numa_node? pci_bus_id pcie_root? uuid"),
    ("nic_transmit_bytes_total", "counter nic port?"),
    ("build_info", "version"),
    ("jobs", "namespace phase"),
    ("jobs_total", "namespace reason result"),
    ("duration_seconds", ""),
    ("job_progress_ratio", "name namespace"),
    ("job_eta_seconds", "name namespace"),
    ("operator_reconcile_duration_seconds", ""),
    ("operator_reconcile_errors_total", "reason"),
    ("operator_leader", ""),
    ("api_writes_total", "kind verb"),
    ("metadata_bytes", ""),
    ("metadata_exchange_seconds", ""),
    ("agents", "ready"),
];

/// Whether a row has its labels and no others.
pub fn fits(specified: &str, labels: &[&str]) -> bool {
    let mut names = specified.split(' ').filter(|name| !name.is_empty());
    let known = |label: &&str| names.clone().any(|name| name.trim_end_matches('?') == *label);
    labels.iter().all(known) && names.all(|name| name.ends_with('?') || labels.contains(&name))
}

/// Type and meaning, by name without the prefix.
pub type Table = BTreeMap<String, (String, String)>;

/// What a program shows: from `# HELP` and `# TYPE`.
pub fn shown(text: &str) -> Result<Table> {
    let mut table = Table::new();
    for line in text.lines() {
        let Some((keyword, rest)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let (name, rest) = rest.split_once(' ').with_context(|| line.to_owned())?;
        let name = name.strip_prefix("nixl_transfer_").with_context(|| format!("{name} is not ours"))?;
        let row = table.entry(name.to_owned()).or_default();
        if keyword == "TYPE" { row.0 = rest.into() } else { row.1 = rest.into() }
    }
    Ok(table)
}

/// Type, meaning and labels of a program's metrics, as its section of the documentation says.
pub fn documented(section: &str) -> Result<(Table, BTreeMap<String, String>)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
    let text = std::fs::read_to_string(&page)?;
    let begin = format!("\n### {section}\n");
    let (_, rest) = text.split_once(&begin).with_context(|| format!("no section {section}"))?;
    let (mut table, mut labels) = (Table::new(), BTreeMap::new());
    for line in rest.lines().take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let &[name, kind, unit, named, meaning] = cells.as_slice() else {
            anyhow::bail!("not five cells: {line}")
        };
        let name = name.trim_matches('`');
        ensure!(unit == unit_of(name), "{name} is in {:?}, not {unit:?}", unit_of(name));
        let mut named: Vec<&str> = named.split([',', ' ', '`']).filter(|label| !label.is_empty()).collect();
        named.sort_unstable();
        table.insert(name.into(), (kind.into(), meaning.into()));
        labels.insert(name.into(), named.join(" "));
    }
    Ok((table, labels))
}

/// The base unit that a name tells.
fn unit_of(name: &str) -> &'static str {
    let parts: Vec<&str> = name.trim_end_matches("_total").split('_').collect();
    match parts.as_slice() {
        [.., "bytes", "per", "second"] => "bytes per second",
        [.., "bytes"] => "bytes",
        [.., "seconds"] => "seconds",
        [.., "ratio"] => "0 to 1",
        _ => "–",
    }
}
