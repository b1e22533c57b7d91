"""The dashboards: variables, and panels as title, kind, unit, queries with their legends, and what is to be seen there.

Queries of `cell` panels are asked for the present only, the others over the time that is shown.
"""


def quantiles(metric, by="", where="", window="$__rate_interval"):
    """The median and the 95th of a hundred."""
    labels, legend = ("le" + (f", {by}" if by else "")), (f"{{{{{by}}}}} " if by else "")
    rate = f"sum by ({labels}) (rate(nixl_transfer_{metric}_bucket{where}[{window}]))"
    return [(f"histogram_quantile({q}, {rate})", f"{legend}p{round(q * 100)}") for q in (0.5, 0.95)]


SPACE = '{namespace=~"$namespace"}'
NODE = '{node=~"$node"}'
# Operators and agents count their writes under one name.
OF_OPERATOR = "and on (instance) nixl_transfer_operator_leader"

FLEET = [
    ("Jobs under way", "stat", "short",
     [(f'sum(max by (namespace, phase) (nixl_transfer_jobs{{namespace=~"$namespace", phase!~"Complete|Failed|Suspended"}}))', "")],
     "Neither ended nor suspended."),
    ("Failed runs, last hour", "stat", "short",
     [('sum(nixl_transfer:jobs_ended:increase1h{namespace=~"$namespace", result="failed"}) or vector(0)', "")],
     "Their condition Failed says what to do."),
    ("Received now", "stat", "Bps",
     [('sum(rate(nixl_transfer_bytes_total{namespace=~"$namespace", direction="received"}[$__rate_interval]))', "")],
     "Verified content, all nodes together."),
    ("Agents", "stat", "short",
     [("max by (ready) (nixl_transfer_agents)", "ready={{ready}}")],
     "By whether they take transfers."),
    ("Jobs by phase", "timeseries", "short",
     [(f"sum by (phase) (max by (namespace, phase) (nixl_transfer_jobs{SPACE}))", "{{phase}}")],
     "All there are, those that have ended too until they are deleted."),
    ("Received, by namespace", "timeseries", "Bps",
     [('sum by (namespace) (rate(nixl_transfer_bytes_total{namespace=~"$namespace", direction="received"}[$__rate_interval]))',
       "{{namespace}}")],
     "Content that was received and verified. In a chain every node receives it once."),
    ("Progress of running jobs", "bargauge", "percentunit",
     [(f"max by (namespace, name) (nixl_transfer_job_progress_ratio{SPACE})", "{{namespace}}/{{name}}")],
     "Share of the bytes that are at the destinations."),
    ("Time left", "bargauge", "s",
     [(f"max by (namespace, name) (nixl_transfer_job_eta_seconds{SPACE})", "{{namespace}}/{{name}}")],
     "At the present rate; a job that has not moved yet has none."),
    ("Ended runs, last hour", "timeseries", "short",
     [('sum by (result, reason) (nixl_transfer:jobs_ended:increase1h{namespace=~"$namespace"})', "{{result}} {{reason}}")],
     "What the reasons mean stands in the table of reasons."),
    ("Duration of complete runs", "timeseries", "s", quantiles("duration_seconds", window="$__range"),
     "From the begin of a run to its end, waiting included."),
    ("Throughput of hops", "timeseries", "Bps", quantiles("throughput_bytes_per_second", window="$__range"),
     "Of each hop that was received, over the time in which it moved data."),
    ("Files, by result", "timeseries", "ops",
     [("sum by (result) (rate(nixl_transfer_files_total[$__rate_interval]))", "{{result}}")],
     "Skipped ones were there already, with the same digest."),
    ("Failures that another attempt can follow, last hour", "timeseries", "short",
     [("sum by (reason) (increase(nixl_transfer_retries_total[1h])) > 0", "{{reason}}")],
     "Both sides of a hop may report the same failure."),
    ("Hops not over the best network, last hour", "timeseries", "short",
     [("sum by (reason) (increase(nixl_transfer_fallbacks_total[1h])) > 0", "{{reason}}")],
     "NoRdmaDevice is no fault in a cluster that has none."),
]

