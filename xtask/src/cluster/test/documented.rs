//! What `docs/install.md` tells a newcomer to do, word for word.

use std::fs;

use anyhow::{Context, Result, ensure};
use devcluster::Kubectl;

use super::ask::long;
use super::work::volume;
use crate::cluster::node;
use crate::cluster::record::Place;
use crate::demo::compare::same;
use crate::demo::dataset;
use crate::paths;
use crate::progress::Step;

const PAGE: &str = "docs/install.md";

/// The page's job, and the two commands below it.
pub fn first_transfer(place: &Place, kubectl: &Kubectl) -> Result<()> {
    let step = Step::start(format!("the first transfer of {PAGE}"));
    let page = fs::read_to_string(paths::root().join(PAGE)).with_context(|| PAGE.to_owned())?;
    let (_, rest) = page.split_once("## First transfer").context("it has no first transfer")?;
    let job = block(rest, "yaml").context("it has no job")?;
    let commands = block(rest, "sh").context("it has no commands")?;
    dataset::write_files(&volume(place, &node::name(0)), [("hello".to_owned(), 1 << 20)])?;
    kubectl.run_with_input(&["apply", "--filename=-"], Some(job))?;
    let mut said = String::new();
    for command in commands.lines() {
        let words: Vec<&str> = command.split_whitespace().collect();
        let ["kubectl", arguments @ ..] = &words[..] else { continue };
        said = long(kubectl, arguments)?;
    }
    ensure!(said.contains("Complete") && said.contains("tcp"), "the last command says {said:?}");
    same(&volume(place, &node::name(0)).join("hello"), &volume(place, &node::name(1)).join("hello"))?;
    step.done("its commands say what the page says");
    Ok(())
}

/// The first fenced block of a language.
fn block<'a>(text: &'a str, language: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("```{language}\n"))?;
    Some(rest.split_once("```")?.0)
}
