//! In which order the nodes of a chain stand: who failed before comes last, and each link is as near to the one before
//! as can be. Pure.

use std::cmp::Reverse;

/// Where a node stands. Nodes without a label are taken to stand together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its zone.
    pub zone: Option<&'a str>,
    /// Its rack, a name that is unique within the zone.
    pub rack: Option<&'a str>,
}

/// A node that is to be a link of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// Attempts of its hop that failed so far.
    pub failures: i32,
    /// Where it stands.
    pub place: Place<'a>,
    /// Transfer slots of it that are in use.
    pub load: u32,
}

impl Place<'_> {
    /// How far it is from another: the same rack, the same zone, elsewhere.
    fn distance(&self, other: &Place<'_>) -> u8 {
        match (self.zone == other.zone, self.rack == other.rack) {
            (true, true) => 0,
            (true, false) => 1,
            (false, _) => 2,
        }
    }
}

/// The indexes of the links in the order of the chain. One step at a time from the source: among those with the fewest
/// failures the nearest, then the least loaded, then by name. So zones stay together, and racks within them, and a data
/// path between two zones is taken once for all who failed equally often.
pub fn order(source: Place<'_>, links: &[Link<'_>]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..links.len()).collect();
    // From the end, so that the next one is popped.
    left.sort_by_key(|index| Reverse((links[*index].failures, links[*index].load, links[*index].node)));
    let mut chain = Vec::with_capacity(links.len());
    let mut last = source;
    while let Some(fewest) = left.last().map(|index| links[*index].failures) {
        let alike = left.iter().rev().take_while(|index| links[**index].failures == fewest);
        // The first of the minima: the sort has settled load and name.
        let nearest = alike.enumerate().min_by_key(|(_, index)| last.distance(&links[**index].place));
        let Some((back, index)) = nearest.map(|(back, index)| (back, *index)) else { break };
        left.remove(left.len() - 1 - back);
        last = links[index].place;
        chain.push(index);
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node in words: name, zone/rack ("-" for none), failures, load.
    fn link(words: &'static str) -> Link<'static> {
        let words: Vec<&str> = words.split(' ').collect();
        Link {
            node: words[0],
            failures: words[2].parse().unwrap(),
            place: place(words[1]),
            load: words[3].parse().unwrap(),
        }
    }

    fn place(words: &'static str) -> Place<'static> {
        let (zone, rack) = words.split_once('/').unwrap();
        Place { zone: Some(zone).filter(|zone| *zone != "-"), rack: Some(rack).filter(|rack| *rack != "-") }
    }

    #[test]
    fn failures_come_last_then_nearness_then_load_then_name() {
        let cases: [(&str, &str, &[&str], &str); 10] = [
            ("nothing", "-/-", &[], ""),
            ("by name", "-/-", &["c -/- 0 0", "a -/- 0 0", "b -/- 0 0"], "a b c"),
            ("by load before name", "-/-", &["a -/- 0 2", "b -/- 0 0", "c -/- 0 1"], "b c a"),
            (
                "the source's zone first, zones together",
                "y/-",
                &["a x/- 0 0", "b y/- 0 0", "c z/- 0 0", "d x/- 0 0", "e y/- 0 0"],
                "b e a d c",
            ),
            (
                "the source's rack first, racks together",
                "x/2",
                &["a x/1 0 0", "b x/2 0 0", "c x/3 0 0", "d x/1 0 0", "e x/2 0 0"],
                "b e a d c",
            ),
            ("a rack of the same name in another zone is far", "x/1", &["a y/1 0 0", "b x/2 0 0"], "b a"),
            ("nearness before load", "x/1", &["a y/1 0 0", "b x/1 0 9", "c y/2 0 0", "d y/1 0 5"], "b a d c"),
            (
                "who failed comes last, fewest failures first, whatever is near",
                "x/-",
                &["a x/- 2 0", "b y/- 1 0", "c y/- 0 0", "d x/- 0 0"],
                "d c b a",
            ),
            (
                "nearness goes on from the last one that did not fail",
                "x/-",
                &["a x/- 1 0", "b y/- 1 0", "c y/- 0 0"],
                "c b a",
            ),
            ("nodes without labels stand together", "-/-", &["a x/- 0 0", "b -/- 0 3", "c -/- 0 1"], "c b a"),
        ];
        for (what, source, words, expected) in cases {
            let mut links: Vec<Link<'_>> = words.iter().map(|words| link(words)).collect();
            for _ in 0..=links.len() {
                let chain: Vec<&str> =
                    order(place(source), &links).into_iter().map(|index| links[index].node).collect();
                assert_eq!(chain.join(" "), expected, "{what}");
                if !links.is_empty() {
                    links.rotate_left(1);
                }
            }
        }
    }
}
