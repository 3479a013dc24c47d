//! The ceiling: the minimum that any relay must do. One thread that, for each trigger, writes the
//! same ready frame to every socket in a plain loop.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;

/// Accepts `pages` plain connections and then a control connection. That first sends the two parts
/// of a text frame's payload, before and after its sequence, each preceded by its size (4 bytes,
/// little endian); then one byte for each trigger.
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
    let (before, after) = (part(&mut control)?, part(&mut control)?);
    let mut sequence = 0_u64;
    let mut triggers = [0; 256];
    loop {
        let count = control.read(&mut triggers)?;
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            sequence += 1;
            let frame = text_frame(&[&before, sequence.to_string().as_bytes(), &after].concat());
            for stream in &streams {
                write_all(stream, &frame)?;
            }
        }
    }
}

fn part(control: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut size = [0; 4];
    control.read_exact(&mut size)?;
    let mut part = vec![0; u32::from_le_bytes(size) as usize];
    control.read_exact(&mut part)?;
    Ok(part)
}

/// An unmasked text frame (RFC 6455, section 5.2).
fn text_frame(payload: &[u8]) -> Vec<u8> {
    let header = match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(size @ 0..=125), _) => vec![0x81, size],
        (_, Ok(size)) => [&[0x81, 126], &size.to_be_bytes()[..]].concat(),
        _ => [&[0x81, 127], &(payload.len() as u64).to_be_bytes()[..]].concat(),
    };
    [&header, payload].concat()
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
