//! What each command does: asks the cluster, lets pure code decide and render, writes.

mod change;
mod create;
mod describe;
mod doctor;
mod get;
mod watch;

use std::io::Write;

use jiff::Timestamp;

use crate::{
    cli::{Cli, Command},
    failure::Failure,
    terminal::Terminal,
};

/// What commands need beside the cluster.
pub(crate) struct Context<'a> {
    /// Standard output.
    pub out: &'a mut (dyn Write + Send),
    /// What that is, now.
    pub look: fn() -> Terminal,
    /// The time, unless a test has set it.
    fixed: Option<Timestamp>,
}

impl Context<'_> {
    pub fn now(&self) -> Timestamp {
        self.fixed.unwrap_or_else(Timestamp::now)
    }

    pub fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }
}

/// Runs a command.
pub async fn run(cli: Cli, look: fn() -> Terminal, out: &mut (dyn Write + Send)) -> Result<(), Failure> {
    let mut context = Context { out, look, fixed: cli.global.now };
    match cli.command {
        Command::Create(arguments) => create::create(*arguments, &cli.global, &mut context).await,
        Command::Get(arguments) => get::get(&arguments, &cli.global, &mut context).await,
        Command::Describe(arguments) => describe::describe(&arguments, &cli.global, &mut context).await,
        Command::Watch(arguments) => watch::watch(&arguments, &cli.global, &mut context).await,
        Command::Doctor(arguments) => doctor::doctor(&arguments, &cli.global, &mut context).await,
        Command::Rerun(arguments) => change::rerun(&arguments, &cli.global, &mut context).await,
        Command::Suspend(arguments) => change::suspend(&arguments, true, &cli.global, &mut context).await,
        Command::Resume(arguments) => change::suspend(&arguments, false, &cli.global, &mut context).await,
    }
}
