//! The shell: command line, the clock, what standard output is, and the exit code.

use std::{io::stdout, process::ExitCode};

use clap::Parser;
use kubectl_transfer::{cli::Cli, render::clean, run, terminal::Terminal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse(), Terminal::look, &mut stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("error: {}", clean(&failure.message));
            }
            ExitCode::from(failure.code())
        }
    }
}
