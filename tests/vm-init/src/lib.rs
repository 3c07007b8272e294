//! What the VM tells its host: frames on one stream.
//!
//! A frame is its kind (one byte), the length of its content (four bytes,
//! little-endian) and the content.

use std::io::{self, ErrorKind, Read, Write};

/// The name of the device in the VM on which frames leave it.
pub const CHANNEL: &str = "/dev/vport0p1";

/// In the VM: the command and its arguments, each ended by a NUL.
pub const COMMAND: &str = "/hearth-vm/command";

/// In the VM: the command's environment, each `NAME=VALUE` ended by a NUL.
pub const ENVIRONMENT: &str = "/hearth-vm/environment";

/// In the VM: kernel modules to load, in the order of their names.
pub const MODULES: &str = "/hearth-vm/modules";

/// In the VM: what the command leaves here is brought back.
pub const OUT: &str = "/out";

/// Longest content of a frame, in bytes.
pub const LONGEST: usize = 64 * 1024;

/// One thing that the VM tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The kernel has booted and init is about to run the command.
    Booted,
    /// Bytes that the command wrote to its standard output.
    Stdout(Vec<u8>),
    /// Bytes that the command wrote to its standard error.
    Stderr(Vec<u8>),
    /// A file follows; its path below [`OUT`].
    File(String),
    /// The next bytes of the file that was named last.
    Content(Vec<u8>),
    /// The command's exit status, 128 + its signal if one killed it. Nothing follows.
    Exit(i32),
    /// What kept init from running the command. Nothing follows.
    Failed(String),
}

impl Frame {
    /// Writes the frame; content is cut at [`LONGEST`] bytes.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let status;
        let (kind, content) = match self {
            Self::Stdout(bytes) => (1_u8, &bytes[..]),
            Self::Stderr(bytes) => (2, &bytes[..]),
            Self::File(path) => (3, path.as_bytes()),
            Self::Content(bytes) => (4, &bytes[..]),
            Self::Exit(code) => {
                status = code.to_le_bytes();
                (5, &status[..])
            }
            Self::Failed(why) => (6, why.as_bytes()),
            Self::Booted => (7, &[][..]),
        };
        let content = &content[..content.len().min(LONGEST)];
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        // One write a frame: the device turns every write into a message of its own.
        let mut frame = Vec::with_capacity(5 + content.len());
        frame.push(kind);
        frame.extend(length.to_le_bytes());
        frame.extend(content);
        to.write_all(&frame)
    }

    /// Reads the next frame; `None` where the stream ends between two frames.
    pub fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; 5];
        if from.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut head[1..])?;
        let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if length > LONGEST {
            return Err(invalid(format!("a frame of {length} bytes")));
        }
        let mut content = vec![0; length];
        from.read_exact(&mut content)?;
        let text = |bytes| String::from_utf8(bytes).map_err(|_| invalid("text that is not UTF-8"));
        Ok(Some(match head[0] {
            1 => Self::Stdout(content),
            2 => Self::Stderr(content),
            3 => Self::File(text(content)?),
            4 => Self::Content(content),
            5 => Self::Exit(i32::from_le_bytes(
                content
                    .try_into()
                    .map_err(|_| invalid("an exit status that is no number"))?,
            )),
            6 => Self::Failed(text(content)?),
            7 => Self::Booted,
            kind => return Err(invalid(format!("a frame of the unknown kind {kind}"))),
        }))
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("the VM sent {}", what.into()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_arrives_as_it_was_sent() -> io::Result<()> {
        let frames = [
            Frame::Booted,
            Frame::Stdout(b"out\n".to_vec()),
            Frame::Stderr(Vec::new()),
            Frame::File("report/one.json".to_owned()),
            Frame::Content(vec![7; LONGEST]),
            Frame::Exit(-1),
            Frame::Failed("no such command".to_owned()),
        ];
        let mut stream = Vec::new();
        for frame in &frames {
            frame.write(&mut stream)?;
        }
        let mut stream = &stream[..];
        for frame in frames {
            assert_eq!(Frame::read(&mut stream)?, Some(frame));
        }
        assert_eq!(Frame::read(&mut stream)?, None);
        Ok(())
    }

    #[test]
    fn a_stream_that_breaks_off_or_lies_is_an_error() {
        for bytes in [
            &[1, 9, 0, 0, 0, b'x'][..],
            &[1, 255, 255, 255, 255],
            &[99, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0],
        ] {
            assert!(Frame::read(&mut &bytes[..]).is_err(), "{bytes:?}");
        }
    }
}
