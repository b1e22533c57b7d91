//! Memory of GPUs that pods hand over, by a descriptor and by a CUDA IPC handle, and what is refused. On a driver named fake
//! unless `cargo xtask test --gpu` runs it.

use std::{fs, os::fd::AsFd, path::Path, process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use nixl_transfer_client::{ClientError, Event, GpuMemory, Ipc, Workload, shared_memory};
use nixl_transfer_gpu::{Access, Allocation, Context, Copier, Device, Mapped, ipc::Shared};
use nixl_transfer_tests::{
    Setup,
    data::{assert_same_content, write_file},
    gpus::Gpus,
    regions::{file, job, memory, region},
    workloads::{Program, Sockets},
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// No multiple of anything.
const LENGTH: u64 = 3 * MIB + 4097;

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn content(copier: &mut Copier, bytes: u64) -> Result<Vec<u8>> {
    let mut content = vec![0; usize::try_from(bytes)?];
    copier.read(0, &mut content)?;
    Ok(content)
}

fn refused(answer: std::result::Result<(), ClientError>) -> Result<(String, String)> {
    match answer {
        Err(ClientError::Refused { reason, message }) => Ok((reason, message)),
        other => bail!("{other:?}"),
    }
}

fn heard(agent: &mut Workload) -> Result<(String, bool, bool)> {
    match agent.next(SOON)? {
        Event::Finished { job, wrote, succeeded, .. } => Ok((job, wrote, succeeded)),
        other => bail!("{other:?}"),
    }
}

/// What this process has on a GPU: made as PyTorch makes it, and made to be shared by a descriptor.
struct Holder {
    gpu: String,
    /// The first MiB is another's.
    shared: Shared,
    shared_copier: Copier,
    exported: Allocation,
    exported_copier: Copier,
}

const OFFSET: u64 = MIB;

impl Holder {
    fn on(device: &Device) -> Result<Self> {
        let context = Context::retain(device)?;
        let shared = Shared::allocate(&context, OFFSET + LENGTH)?;
        let shared_copier = Copier::new(Arc::clone(shared.memory()), SOON)?;
        let exported = Allocation::create(&context, LENGTH, SOON)?;
        let mapped = Mapped::import(exported.descriptor(), &context, LENGTH, Access::ReadWrite)?;
        let exported_copier = Copier::new(Arc::new(mapped), SOON)?;
        Ok(Self { gpu: device.uuid().to_string(), shared, shared_copier, exported, exported_copier })
    }

    fn handle(&self) -> Result<Ipc> {
        let announced = self.shared.announce(OFFSET, LENGTH)?;
        let handle = hexadecimal(announced.handle.as_bytes());
        Ok(Ipc { handle, allocation: announced.allocation, offset: announced.offset })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_lend_memory_of_gpus_by_descriptors_and_by_handles_and_lies_are_refused() -> Result<()> {
    let sockets = Sockets::new()?;
    let gpus = Gpus::new(sockets.of("gpus"), 2)?;
    let mut config = gpus.config();
    config["memory"] = json!({"socket": sockets.of("a"), "cudaIpc": true});
    let mut without_handles = gpus.config();
    without_handles["memory"] = json!({"socket": sockets.of("b")});
    let setup = Setup::nodes(&["a", "b"]).agent_config("a", config).agent_config("b", without_handles);
    let cluster = setup.start().await?;
    write_file(&cluster.path("b", "file"), LENGTH, 1)?;
    let bytes = fs::read(cluster.path("b", "file"))?;
    for name in ["exported", "shared", "python"] {
        cluster.apply(&region(name, "a", json!({"workload": {}})))?;
    }
    // CUDA may count in another order than NVML, as the fake does.
    let devices = gpus.driver()?.devices()?;
    let listed = cluster.gpus_of("a").await?;
    let mut holder = Holder::on(&devices[0])?;
    let mut agent = cluster.workload(&sockets, "lender", "a")?;
    let gpu = holder.gpu.clone();
    let index = listed.iter().position(|uuid| *uuid == gpu).context("in the TransferNode")?;
    let other = listed.iter().find(|uuid| **uuid != gpu).map_or("GPU-of-another-node", String::as_str);

    let (good, foreign) = (holder.handle()?, shared_memory(LENGTH)?);
    let null = fs::File::open("/dev/null")?;
    let no_device =
        refused(agent.hand_over_gpu("shared", other, GpuMemory::Handle(good.clone()), LENGTH, SOON))?;
    let reason = if listed.len() > 1 { "MemoryUnfit" } else { "NoSuchDevice" };
    ensure!(no_device.0 == reason, "{no_device:?}");
    let lies: [(&str, &str, GpuMemory<'_>, u64, &str, &str); 7] = [
        ("index", "cuda:0", GpuMemory::Handle(good.clone()), LENGTH, "NoSuchDevice", "GPU-"),
        (
            "longer",
            &gpu,
            GpuMemory::Descriptor(holder.exported.descriptor()),
            5 * MIB,
            "MemoryUnfit",
            "opened",
        ),
        ("no memory", &gpu, GpuMemory::Descriptor(foreign.as_fd()), LENGTH, "MemoryUnfit", "opened"),
        ("a device", &gpu, GpuMemory::Descriptor(null.as_fd()), LENGTH, "MemoryUnfit", "cuMemExport"),
        (
            "short handle",
            &gpu,
            GpuMemory::Handle(Ipc { handle: "00".into(), ..good.clone() }),
            LENGTH,
            "MemoryUnfit",
            "128",
        ),
        (
            "a lie",
            &gpu,
            GpuMemory::Handle(Ipc { allocation: 9 * MIB, ..good.clone() }),
            LENGTH,
            "MemoryUnfit",
            "announced",
        ),
        (
            "outside",
            &gpu,
            GpuMemory::Handle(Ipc { offset: 2 * MIB, ..good.clone() }),
            LENGTH,
            "MemoryUnfit",
            "within",
        ),
    ];
    for (what, device, memory, size, reason, words) in lies {
        let (found, message) = refused(agent.hand_over_gpu("shared", device, memory, size, SOON))?;
        ensure!(found == reason && message.contains(words), "{what}: {found}: {message}");
    }

    let mut strict = cluster.workload(&sockets, "strict", "b")?;
    let handle = GpuMemory::Handle(good.clone());
    let (found, message) = refused(strict.hand_over_gpu("any", &gpu, handle, LENGTH, SOON))?;
    ensure!(found == "HandleForbidden" && message.contains("memory.cudaIpc"), "{found}: {message}");
    drop(strict);

    agent.hand_over_gpu(
        "exported",
        &gpu,
        GpuMemory::Descriptor(holder.exported.descriptor()),
        LENGTH,
        SOON,
    )?;
    agent.hand_over_gpu("shared", &gpu, GpuMemory::Handle(good), LENGTH, SOON)?;
    let status = cluster.wait_region_ready("shared", SOON).await?.status.context("a status")?;
    let is = (status.size, status.device.as_deref(), status.pod.map(|pod| pod.name));
    let device = format!("cuda:{index}");
    ensure!(is == (Some(i64::try_from(LENGTH)?), Some(device.as_str()), Some("lender".into())), "{is:?}");

    // Into both at once, then from each to a file; nothing beside the part of the handle is touched.
    holder.shared_copier.write(0, &vec![7; usize::try_from(OFFSET)?])?;
    cluster.apply(&job("into", file("b", "file"), &[memory("exported"), memory("shared")]))?;
    cluster.wait_complete("into", SOON).await?;
    for _ in 0..2 {
        ensure!(heard(&mut agent)? == ("into".into(), true, true));
    }
    ensure!(content(&mut holder.exported_copier, LENGTH)? == bytes, "what the pod sees is what was sent");
    let all = content(&mut holder.shared_copier, OFFSET + LENGTH)?;
    let (beside, own) = all.split_at(usize::try_from(OFFSET)?);
    ensure!(own == bytes && beside.iter().all(|byte| *byte == 7));
    for name in ["exported", "shared"] {
        cluster.apply(&job(name, memory(name), &[file("b", name)]))?;
        cluster.wait_complete(name, SOON).await?;
        ensure!(heard(&mut agent)? == (name.into(), false, true));
        assert_same_content(&cluster.path("b", "file"), &cluster.path("b", name))?;
    }
    agent.withdraw("shared", SOON)?;
    drop(agent);
    cluster.wait_region_unready("exported", "RegionNotReady", SOON).await?;
    ensure!(cluster.gpu_memory_held("a")? == 0, "the pod's memory is its own again");

    // The example of the Python client, with memory of its own.
    cluster.make_pod("snake", "a")?;
    let token = sockets.file("token", &cluster.token("snake")?)?;
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/python");
    let mut python = Command::new("python3");
    python.args(["-S", "-B"]).arg(client.join("example_gpu.py")).arg(sockets.of("a")).arg(&token);
    python.args(["python", &LENGTH.to_string(), "Text"]);
    python.env("PYTHONPATH", &client).env("LIBCUDA", gpus.library());
    let python = Program::start(python)?;
    let ready: Value = serde_json::from_str(&python.line(SOON)?)?;
    ensure!(ready == json!({"type": "ready", "pod": "snake"}), "{ready}");
    cluster.apply(&job("python", memory("python"), &[file("b", "python")]))?;
    cluster.wait_complete("python", SOON).await?;
    ensure!(python.line_with("b'Text", SOON).is_ok());
    python.wait(SOON)?;
    let copied = fs::read(cluster.path("b", "python"))?;
    ensure!(copied.starts_with(b"Text") && copied.len() as u64 == LENGTH);
    cluster.assert_nothing_left(&["a", "b"], SOON).await
}
