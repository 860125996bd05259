//! Captures as files: the pcapng format (IETF draft-ietf-opsawg-pcapng), as Wireshark and tcpdump
//! read it. Little endian; each block is
//!
//! ```text
//! type u32 | length u32 | body, a multiple of 4 bytes | length u32
//! ```
//! All interfaces are Ethernet, because readers on libpcap want one kind of link in a file.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

/// Options that all blocks share.
const END: u16 = 0;
const COMMENT: u16 = 1;

/// Writes a capture.
pub struct Writer<W> {
    to: W,
    written: u64,
    block: Vec<u8>,
    interfaces: u32,
}

/// A frame to write.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Which interface, by the number that [`Writer::interface`] gave.
    pub interface: u32,
    /// When, Unix time in nanoseconds.
    pub at_ns: u64,
    /// This machine sent it.
    pub is_outgoing: bool,
    /// From the Ethernet header on.
    pub bytes: &'a [u8],
    /// For people; may be empty.
    pub comment: &'a str,
}

impl<W: Write> Writer<W> {
    /// Begins a capture; `comment` says what it is of.
    ///
    /// # Errors
    /// The file's.
    pub fn new(to: W, comment: &str) -> io::Result<Self> {
        let mut writer = Self { to, written: 0, block: Vec::new(), interfaces: 0 };
        writer.word(BYTE_ORDER);
        writer.half(1);
        writer.half(0);
        // The section's length is not known.
        writer.block.extend([0xff; 8]);
        writer.option(COMMENT, comment.as_bytes());
        writer.option(3, b"Linux");
        writer.option(4, concat!("ipop ", env!("CARGO_PKG_VERSION")).as_bytes());
        writer.half(END);
        writer.half(0);
        writer.finish(SECTION)?;
        Ok(writer)
    }

    /// Adds an interface; returns its number. `frame_len_max`: what is longer is cut off, bytes.
    ///
    /// # Errors
    /// The file's.
    pub fn interface(&mut self, name: &str, about: &str, frame_len_max: u32) -> io::Result<u32> {
        self.half(LINKTYPE_ETHERNET);
        self.half(0);
        self.word(frame_len_max);
        self.option(2, name.as_bytes());
        self.option(3, about.as_bytes());
        // Times are in 10^-9 seconds.
        self.option(9, &[9]);
        self.half(END);
        self.half(0);
        self.finish(INTERFACE)?;
        self.interfaces += 1;
        Ok(self.interfaces - 1)
    }

    /// Adds a frame, of which at most `len_max` bytes are kept.
    ///
    /// # Errors
    /// The file's.
    pub fn frame(&mut self, frame: &Frame<'_>, len_max: usize) -> io::Result<()> {
        let kept = &frame.bytes[..frame.bytes.len().min(len_max)];
        self.word(frame.interface);
        self.time(frame.at_ns);
        self.word(kept.len() as u32);
        self.word(frame.bytes.len() as u32);
        self.padded(kept);
        if !frame.comment.is_empty() {
            self.option(COMMENT, frame.comment.as_bytes());
        }
        let direction: u32 = if frame.is_outgoing { 2 } else { 1 };
        self.option(2, &direction.to_le_bytes());
        self.half(END);
        self.half(0);
        self.finish(PACKET)
    }

    /// Says at the end what an interface's frames came to.
    ///
    /// # Errors
    /// The file's.
    pub fn statistics(
        &mut self,
        interface: u32,
        at_ns: u64,
        dropped: u64,
        comment: &str,
    ) -> io::Result<()> {
        self.word(interface);
        self.time(at_ns);
        self.option(COMMENT, comment.as_bytes());
        // Dropped by the operating system.
        self.option(7, &dropped.to_le_bytes());
        self.half(END);
        self.half(0);
        self.finish(STATISTICS)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Hands all to the file.
    ///
    /// # Errors
    /// The file's.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn half(&mut self, value: u16) {
        self.block.extend(value.to_le_bytes());
    }

    fn word(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    fn time(&mut self, at_ns: u64) {
        self.word((at_ns >> 32) as u32);
        self.word(at_ns as u32);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.block.extend(bytes);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(usize::from(u16::MAX))];
        self.half(code);
        self.half(value.len() as u16);
        self.padded(value);
    }

    fn finish(&mut self, kind: u32) -> io::Result<()> {
        let len = self.block.len() as u32 + 12;
        self.to.write_all(&kind.to_le_bytes())?;
        self.to.write_all(&len.to_le_bytes())?;
        self.to.write_all(&self.block)?;
        self.to.write_all(&len.to_le_bytes())?;
        self.written += u64::from(len);
        self.block.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The blocks of a file: kind and body; panics if one does not end where it says.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            assert_eq!((len % 4, word(len - 4) as usize), (0, len));
            blocks.push((word(0), file[8..len - 4].to_vec()));
            file = &file[len..];
        }
        blocks
    }

    #[test]
    fn a_capture_is_blocks_of_whole_words() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, "odd").unwrap();
        let number = writer.interface("ipop0", "inner", 65_535).unwrap();
        let bytes = &[7; 61];
        let at_ns = 5 << 32 | 9;
        let frame = Frame { interface: number, at_ns, is_outgoing: true, bytes, comment: "one" };
        writer.frame(&frame, 50).unwrap();
        writer.statistics(number, 1, 3, "dropped").unwrap();
        let written = writer.written();
        assert_eq!(written, file.len() as u64);
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, STATISTICS]);
        let packet = &blocks[2].1;
        let head: Vec<_> = packet[..20].chunks(4).map(|word| word[0]).collect();
        assert_eq!(head, [0, 5, 9, 50, 61]);
        assert_eq!(packet[20..70], [7; 50]);
        let options = [&[0, 0][..], &[1, 0, 3, 0], b"one\0", &[2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0]];
        assert_eq!(packet[70..], options.concat());
    }
}
