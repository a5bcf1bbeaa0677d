//! Framing: messages of a tag, a length and a body, in one buffer that is read in place.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt};

/// The usual size of the buffer, and so the most that one read returns.
const BUFFER: usize = 256 * 1024;
/// The least room in the buffer for a read.
const READ: usize = 64 * 1024;
/// The size above which a buffer that grew for a long frame shrinks again after it.
const KEPT: usize = 1024 * 1024;
/// The longest message. The server builds messages in memory, of at most 1 GiB; a larger length is corrupt.
const MAX_LENGTH: usize = 1024 * 1024 * 1024 + READ;
/// The longest message without values or a text, and of any kind during login, as in libpq.
const MAX_SHORT: usize = 30_000;
const HEADER: usize = 5;
/// The delay before a read while data comes in a run of small pieces, so that one read returns several: a walsender
/// sends each change by itself, and a wake-up for each would cost both sides more than everything else.
const GATHER: Duration = Duration::from_micros(500);

/// One message of the server: its tag, and the range of its body in the buffer, valid until the next message is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    body: Range<usize>,
}

/// The read buffer. Everything before `start` has been consumed.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    /// Whether the last frame was CopyData.
    data: bool,
    /// Whether the last read was short and quick, as in a run of small pieces.
    flowing: bool,
    /// The longest message to accept of those that hold values or a text.
    longest: usize,
}

impl Frames {
    pub(crate) fn new() -> Frames {
        Frames { buffer: Vec::with_capacity(BUFFER), start: 0, data: false, flowing: false, longest: MAX_LENGTH }
    }

    /// Returns a buffer with the limits for an unauthenticated server, up to [`logged_in`](Self::logged_in).
    pub(crate) fn for_login() -> Frames {
        Frames { longest: MAX_SHORT, ..Frames::new() }
    }

    /// Lifts the limits of the login.
    pub(crate) fn logged_in(&mut self) {
        self.longest = MAX_LENGTH;
    }

    /// Returns the body of the last frame.
    #[inline]
    pub(crate) fn body(&self, frame: &Frame) -> &[u8] {
        &self.buffer[frame.body.clone()]
    }

    /// Returns the next frame, if all of it has arrived.
    #[inline]
    pub(crate) fn buffered(&mut self) -> io::Result<Option<Frame>> {
        let Some((tag, total)) = self.header()? else { return Ok(None) };
        if self.buffer.len() - self.start < total {
            return Ok(None);
        }
        let body = self.start + HEADER..self.start + total;
        self.start = body.end;
        self.data = tag == b'd';
        Ok(Some(Frame { tag, body }))
    }

    /// Reads the next frame. Cancel-safe: what has been read stays in the buffer.
    #[inline]
    pub(crate) async fn next<R: AsyncRead + Unpin>(&mut self, stream: &mut R) -> io::Result<Frame> {
        loop {
            if let Some(frame) = self.buffered()? {
                return Ok(frame);
            }
            self.make_room()?;
            if self.flowing && self.data {
                // Not a timer of the runtime: any data that arrives would wake it up.
                std::thread::sleep(GATHER);
            }
            let asked = Instant::now();
            let read = stream.read_buf(&mut self.buffer).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.flowing = read < READ && asked.elapsed() < GATHER;
        }
    }

    /// Returns the tag and the whole length, header included, of the frame at `start`.
    #[inline]
    fn header(&self) -> io::Result<Option<(u8, usize)>> {
        let Some(&[tag, a, b, c, d]) = self.buffer[self.start..].first_chunk::<HEADER>() else { return Ok(None) };
        Ok(Some((tag, total_length(tag, [a, b, c, d], self.longest)?)))
    }

    /// Moves the rest to the front and makes room for at least [`READ`] bytes.
    fn make_room(&mut self) -> io::Result<()> {
        let wanted = self.header()?.map_or(0, |(_, total)| total);
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.capacity() > KEPT && wanted <= KEPT {
            self.buffer.shrink_to(BUFFER);
        }
        let arrived = self.buffer.len();
        if self.buffer.capacity() - arrived < READ {
            // At most doubles: a claimed length takes memory only as bytes really come.
            let room = (wanted.saturating_sub(arrived)).clamp(READ, arrived.max(READ));
            self.buffer.reserve_exact(room);
        }
        Ok(())
    }
}

