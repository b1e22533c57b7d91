//! Two sides that do not fit: an error before anything moves, and the passive operation is as good as before.

use super::contents::patterned;
use super::ours::Ours;
use super::python::{self, Nixl};
use crate::Outcome;

/// What the passive side of `64,32,1` must not be paired with.
const SIZES: [(&str, &str); 4] =
    [("64,32,2", "Size"), ("32,64,1", "Size"), ("64,32", "Count"), ("97", "Count")];

// case 9
#[test]
fn we_refuse_what_does_not_fit_and_pythons_operation_goes_on() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (passive, wrong, right) in [("readable", "write", "read"), ("writable", "read", "write")] {
        let mut python = python::peer(Nixl::V1_5_1, &format!("{passive} --size 64,32,1"))?;
        let offer = python.line()?;
        ours.refuses(&format!("{wrong} a c - {offer}"), "Kind")?;
        for (sizes, error) in SIZES {
            ours.refuses(&format!("{right} a c {sizes} {offer}"), error)?;
        }
        ours.tell(&format!("{right} a c - {offer}"))?;
        ours.is_done("a", &patterned(97))?;
        python.is_done(&patterned(97))?;
        python.ends_with(0)?;
    }
    Ok(())
}

// case 9
#[test]
fn python_refuses_what_does_not_fit_and_our_operation_goes_on() -> Outcome {
    let mut ours = Ours::start()?;
    ours.tell("connector c")?;
    for (active, wrong, right) in [("read", "writable", "readable"), ("write", "readable", "writable")] {
        let mut python =
            python::peer(Nixl::V1_5_1, &format!("{active} --size 64,32,1 --repeat 6 --keep-going"))?;
        let wrong_kind = ours.offer(&format!("{wrong} kind c 64,32,1"))?;
        python.say(&wrong_kind)?;
        python.fails_with("RuntimeError")?;
        for (sizes, _) in SIZES {
            python.say(&ours.offer(&format!("{right} {sizes} c {sizes}"))?)?;
            python.fails_with("ValueError")?;
            assert_eq!(ours.status(sizes)?, "INIT");
        }
        assert_eq!(ours.status("kind")?, "INIT");
        python.say(&ours.offer(&format!("{right} fits c 64,32,1"))?)?;
        python.is_done(&patterned(97))?;
        ours.is_done("fits", &patterned(97))?;
        // Some rounds failed.
        python.ends_with(1)?;
    }
    Ok(())
}
