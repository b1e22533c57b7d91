//! What two nodes of a chain have in common of one file. Pure.

use crate::wire::Has;

/// What can be left out for this node and for those behind it: what both have. `agrees` says whether this node's own bytes
/// up to the end of a shorter prefix behind have that prefix's digest.
pub(super) fn common(own: Has, behind: Option<Has>, agrees: bool) -> Has {
    match (own, behind) {
        (own, None) => own,
        (Has::Whole { digest }, Some(Has::Whole { digest: theirs })) if digest == theirs => {
            Has::Whole { digest }
        }
        (Has::Prefix { length, digest }, Some(Has::Prefix { length: theirs, digest: their_digest })) => {
            if length < theirs || (length == theirs && digest == their_digest) {
                // The next node reads its own beginning again when it hears where the source goes on.
                Has::Prefix { length, digest }
            } else if length > theirs && agrees {
                Has::Prefix { length: theirs, digest: their_digest }
            } else {
                Has::Nothing
            }
        }
        _ => Has::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_have_is_left_out() {
        let whole = |digest| Has::Whole { digest: vec![digest] };
        let prefix = |length, digest| Has::Prefix { length, digest: vec![digest] };
        let nothing = || Has::Nothing;
        for (own, behind, agrees, expected) in [
            (whole(1), None, false, whole(1)),
            (prefix(5, 1), None, false, prefix(5, 1)),
            (whole(1), Some(whole(1)), false, whole(1)),
            (whole(1), Some(whole(2)), true, nothing()),
            (whole(1), Some(nothing()), true, nothing()),
            (nothing(), Some(whole(1)), true, nothing()),
            (whole(1), Some(prefix(5, 1)), true, nothing()),
            (prefix(5, 1), Some(whole(1)), true, nothing()),
            (prefix(5, 1), Some(prefix(5, 1)), false, prefix(5, 1)),
            (prefix(5, 1), Some(prefix(5, 2)), true, nothing()),
            (prefix(3, 1), Some(prefix(5, 2)), false, prefix(3, 1)),
            (prefix(7, 1), Some(prefix(5, 2)), true, prefix(5, 2)),
            (prefix(7, 1), Some(prefix(5, 2)), false, nothing()),
        ] {
            let what = format!("{own:?} and {behind:?}");
            assert_eq!(common(own, behind, agrees), expected, "{what}");
        }
    }
}