/// Returns the whole length of a message with this tag and length field; one that may hold values may have `longest`
/// bytes.
#[inline]
pub(super) fn total_length(tag: u8, length: [u8; 4], longest: usize) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    let longest = match tag {
        b'd' | b'D' | b'T' | b't' | b'E' | b'N' | b'A' => longest,
        _ => MAX_SHORT,
    };
    if !(4..=longest).contains(&length) {
        let text = format!("a message of type {:?} claims a length of {length} bytes", char::from(tag));
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    async fn take(frames: &mut Frames, mut stream: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        let frame = frames.next(&mut stream).await?;
        Ok((frame.tag, frames.body(&frame).to_vec()))
    }

    #[tokio::test]
    async fn every_truncation_waits_for_the_rest() {
        let bytes = [frame(b'd', b"one row\n"), frame(b'c', b"")].concat();
        for cut in 0..=bytes.len() {
            let mut frames = Frames::new();
            let mut stream = tokio_test_stream(&bytes[..cut], &bytes[cut..]);
            let first = frames.next(&mut stream).await.unwrap();
            assert_eq!((first.tag, frames.body(&first)), (b'd', &b"one row\n"[..]), "cut at {cut}");
            let second = frames.next(&mut stream).await.unwrap();
            assert_eq!((second.tag, frames.body(&second)), (b'c', &b""[..]));
            let end = frames.next(&mut stream).await.unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);

            let mut frames = Frames::new();
            let mut part = &bytes[..cut];
            while let Ok(frame) = frames.next(&mut part).await {
                assert!(matches!(frame.tag, b'd' | b'c'));
            }
        }
    }

    fn tokio_test_stream<'a>(first: &'a [u8], second: &'a [u8]) -> impl AsyncRead + Unpin + 'a {
        first.chain(second)
    }

    #[tokio::test]
    async fn hostile_lengths_are_refused() {
        for length in [0, 1, 3, 0x4001_0001, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
            let mut bytes = vec![b'd'];
            bytes.extend(length.to_be_bytes());
            let error = take(&mut Frames::new(), &bytes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
    }

    #[tokio::test]
    async fn only_messages_with_values_are_long_and_none_at_login() {
        let head = |tag| frame(tag, &[0; MAX_SHORT]);
        for tag in [b'R', b'S', b'Z', b'C', b'W', b'H', b'K', 0] {
            let error = take(&mut Frames::new(), &head(tag)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{tag}");
        }
        for tag in [b'd', b'D', b'T', b'E', b'N', b'A'] {
            assert!(take(&mut Frames::new(), &head(tag)).await.is_ok(), "{tag}");
            let mut frames = Frames::for_login();
            assert!(take(&mut frames, &head(tag)).await.is_err(), "{tag}");
            frames.logged_in();
            assert!(take(&mut frames, &[]).await.is_ok(), "{tag}");
        }
    }

    #[tokio::test]
    async fn a_length_alone_takes_no_memory() {
        let mut bytes = vec![b'd'];
        bytes.extend(0x4000_0000u32.to_be_bytes());
        bytes.resize(400_000, 0);
        let mut frames = Frames::new();
        assert!(take(&mut frames, &bytes).await.is_err());
        assert!(frames.buffer.capacity() <= 2 * bytes.len());
    }

    #[tokio::test]
    async fn the_buffer_shrinks_after_a_long_frame() {
        let long = vec![7; 5 * 1024 * 1024];
        let bytes = [frame(b'd', &long), frame(b'd', b"short")].concat();
        let mut stream = &bytes[..];
        let mut frames = Frames::new();
        let first = frames.next(&mut stream).await.unwrap();
        assert_eq!(frames.body(&first), long);
        assert!(frames.buffer.capacity() <= long.len() + BUFFER);
        let second = frames.next(&mut stream).await.unwrap();
        assert_eq!(frames.body(&second), b"short");
        assert!(frames.next(&mut stream).await.is_err());
        assert_eq!(frames.buffer.capacity(), BUFFER);
    }

    #[tokio::test]
    async fn many_frames_come_out_of_one_buffer() {
        let bytes: Vec<u8> = (0..20_000u32).flat_map(|n| frame(b'd', &vec![n as u8; (n % 97) as usize])).collect();
        let mut stream = &bytes[..];
        let mut frames = Frames::new();
        for n in 0..20_000u32 {
            let frame = frames.next(&mut stream).await.unwrap();
            assert_eq!(frames.body(&frame), vec![n as u8; (n % 97) as usize]);
        }
        assert_eq!(frames.buffer.capacity(), BUFFER);
    }
}
