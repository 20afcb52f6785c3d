//! Everything that passes a device, into a file for tshark: a wrapper that is a device itself.
//!
//! The format is pcap with nanoseconds, Ethernet. Writing is buffered, but it is file I/O on the
//! worker's thread: for looking closely, not for measuring. An error never stops the run: it is
//! counted, the recording ends, and [`Pcap::finish`] tells.

use super::{Device, Report};
use crate::frame::{Burst, Pool};
use crate::time::Instant;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::SystemTime;

/// The magic number of a pcap file whose timestamps are in nanoseconds.
const MAGIC: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
/// Longest packet that the file may hold, in bytes: more than any frame of ours.
const SNAP_BYTES: u32 = 65_535;

/// A device whose frames are recorded in both directions.
pub struct Pcap<D, W: Write = BufWriter<File>> {
    inner: D,
    capture: Capture<W>,
    /// Frames at the front of `tx` that were recorded when they were first offered, and left there
    /// by the device.
    offered: usize,
}

/// A pcap stream being written.
pub struct Capture<W: Write> {
    out: W,
    /// Wall-clock time of the run's origin, in ns since 1970.
    origin_ns: u64,
    frames_left: u64,
    recorded: u64,
    skipped: u64,
    /// The first error. Nothing is written after it.
    failed: Option<io::Error>,
}

impl<D: Device> Pcap<D> {
    /// Records what passes `inner` into a new file at `path`, up to `frames_max` frames. `origin`
    /// is the wall-clock time of [`Instant::ZERO`].
    ///
    /// # Errors
    /// The file can't be created or written.
    pub fn create(
        inner: D,
        path: &Path,
        origin: SystemTime,
        frames_max: Option<u64>,
    ) -> io::Result<Pcap<D>> {
        let file = File::create(path).map_err(|cause| explain(&cause, "create", path))?;
        let capture = Capture::new(BufWriter::new(file), origin, frames_max)
            .map_err(|cause| explain(&cause, "write to", path))?;
        Ok(Pcap { inner, capture, offered: 0 })
    }
}

impl<D, W: Write> Pcap<D, W> {
    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first error of the whole recording: the file is incomplete from there on.
    pub fn finish(&mut self) -> io::Result<()> {
        self.capture.finish()
    }
}

impl<D: Device, W: Write> Device for Pcap<D, W> {
    fn rx(&mut self, now: Instant, pool: &mut Pool, rx: &mut Burst) {
        let before = rx.len();
        self.inner.rx(now, pool, rx);
        for frame in &rx.frames()[before..] {
            self.capture.record(now, frame.bytes());
        }
    }

    fn tx(&mut self, now: Instant, pool: &mut Pool, tx: &mut Burst) {
        for frame in &tx.frames()[self.offered..] {
            self.capture.record(now, frame.bytes());
        }
        self.inner.tx(now, pool, tx);
        self.offered = tx.len();
    }

    fn lent(&self) -> usize {
        self.inner.lent()
    }

    fn report(&self) -> Report {
        // Recorded is what goes over the wire, with its checksums.
        let mut report = Report { sums: false, ..self.inner.report() };
        report.counters.extend([
            ("pcap_frames_total", self.capture.recorded),
            ("pcap_skipped_total", self.capture.skipped),
            ("pcap_errors_total", u64::from(self.capture.failed.is_some())),
        ]);
        report
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }
}

impl<W: Write> Capture<W> {
    /// Begins a stream of up to `frames_max` frames.
    ///
    /// # Errors
    /// The file header can't be written.
    pub fn new(mut out: W, origin: SystemTime, frames_max: Option<u64>) -> io::Result<Capture<W>> {
        let mut header = [0; 24];
        header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        header[4..6].copy_from_slice(&2u16.to_le_bytes());
        header[6..8].copy_from_slice(&4u16.to_le_bytes());
        header[16..20].copy_from_slice(&SNAP_BYTES.to_le_bytes());
        header[20..24].copy_from_slice(&LINKTYPE_ETHERNET.to_le_bytes());
        out.write_all(&header)?;
        let since_1970 = origin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Ok(Capture {
            out,
            origin_ns: since_1970.as_nanos() as u64,
            frames_left: frames_max.unwrap_or(u64::MAX),
            recorded: 0,
            skipped: 0,
            failed: None,
        })
    }

