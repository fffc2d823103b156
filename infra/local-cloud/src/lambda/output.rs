//! What a process prints: one pipe for stdout and stderr, so that their order is kept.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::net::unix::pipe::Receiver;

use crate::logs::Line;

/// A longer line is cut, as CloudWatch Logs would refuse it.
const LONGEST_LINE: usize = 256 * 1024;
/// Of one call no more than this is kept; the rest is counted.
const LARGEST: usize = 1024 * 1024;

pub(super) struct Output {
    /// Not blocking, so that whoever needs all that was printed so far can read to the end of it.
    pipe: PipeReader,
    printed: Mutex<Printed>,
}

#[derive(Default)]
struct Printed {
    lines: Vec<Line>,
    bytes: usize,
    lost: usize,
    /// The line that is not ended yet.
    partial: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Starts reading; the two writers go to the process.
    pub(super) fn open() -> std::io::Result<(Arc<Self>, PipeWriter, PipeWriter)> {
        let (pipe, writer) = std::io::pipe()?;
        // Tokio's end sets the mode that `std` has no call for; both ends of a clone share it.
        let receiver = Receiver::from_owned_fd(pipe.try_clone()?.into())?;
        let output = Arc::new(Self { pipe, printed: Mutex::default() });
        tokio::spawn(output.clone().keep_reading(receiver));
        Ok((output, writer.try_clone()?, writer))
    }

    /// All lines printed until now, and so all that were printed before a reply that has arrived.
    pub(super) fn take(&self) -> Vec<Line> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.read_all(|buffer| (&self.pipe).read(buffer));
        printed.end_line();
        if printed.lost > 0 {
            let text = format!("[{} more lines were printed and are not kept]", printed.lost);
            printed.lines.push(Line { time_ms: now_ms(), text });
        }
        printed.lost = 0;
        printed.bytes = 0;
        std::mem::take(&mut printed.lines)
    }

    /// A process must never wait for room in the pipe.
    async fn keep_reading(self: Arc<Self>, receiver: Receiver) {
        while receiver.readable().await.is_ok() {
            let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
            printed.read_all(|buffer| receiver.try_read(buffer));
            if printed.ended {
                return;
            }
        }
    }
}

impl Printed {
    /// Reads until nothing is left, or a limit so that an endless printer can't hold the caller.
    fn read_all(&mut self, mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>) {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..256 {
            match read(&mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.add(&buffer[..length]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => self.ended = error.kind() != ErrorKind::WouldBlock,
            }
            return;
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = LONGEST_LINE.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if self.partial.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.partial);
        if self.bytes + bytes.len() > LARGEST {
            self.lost += 1;
            return;
        }
        self.bytes += bytes.len();
        self.lines
            .push(Line { time_ms: now_ms(), text: String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned() });
    }
}

pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
