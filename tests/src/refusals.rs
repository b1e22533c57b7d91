//! What is refused, and with which words: collected, so that one run of a table shows all that is wrong.

use anyhow::{Result, ensure};

/// What was not refused as it should have been.
#[derive(Debug, Default)]
pub struct Refusals {
    wrong: Vec<String>,
}

impl Refusals {
    /// `answer` must be a refusal that contains each of the `words`.
    pub fn expect(&mut self, what: &str, words: &[&str], answer: Result<String>) {
        match answer {
            Ok(_) => self.wrong.push(format!("{what}: was accepted")),
            Err(error) => {
                let message = format!("{error:#}");
                if let Some(missing) = words.iter().find(|word| !message.contains(**word)) {
                    self.wrong.push(format!("{what}: no {missing:?} in {message}"));
                }
            }
        }
    }

    /// # Errors
    /// All that was not as expected.
    pub fn finish(self) -> Result<()> {
        ensure!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
        Ok(())
    }
}
