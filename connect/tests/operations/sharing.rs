//! Several readers of one memory, each through an operation of its own. In `nixl_connect` 2 of 4 got wrong bytes.

use crate::Outcome;
use crate::process::Process;

const READERS: usize = 4;
const SIZES: &str = "4194304,1000003";

#[test]
fn four_readers_of_one_memory_that_the_caller_has_registered_all_get_it() -> Outcome {
    four_readers(true, "tcp")
}

#[test]
fn four_readers_of_one_memory_that_only_operations_register_all_get_it() -> Outcome {
    four_readers(false, "tcp")
}

/// Over shared memory a reader fetches the bytes without the owner's help.
#[test]
fn four_readers_over_the_transports_of_one_host_all_get_it() -> Outcome {
    four_readers(false, "all")
}

/// The owner drops each operation as it completes. Two readers are late: they begin when others are done and gone.
fn four_readers(registered: bool, transports: &str) -> Outcome {
    let mut owner = Process::start("desk", transports)?;
    let mut readers = Vec::new();
    for _ in 0..READERS {
        readers.push(Process::start("desk", transports)?);
    }
    owner.make("readable", SIZES)?;
    if registered {
        owner.answers("register readable", "ok")?;
    }
    let mut offers = Vec::new();
    for number in 0..READERS {
        owner.answers(&format!("readable readable{number} readable"), "ok")?;
        offers.push(owner.tell(&format!("metadata readable{number}"))?);
    }
    // One range is registered once, however many operations need it.
    owner.answers("statistics", "endpoints=4 regions=2 in_flight=0 foreign=0")?;
    let begin = |reader: &mut Process, offer: &str| -> Outcome {
        reader.make("read", SIZES)?;
        reader.say(&format!("read read read {offer}"))
    };
    for (reader, offer) in readers.iter_mut().zip(&offers).take(2) {
        begin(reader, offer)?;
    }
    for number in 0..READERS {
        if number >= 2 {
            begin(&mut readers[number], &offers[number])?;
        }
        owner.answers(&format!("wait readable{number} 30000"), "ok")?;
        owner.answers(&format!("drop readable{number}"), "ok")?;
        let left = READERS - 1 - number;
        let regions = if registered || left > 0 { "2" } else { "0" };
        owner.comes_to("regions", regions)?;
    }
    for mut reader in readers {
        assert_eq!(reader.line()?, "ok");
        reader.completes("read")?;
        reader.ends_well()?;
    }
    if registered {
        owner.answers("deregister readable", "ok")?;
    }
    owner.answers("access readable", "free")?;
    owner.holds_nothing()?;
    owner.answers("abandoned", "0")?;
    owner.ends_well()
}

/// Nobody can take it back from the readers that never came; but it is there once, however many were to come.
#[test]
fn memory_that_several_operations_leave_to_their_readers_is_counted_once() -> Outcome {
    let mut owner = Process::desk()?;
    owner.make("readable", "4096,1")?;
    for number in 0..READERS {
        owner.answers(&format!("readable readable{number} readable"), "ok")?;
        owner.tell(&format!("metadata readable{number}"))?;
    }
    for number in 0..READERS {
        owner.answers(&format!("drop readable{number}"), "ok")?;
        owner.answers("abandoned", "4097")?;
    }
    owner.holds_nothing()?;
    owner.ends_well()
}

/// All at once, and the caller keeps nothing: only the operations hold the memory.
#[test]
fn memory_that_only_operations_hold_lives_as_long_as_the_last_of_them() -> Outcome {
    let [mut owner, mut peer] = Process::desks()?;
    owner.make("readable", SIZES)?;
    let mut offers = Vec::new();
    for number in 0..READERS {
        owner.answers(&format!("readable readable{number} readable"), "ok")?;
        offers.push(owner.tell(&format!("metadata readable{number}"))?);
    }
    owner.answers("forget readable", "ok")?;
    for (number, offer) in offers.iter().enumerate() {
        peer.answers(&format!("memory read {SIZES} 0"), "ok")?;
        peer.answers(&format!("read read{number} read {offer}"), "ok")?;
    }
    for number in 0..READERS {
        owner.answers(&format!("wait readable{number} 30000"), "ok")?;
        owner.answers(&format!("drop readable{number}"), "ok")?;
        peer.completes(&format!("read{number}"))?;
    }
    owner.holds_nothing()?;
    owner.ends_well()?;
    peer.ends_well()
}
