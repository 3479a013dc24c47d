//! The ceiling: the least that any relay could do. One thread that writes the same ready frame to each
//! socket in a bare loop, once for each trigger.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

use super::SEQUENCE_DIGITS;

/// Accepts `pages` plain connections and then a control connection, over which come a frame's size (4
/// bytes), the frame with its sequence's digits at a place (4 bytes), and one byte for each trigger.
pub fn run(pages: usize) -> ExitCode {
    match serve(pages) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ceiling: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(pages: usize) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    eprintln!("ready: pages connect to {}", listener.local_addr()?);
    let mut streams = Vec::with_capacity(pages);
    for _ in 0..pages {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let (mut control, _) = listener.accept()?;
    let mut number = [0; 4];
    control.read_exact(&mut number)?;
    let mut frame = vec![0; u32::from_le_bytes(number) as usize];
    control.read_exact(&mut frame)?;
    control.read_exact(&mut number)?;
    let digits_at = u32::from_le_bytes(number) as usize;
    let mut sequence = 0_u64;
    let mut triggers = [0; 256];
    loop {
        let count = control.read(&mut triggers)?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            sequence += 1;
            let digits = format!("{sequence:0width$}", width = SEQUENCE_DIGITS);
            if let Some(place) = frame.get_mut(digits_at..digits_at + SEQUENCE_DIGITS) {
                place.copy_from_slice(digits.as_bytes());
            }
            for stream in &streams {
                write_all(stream, &frame)?;
            }
        }
    }
}

fn write_all(mut stream: &TcpStream, frame: &[u8]) -> std::io::Result<()> {
    let mut rest = frame;
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(size) => rest = rest.get(size..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
