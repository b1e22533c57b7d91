//! One measured case: ours, the peers and the goal; and the row that is printed and written of it. Pure.

use serde_json::{Value, json};

use super::goal::{Clause, Judged, all_reached, judge};
use super::statistics::median;

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    Higher,
    Lower,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    GigabytesPerSecond,
    FilesPerSecond,
    Milliseconds,
    JobsPerSecond,
    Writes,
    Mebibytes,
    KibibytesPerJob,
}

impl Unit {
    pub fn text(self) -> &'static str {
        match self {
            Self::GigabytesPerSecond => "GB/s",
            Self::FilesPerSecond => "files/s",
            Self::Milliseconds => "ms",
            Self::JobsPerSecond => "jobs/s",
            Self::Writes => "writes",
            Self::Mebibytes => "MiB",
            Self::KibibytesPerJob => "KiB/job",
        }
    }

    pub fn better(self) -> Better {
        match self {
            Self::GigabytesPerSecond | Self::FilesPerSecond | Self::JobsPerSecond => Better::Higher,
            Self::Milliseconds | Self::Writes | Self::Mebibytes | Self::KibibytesPerJob => Better::Lower,
        }
    }
}

/// Somebody else's values, one for each round.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    pub name: &'static str,
    /// Somebody would use it instead of ours; else it is a reference only.
    pub rival: bool,
    pub values: Vec<f64>,
}

/// What all rounds of one case gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    pub id: &'static str,
    pub case: String,
    pub unit: Unit,
    pub ours: Vec<f64>,
    pub peers: Vec<Peer>,
    /// Rivals that belong here and are not installed.
    pub missing: Vec<&'static str>,
    pub goal: Vec<Clause>,
}

/// What is shown of a case. The ratio is the one of the goal's first clause.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub id: &'static str,
    pub case: String,
    pub ours: f64,
    pub peers: Vec<(&'static str, f64)>,
    pub unit: Unit,
    pub clauses: Vec<Judged>,
}

impl Row {
    pub fn of(measured: &Measured) -> Self {
        Self {
            id: measured.id,
            case: measured.case.clone(),
            ours: median(&measured.ours),
            peers: measured.peers.iter().map(|peer| (peer.name, median(&peer.values))).collect(),
            unit: measured.unit,
            clauses: judge(measured),
        }
    }

    pub fn reached(&self) -> Option<bool> {
        all_reached(&self.clauses)
    }

    pub fn goal(&self) -> String {
        let texts: Vec<&str> = self.clauses.iter().map(|clause| clause.text.as_str()).collect();
        texts.join(", ")
    }

    pub fn json(&self) -> Value {
        let ratio = self.clauses.first().and_then(|clause| clause.ratio);
        let peers: serde_json::Map<String, Value> =
            self.peers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        json!({
            "id": self.id,
            "case": self.case,
            "ours": self.ours,
            "peers": peers,
            "unit": self.unit.text(),
            "ratio": ratio.map(|(ratio, _)| ratio),
            "spread": ratio.map(|(_, (low, high))| [low, high]),
            "goal": self.goal(),
            "reached": self.reached(),
        })
    }
}

/// A case whose peers have the same value in every round.
#[cfg(test)]
pub fn test_row(unit: Unit, ours: &[f64], peers: &[(&'static str, f64)]) -> Measured {
    let peer = |&(name, value)| Peer { name, rival: true, values: vec![value; ours.len()] };
    Measured {
        id: "T1",
        case: "a case".into(),
        unit,
        ours: ours.to_vec(),
        peers: peers.iter().map(peer).collect(),
        missing: Vec::new(),
        goal: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::goal::{Against, at_least};
    use super::*;

    #[test]
    fn the_json_of_a_row_has_the_fields_that_were_promised() {
        let mut measured = test_row(Unit::GigabytesPerSecond, &[3.0, 1.0, 2.0], &[("cp", 1.0)]);
        measured.goal = vec![at_least(2.0, Against::Peer("cp")), at_least(3.0, Against::Peer("rsync"))];
        let expected = json!({
            "id": "T1", "case": "a case", "ours": 2.0, "peers": {"cp": 1.0}, "unit": "GB/s",
            "ratio": 2.0, "spread": [1.0, 3.0], "goal": "≥ 2 × cp, ≥ 3 × rsync", "reached": null,
        });
        assert_eq!(Row::of(&measured).json(), expected);
        measured.goal.clear();
        let bare = Row::of(&measured).json();
        assert_eq!(
            (&bare["ratio"], &bare["spread"], &bare["goal"]),
            (&Value::Null, &Value::Null, &json!(""))
        );
    }
}
