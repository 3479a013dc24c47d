//! A serial device, opened raw: 8 data bits, no parity, one stop bit, no flow control, no modem
//! lines.
//!
//! Both ends of the console use it: the daemon on the box, and the terminal on the engineer's
//! laptop. Three wires are enough. Knows nothing of the console.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::termios::{ControlModes, OptionalActions, isatty, tcgetattr, tcsetattr};

/// Opens a device without blocking; reads and writes don't block either.
///
/// # Errors
/// If it can't be opened, is not a serial line, or doesn't support the speed (in bits per second).
pub fn open(device: &Path, speed: u32) -> io::Result<File> {
    // Checked first: opening other kinds of files may have side effects.
    if !std::fs::metadata(device)?.file_type().is_char_device() {
        return Err(io::Error::other("it is not a serial line"));
    }
    // Without O_NONBLOCK, open waits for a carrier, which three wires don't have.
    let line =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK).open(device)?;
    if !isatty(&line) {
        return Err(io::Error::other("it is not a serial line"));
    }
    let mut modes = match tcgetattr(&line) {
        // qemu-user has no TCGETS2: the line keeps its present modes.
        Err(Errno::NOSYS) => return Ok(line),
        modes => modes?,
    };
    modes.make_raw();
    modes
        .control_modes
        .remove(ControlModes::CSIZE | ControlModes::PARENB | ControlModes::CSTOPB | ControlModes::CRTSCTS);
    modes.control_modes.insert(ControlModes::CS8 | ControlModes::CLOCAL | ControlModes::CREAD);
    let not_supported = || io::Error::other(format!("the device doesn't support {speed} bit/s"));
    modes.set_speed(speed).map_err(|_| not_supported())?;
    tcsetattr(&line, OptionalActions::Now, &modes)?;
    // A driver that doesn't support the speed silently sets the nearest one. A few percent do no
    // harm.
    let taken = tcgetattr(&line)?.output_speed();
    if taken.abs_diff(speed) > speed / 20 {
        return Err(not_supported());
    }
    Ok(line)
}