FABRIC = [
    ("Sent and received", "timeseries", "Bps",
     [('sum by (node, direction, medium) (rate(nixl_transfer_bytes_total{node=~"$node"}[$__rate_interval]))',
       "{{node}} {{direction}} {{medium}}")],
     "Content by what this node's end of the hop is: files, memory, or the slots of a chain's node."),
    ("NICs: sent, by the kernel's counters", "timeseries", "Bps",
     [('sum by (node, nic, port, counter) (rate(nixl_transfer_nic_transmit_bytes_total{node=~"$node"}[$__rate_interval]))',
       "{{node}} {{nic}} {{port}} {{counter}}")],
     "All that the NIC sends, ours and others'. counter=rdma is not part of counter=netdev. Nodes whose sysfs the agent does not see have none."),
    ("Memory under way", "timeseries", "bytes",
     [(f"sum by (node) (nixl_transfer_inflight_bytes{NODE})", "{{node}} moving"),
      (f"sum by (node) (nixl_transfer_registered_bytes{NODE})", "{{node}} staging")],
     "Slots of the hops that move data, and staging memory of all hops."),
    ("Workers", "timeseries", "short",
     [(f"sum by (node, state) (nixl_transfer_workers{NODE})", "{{node}} {{state}}")],
     "taken: those that serve a run. Warm ones wait with NIXL loaded."),
    ("Stages of hops", "timeseries", "s",
     quantiles("stage_duration_seconds", "stage", NODE, "$__range"),
     "prepare: from the task to published metadata, locks and staging memory waited for included. move: from then to the commit."),
    ("Throughput of hops", "timeseries", "Bps", quantiles("throughput_bytes_per_second", "node", NODE, "$__range"),
     "Of each hop that the node received."),
    ("Damaged chunks, last hour", "timeseries", "short",
     [(f"sum by (node) (increase(nixl_transfer_verify_failures_total{NODE}[1h]))", "{{node}}")],
     "Found by their digest, and sent again."),
    ("Failures and lost workers, last hour", "timeseries", "short",
     [(f"sum by (node, reason) (increase(nixl_transfer_retries_total{NODE}[1h])) > 0", "{{node}} {{reason}}"),
      (f"sum by (node, cause) (increase(nixl_transfer_workers_lost_total{NODE}[1h])) > 0", "{{node}} worker {{cause}}")],
     "Of this node's sides of hops."),
    ("Fallbacks, last hour", "timeseries", "short",
     [(f"sum by (node, reason) (increase(nixl_transfer_fallbacks_total{NODE}[1h])) > 0", "{{node}} {{reason}}")],
     "Hops that the node received over another network than the best."),
    ("Fenced", "timeseries", "short",
     [(f"max by (node) (nixl_transfer_fenced{NODE})", "{{node}}")],
     "1 while the agent cannot renew its Lease and commits nothing."),
    ("NICs", "cell", "short",
     [(f"max by (node, nic, port, netdev, link_layer, state, pcie_root, numa_node) (nixl_transfer_nic_info{NODE})", "")],
     "As the agent sees them now."),
    ("GPUs", "cell", "short",
     [(f"max by (node, gpu, model, pci_bus_id, pcie_root, numa_node) (nixl_transfer_gpu_info{NODE})", "")],
     "A NIC of the same PCIe root is near."),
]

OPERATOR = [
    ("Leader", "timeseries", "short", [("max by (instance) (nixl_transfer_operator_leader)", "{{instance}}")],
     "1 on the operator that writes."),
    ("Versions", "cell", "short", [("count by (version) (nixl_transfer_build_info)", "")],
     "How many operators and agents run of each."),
    ("Planning one job", "timeseries", "s", quantiles("operator_reconcile_duration_seconds"),
     "One thread plans all jobs."),
    ("Plans", "timeseries", "ops",
     [("sum(rate(nixl_transfer_operator_reconcile_duration_seconds_count[$__rate_interval]))", "plans")],
     "Each change of a job, its tasks or its nodes is one, at most every tenth of a second."),
    ("Writes of the operator", "timeseries", "ops",
     [(f"sum by (kind, verb) (rate(nixl_transfer_api_writes_total[$__rate_interval]) {OF_OPERATOR})", "{{verb}} {{kind}}")],
     "Successful ones."),
    ("Writes of agents", "timeseries", "ops",
     [("sum by (kind, verb) (rate(nixl_transfer_api_writes_total[$__rate_interval]) unless on (instance) nixl_transfer_operator_leader)",
       "{{verb}} {{kind}}")],
     "Renewals of Leases are there always."),
    ("Answers to the operator's writes", "timeseries", "s", quantiles("operator_api_write_duration_seconds"),
     "Waiting for a free writer included."),
    ("Failed writes", "timeseries", "ops",
     [("sum by (reason) (rate(nixl_transfer_operator_reconcile_errors_total[$__rate_interval]))", "{{reason}}")],
     "By what the API server said. Conflict is harmless: something had changed, and is planned again."),
    ("Until both ends have published", "timeseries", "s", quantiles("metadata_exchange_seconds", window="$__range"),
     "From the TransferTask to the metadata of both agents in it."),
    ("Metadata", "timeseries", "bytes", quantiles("metadata_bytes", window="$__range"),
     "Of one end of a hop. More than 256 KiB are refused as MetadataTooLarge."),
]

DATASOURCE = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Data source"}


def chosen(name, metric):
    """A variable with the values of a label; all of them at first."""
    return {"name": name, "type": "query", "query": f"label_values({metric}, {name})", "multi": True, "includeAll": True,
            "allValue": ".*", "refresh": 2, "current": {"text": "All", "value": "$__all"},
            "datasource": {"type": "prometheus", "uid": "${datasource}"}}


# File, title, variables, panels.
DASHBOARDS = [
    ("fleet", "nixl-transfer: fleet", [DATASOURCE, chosen("namespace", "nixl_transfer_jobs")], FLEET),
    ("node", "nixl-transfer: node and fabric", [DATASOURCE, chosen("node", "nixl_transfer_workers")], FABRIC),
    ("operator", "nixl-transfer: operator", [DATASOURCE], OPERATOR),
]
