//! What two nodes of a chain have in common of one file. Pure.

use crate::wire::Has;

/// What can be left out for this node and for those behind it: what both have. This node's own prefix was looked at no
/// further than to the end of a shorter one behind.
pub(super) fn common(own: Has, behind: Option<Has>) -> Has {
    match (own, behind) {
        (own, None) => own,
        (Has::Whole { digest }, Some(Has::Whole { digest: theirs })) if digest == theirs => {
            Has::Whole { digest }
        }
        // The next node reads its own beginning again when it hears where the source goes on, and ends its hop when that
        // is not the source's: then its next attempt has nothing here.
        (Has::Prefix { length, digest }, Some(Has::Prefix { length: theirs, digest: their_digest }))
            if length < theirs || (length == theirs && digest == their_digest) =>
        {
            Has::Prefix { length, digest }
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
        for (own, behind, expected) in [
            (whole(1), None, whole(1)),
            (prefix(5, 1), None, prefix(5, 1)),
            (whole(1), Some(whole(1)), whole(1)),
            (whole(1), Some(whole(2)), nothing()),
            (whole(1), Some(nothing()), nothing()),
            (nothing(), Some(whole(1)), nothing()),
            (whole(1), Some(prefix(5, 1)), nothing()),
            (prefix(5, 1), Some(whole(1)), nothing()),
            (prefix(5, 1), Some(prefix(5, 1)), prefix(5, 1)),
            (prefix(5, 1), Some(prefix(5, 2)), nothing()),
            (prefix(3, 1), Some(prefix(5, 2)), prefix(3, 1)),
            (prefix(7, 1), Some(prefix(5, 2)), nothing()),
        ] {
            let what = format!("{own:?} and {behind:?}");
            assert_eq!(common(own, behind), expected, "{what}");
        }
    }
}
