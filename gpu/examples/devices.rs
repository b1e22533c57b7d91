//! Prints the GPUs that a process sees, or says why there are none and ends with 1: `cargo run -p nixl-transfer-gpu --example
//! devices`. Makes no context.

use std::process::ExitCode;

use nixl_transfer_gpu::{Device, Driver};

fn main() -> ExitCode {
    match devices() {
        Ok(devices) => {
            for device in devices {
                let address = device.address().map_or_else(|| "-".to_owned(), |address| address.to_string());
                println!(
                    "{} {} {address} {} bytes {}",
                    device.index(),
                    device.uuid(),
                    device.bytes(),
                    device.model()
                );
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn devices() -> Result<Vec<Device>, Box<dyn std::error::Error>> {
    Ok(Driver::load()?.devices()?)
}