    /// Writes one frame; after an error or beyond the limit it is only counted.
    pub fn record(&mut self, now: Instant, frame: &[u8]) {
        if self.failed.is_some() || self.frames_left == 0 {
            self.skipped += 1;
            return;
        }
        let nanos = self.origin_ns + now.as_nanos();
        let len = frame.len() as u32;
        let mut header = [0; 16];
        header[0..4].copy_from_slice(&((nanos / 1_000_000_000) as u32).to_le_bytes());
        header[4..8].copy_from_slice(&((nanos % 1_000_000_000) as u32).to_le_bytes());
        header[8..12].copy_from_slice(&len.to_le_bytes());
        header[12..16].copy_from_slice(&len.to_le_bytes());
        match self.out.write_all(&header).and_then(|()| self.out.write_all(frame)) {
            Ok(()) => {
                self.frames_left -= 1;
                self.recorded += 1;
            }
            Err(cause) => {
                self.skipped += 1;
                self.failed = Some(cause);
            }
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first error since the start.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(cause) = self.failed.take() {
            // Still failed for the counters and for later frames.
            self.failed = Some(io::Error::new(cause.kind(), cause.to_string()));
            return Err(cause);
        }
        self.out.flush()
    }
}

fn explain(cause: &io::Error, attempted: &str, path: &Path) -> io::Error {
    io::Error::new(cause.kind(), format!("{attempted} {}: {cause}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::link;
    use std::time::Duration;

    /// Takes `room` bytes, then fails.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.bytes.len() + bytes.len() > self.room {
                return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
            }
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A recorded end of a link, its pool, and the other end.
    fn rig(
        room: usize,
        frames_max: Option<u64>,
    ) -> (Pcap<link::Link, Disk>, Pool, link::Link, Pool) {
        let (pool, peer_pool) = Pool::pair(128).unwrap();
        let (a, b) = link::pair(pool.umem(), 2);
        let origin = SystemTime::UNIX_EPOCH + Duration::new(1_000, 999_999_999);
        let capture = Capture::new(Disk { bytes: Vec::new(), room }, origin, frames_max).unwrap();
        (Pcap { inner: a, capture, offered: 0 }, pool, b, peer_pool)
    }

    fn push(pool: &mut Pool, tx: &mut Burst, bytes: &[u8]) {
        let mut frame = pool.take().unwrap();
        frame.reset(bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        tx.push(frame);
    }

    /// (nanoseconds since 1970, frame) of each record.
    fn records(file: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(20)), (0xa1b2_3c4d, 0x0004_0002, 1));
        let (mut at, mut records) = (24, Vec::new());
        while at < file.len() {
            let len = word(at + 8) as usize;
            assert_eq!(word(at + 12) as usize, len);
            let nanos = u64::from(word(at)) * 1_000_000_000 + u64::from(word(at + 4));
            records.push((nanos, file[at + 16..at + 16 + len].to_vec()));
            at += 16 + len;
        }
        records
    }

    #[test]
    fn both_directions_are_recorded_once_with_their_times() {
        let (mut dev, mut pool, mut peer, mut peer_pool) = rig(1 << 20, None);
        let (mut tx, mut rx) = (Burst::new(), Burst::new());
        for bytes in [b"a".as_slice(), b"bb", b"ccc"] {
            push(&mut pool, &mut tx, bytes);
        }
        dev.tx(Instant::from_nanos(1), &mut pool, &mut tx);
        assert_eq!(tx.len(), 1, "the ring takes two, the third is offered again");
        peer.rx(Instant::ZERO, &mut peer_pool, &mut rx);
        dev.tx(Instant::from_nanos(2), &mut pool, &mut tx);
        assert!(tx.is_empty());
        push(&mut peer_pool, &mut tx, b"dddd");
        peer.tx(Instant::ZERO, &mut peer_pool, &mut tx);
        let mut ours = Burst::new();
        dev.rx(Instant::from_nanos(3), &mut pool, &mut ours);
        dev.finish().unwrap();
        let origin = 1_000_999_999_999;
        let expected = [(1, "a"), (1, "bb"), (1, "ccc"), (3, "dddd")];
        let expected = expected.map(|(nanos, bytes)| (origin + nanos, bytes.as_bytes().to_vec()));
        assert_eq!(records(&dev.capture.out.bytes), expected);
        assert!(dev.report().counters.contains(&("pcap_frames_total", 4)));
    }

    #[test]
    fn frames_beyond_the_limit_are_counted() {
        let (mut dev, mut pool, _peer, _peer_pool) = rig(1 << 20, Some(1));
        let mut tx = Burst::new();
        push(&mut pool, &mut tx, b"first");
        push(&mut pool, &mut tx, b"second");
        dev.tx(Instant::ZERO, &mut pool, &mut tx);
        assert_eq!(records(&dev.capture.out.bytes).len(), 1);
        assert!(dev.report().counters.contains(&("pcap_skipped_total", 1)));
        assert!(dev.finish().is_ok());
    }

    #[test]
    fn a_full_disk_ends_the_recording_and_not_the_run() {
        let (mut dev, mut pool, mut peer, mut peer_pool) = rig(50, None);
        let (mut tx, mut rx) = (Burst::new(), Burst::new());
        push(&mut pool, &mut tx, &[7; 60]);
        push(&mut pool, &mut tx, b"small enough, but after the error");
        dev.tx(Instant::ZERO, &mut pool, &mut tx);
        peer.rx(Instant::ZERO, &mut peer_pool, &mut rx);
        assert_eq!(rx.len(), 2, "the frames went on their way");
        assert!(dev.report().counters.contains(&("pcap_errors_total", 1)));
        assert!(dev.report().counters.contains(&("pcap_skipped_total", 2)));
        let error = dev.finish().unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (io::ErrorKind::StorageFull, "no space left".into())
        );
    }

    #[test]
    fn a_file_that_can_not_be_created_is_named_in_the_error() {
        let (pool, _peer_pool) = Pool::pair(128).unwrap();
        let (a, _b) = link::pair(pool.umem(), 2);
        let path = Path::new("/nonexistent/run.pcap");
        let error = Pcap::create(a, path, SystemTime::UNIX_EPOCH, None).err().unwrap();
        assert!(error.to_string().starts_with("create /nonexistent/run.pcap: "), "{error}");
    }
}
