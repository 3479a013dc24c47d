//! A serial device, opened raw: 8 data bits, no parity, one stop bit, no flow control, no modem lines.
//!
//! Three wires are enough for both ends of the console: the daemon's on the box, and the terminal's on the engineer's laptop.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, isatty, tcgetattr, tcsetattr};

/// Opens a device so that neither opening nor reading nor writing ever waits.
///
/// # Errors
/// Where it can't be opened, is no serial line, or has no such speed (bits a second).
pub fn open(device: &Path, speed: u32) -> io::Result<File> {
    // Opening does something with other kinds of files.
    if !std::fs::metadata(device)?.file_type().is_char_device() {
        return Err(io::Error::other("it is no serial line"));
    }
    // Without O_NONBLOCK an open waits for a carrier that three wires don't have.
    let line =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(device)?;
    if !isatty(&line) {
        return Err(io::Error::other("it is no serial line"));
    }
    let mut modes = match tcgetattr(&line) {
        // An emulator of single programs (qemu-user) has no TCGETS2: the line is taken as it was set before.
        Err(Errno::NOSYS) => return Ok(line),
        modes => modes?,
    };
    modes.make_raw();
    modes
        .control_modes
        .remove(ControlModes::CSIZE | ControlModes::PARENB | ControlModes::CSTOPB | ControlModes::CRTSCTS);
    modes.control_modes.insert(ControlModes::CS8 | ControlModes::CLOCAL | ControlModes::CREAD);
    let no_such_speed = || io::Error::other(format!("the device has no speed of {speed} bits a second"));
    modes.set_speed(speed).map_err(|_| no_such_speed())?;
    tcsetattr(&line, OptionalActions::Now, &modes)?;
    // A driver that can't do it takes the nearest that it can, and says nothing. A few percents do no harm.
    let taken = tcgetattr(&line)?.output_speed();
    if taken.abs_diff(speed) > speed / 20 {
        return Err(no_such_speed());
    }
    Ok(line)
}
