//! A terminal for a program under test.

use std::{
    fs::File,
    io::Read,
    process::{Command, ExitStatus},
};

use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Runs it to its end on a terminal of so many columns; what it wrote, with line ends as it wrote them.
pub fn run(mut command: Command, columns: u16) -> (ExitStatus, String) {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    tcsetwinsize(&controller, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let end = || terminal.try_clone().unwrap();
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    // The command holds three ends, and the reader would wait for them for ever.
    drop((command, terminal));
    let (mut controller, mut written, mut piece) = (File::from(controller), Vec::new(), [0; 4096]);
    // A terminal that nobody has open any more gives an error instead of an end.
    while let Ok(length @ 1..) = controller.read(&mut piece) {
        written.extend_from_slice(&piece[..length]);
    }
    (child.wait().unwrap(), String::from_utf8(written).unwrap().replace("\r\n", "\n"))
}
