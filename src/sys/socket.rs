//! An AF_XDP socket: one queue of one interface, its four rings, and the frames it was lent.
//!
//! Frames go in by value and come out by value; descriptors and addresses stay inside. That is what
//! makes it safe: every address that reaches the kernel comes from [`Lent::lend`], and every
//! address that the kernel gives back must pass [`Lent::reclaim`] before it is a [`Frame`] again.
//! The same memory may be registered with many sockets; a chunk is lent to one at a time.
//!
//! The socket only receives what an XDP program redirects to it (see [`super::bpf`]). It never
//! blocks.

use super::ring::{Consumer, Entry, Mapping, Offsets, Producer};
use super::umem::{Frame, Lent, Umem};
use super::{check, failed, option, set_option};
use libc::{c_int, xdp_desc};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

// Newer than the libc crate.
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// Bytes before a packet that tell the driver what to do with it: struct xsk_tx_metadata of today,
/// of which the libc crate has the first two thirds. Those are what we use.
const METADATA_BYTES: u16 = 24;
/// Where in a TCP header the checksum stands.
const TCP_CHECKSUM_AT: u16 = 16;

/// Packets that one kick sends in copy mode. The kernel's 32 makes two calls of a full burst; 128
/// halved the calls and more did not help.
const TX_BUDGET_FRAMES: c_int = 128;
/// A queue's previous owner may be gone and its socket still being torn down: binding is tried
/// again this often.
const BUSY_RETRIES: u32 = 50;
const BUSY_RETRY_PAUSE: Duration = Duration::from_millis(10);

/// One AF_XDP socket, bound.
pub struct Socket {
    // The rings' mappings keep the socket's memory, not the socket: the fd is closed first.
    fd: OwnedFd,
    fill: Producer<u64>,
    rx: Consumer<xdp_desc>,
    tx: Producer<xdp_desc>,
    completion: Consumer<u64>,
    lent: Lent,
    zero_copy: bool,
    sums: bool,
    spoiled: u64,
}

/// How a socket is bound to its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The NIC writes into our memory, or binding fails.
    pub zero_copy: bool,
    /// A packet that is longer than a chunk comes and goes in several (XDP_USE_SG, Linux 6.6).
    pub fragments: bool,
    /// Checksums may be left to the device, or in copy mode to the kernel
    /// (XDP_UMEM_TX_METADATA_LEN, Linux 6.11).
    pub sums: bool,
}

/// What the kernel counted for one socket (XDP_STATISTICS), and the descriptors that it gave back
/// wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Received packets dropped for other reasons than a full rx ring, an MTU above the chunk for
    /// instance.
    pub rx_dropped: u64,
    /// Fill ring entries that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Tx ring entries that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Received packets dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// Times a packet found the fill ring empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Times the kernel found the tx ring empty.
    pub tx_ring_empty_descs: u64,
    /// Descriptors from the kernel that named a chunk it was not lent. Always 0 unless the kernel
    /// errs.
    pub spoiled_descs: u64,
}

impl Socket {
    /// Registers the memory, makes the four rings of `ring_frames` entries each and binds to a
    /// queue: in zero-copy mode or not at all if `way` says so, else in copy mode. With fragments a
    /// packet may take several frames. Retries for half a second while the queue is busy.
    ///
    /// # Errors
    /// With what was attempted and what to do. `Unsupported`: no AF_XDP, or no zero-copy or no
    /// fragments here.
    /// `ResourceBusy`: another socket has the queue. `InvalidInput`: no such queue. `NetworkDown`,
    /// `PermissionDenied`, and others as they come.
    ///
    /// # Panics
    /// If `ring_frames` is not a power of two.
    pub fn bind(
        umem: &Arc<Umem>,
        ifindex: u32,
        queue: u32,
        way: Way,
        ring_frames: u32,
    ) -> io::Result<Socket> {
        assert!(ring_frames.is_power_of_two());
        for _ in 0..BUSY_RETRIES {
            match Socket::try_bind(umem, ifindex, queue, way, ring_frames) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(BUSY_RETRY_PAUSE);
                }
                result => return result,
            }
        }
        Socket::try_bind(umem, ifindex, queue, way, ring_frames)
    }

    fn try_bind(
        umem: &Arc<Umem>,
        ifindex: u32,
        queue: u32,
        way: Way,
        ring_frames: u32,
    ) -> io::Result<Socket> {
        let fd = open()?;
        register(&fd, umem, way.sums)?;
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            set_option(fd.as_raw_fd(), libc::SOL_XDP, ring, &ring_frames)
                .map_err(|cause| failed(format_args!("make a ring of {ring_frames}"), cause))?;
        }
        // SAFETY: a struct of integers.
        let offsets: libc::xdp_mmap_offsets =
            unsafe { option(fd.as_raw_fd(), libc::SOL_XDP, libc::XDP_MMAP_OFFSETS) }
                .map_err(|cause| failed("ask where the rings are", cause))?;
        let fill_at = map::<u64>(&fd, offsets.fr, libc::XDP_UMEM_PGOFF_FILL_RING, ring_frames)?;
        let completion_at =
            map::<u64>(&fd, offsets.cr, libc::XDP_UMEM_PGOFF_COMPLETION_RING, ring_frames)?;
        let rx_at = map::<xdp_desc>(&fd, offsets.rx, libc::XDP_PGOFF_RX_RING as u64, ring_frames)?;
        let tx_at = map::<xdp_desc>(&fd, offsets.tx, libc::XDP_PGOFF_TX_RING as u64, ring_frames)?;
        // Since Linux 6.17; before, one kick sends 32 packets at most.
        let _ = set_option(fd.as_raw_fd(), libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &TX_BUDGET_FRAMES);

        let mode = if way.zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        let fragments = if way.fragments { libc::XDP_USE_SG } else { 0 };
        attach_to_queue(&fd, ifindex, queue, mode | fragments | libc::XDP_USE_NEED_WAKEUP)?;
        // SAFETY: a struct of one integer.
        let options: libc::xdp_options =
            unsafe { option(fd.as_raw_fd(), libc::SOL_XDP, libc::XDP_OPTIONS) }
                .unwrap_or(libc::xdp_options { flags: 0 });
        Ok(Socket {
            fd,
            fill: Producer::new(fill_at.0, fill_at.1, ring_frames),
            rx: Consumer::new(rx_at.0, rx_at.1, ring_frames),
            tx: Producer::new(tx_at.0, tx_at.1, ring_frames),
            completion: Consumer::new(completion_at.0, completion_at.1, ring_frames),
            lent: Lent::new(umem.clone()),
            zero_copy: options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0,
            sums: way.sums,
            spoiled: 0,
        })
    }

    /// How many frames [`Socket::fill`] takes now, if that is at least `wanted`; else possibly
    /// fewer than fit.
    pub fn fill_room(&mut self, wanted: u32) -> u32 {
        self.fill.room(wanted)
    }

    /// Lends free frames to receive into.
    ///
    /// # Panics
    /// If there are more than [`Socket::fill_room`], or a frame is of other memory.
    pub fn fill(&mut self, frames: impl Iterator<Item = Frame>) {
        for frame in frames {
            let (addr, _) = self.lent.lend(frame);
            self.fill.push(addr);
        }
        self.fill.submit();
    }

    /// Takes at most `max` received frames, in order of arrival. With each comes whether the packet
    /// goes on in the next; never so unless the socket was bound for fragments.
    pub fn receive(&mut self, max: u32, mut give: impl FnMut(Frame, bool)) {
        for _ in 0..self.rx.ready(max).min(max) {
            let desc = self.rx.pop();
            match self.lent.reclaim(desc.addr, desc.len) {
                Some(frame) => give(frame, desc.options & libc::XDP_PKT_CONTD != 0),
                None => self.spoiled += 1,
            }
        }
        self.rx.release();
    }

    /// How many frames [`Socket::send`] takes now, if that is at least `wanted`; else possibly
    /// fewer than fit.
    pub fn send_room(&mut self, wanted: u32) -> u32 {
        self.tx.room(wanted)
    }

    /// Queues frames for sending, each with whether its packet goes on in the next;
    /// [`Socket::kick`] makes the kernel look.
    ///
    /// # Panics
    /// If there are more than [`Socket::send_room`], a frame is of other memory, or its checksum is
    /// left to a device that was not bound for that.
    pub fn send(&mut self, frames: impl Iterator<Item = (Frame, bool)>) {
        for (mut frame, goes_on) in frames {
            let mut options = if goes_on { libc::XDP_PKT_CONTD } else { 0 };
            if let Some(at) = frame.unsummed_at() {
                assert!(self.sums, "a checksum was left to a device that does not sum");
                ask_to_sum(frame.before_mut(METADATA_BYTES), at);
                options |= libc::XDP_TX_METADATA;
            }
            let (addr, len) = self.lent.lend(frame);
            self.tx.push(xdp_desc { addr, len, options });
        }
        self.tx.submit();
    }

    /// Takes back at most `max` frames whose transmission is complete.
    pub fn complete(&mut self, max: u32, mut give: impl FnMut(Frame)) {
        for _ in 0..self.completion.ready(max).min(max) {
            let addr = self.completion.pop();
            match self.lent.reclaim(addr, 0) {
                Some(frame) => give(frame),
                None => self.spoiled += 1,
            }
        }
        self.completion.release();
    }

    /// True if frames wait to be sent and the kernel will not see them without a [`Socket::kick`].
    pub fn needs_kick(&self) -> bool {
        self.tx.needs_wakeup() && self.tx.waiting() > 0
    }

    /// True if the driver waits for a [`Socket::wake`] before it takes frames from the fill ring.
    pub fn needs_wake(&self) -> bool {
        self.fill.needs_wakeup()
    }

    /// Makes the kernel send what waits (sendto). False: it could not take all now (EAGAIN, EBUSY,
    /// ENOBUFS, the interface is down); what is left stays in the ring, try again later.
    pub fn kick(&mut self) -> bool {
        // SAFETY: no buffer and no address are passed.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                std::ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null(),
                0,
            )
        };
        sent >= 0
    }

    /// Makes the driver look at the fill ring, and busy-polls if that was asked for (recvfrom).
    pub fn wake(&mut self) {
        // SAFETY: no buffer and no address are passed.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }

    /// True if checksums may be left to the device.
    pub fn sums(&self) -> bool {
        self.sums
    }

    /// True if packets are not copied.
    pub fn zero_copy(&self) -> bool {
        self.zero_copy
    }

    /// Frames in the kernel's hands through this socket.
    pub fn lent(&self) -> u32 {
        self.lent.count()
    }

    /// What the kernel counted so far.
    pub fn statistics(&self) -> Statistics {
        // SAFETY: a struct of integers.
        let kernel: io::Result<libc::xdp_statistics> =
            unsafe { option(self.fd.as_raw_fd(), libc::SOL_XDP, libc::XDP_STATISTICS) };
        let mut statistics = Statistics { spoiled_descs: self.spoiled, ..Statistics::default() };
        if let Ok(kernel) = kernel {
            statistics.rx_dropped = kernel.rx_dropped;
            statistics.rx_invalid_descs = kernel.rx_invalid_descs;
            statistics.tx_invalid_descs = kernel.tx_invalid_descs;
            statistics.rx_ring_full = kernel.rx_ring_full;
            statistics.rx_fill_ring_empty_descs = kernel.rx_fill_ring_empty_descs;
            statistics.tx_ring_empty_descs = kernel.tx_ring_empty_descs;
        }
        statistics
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether this process may make AF_XDP sockets at all.
///
/// # Errors
/// Why not, and what to do.
pub fn probe() -> io::Result<()> {
    open().map(drop)
}

fn open() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = check(
        unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) },
        "open an AF_XDP socket (needs root or CAP_NET_RAW, and a kernel with CONFIG_XDP_SOCKETS)",
    )?;
    // SAFETY: a descriptor just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes what makes a driver put the checksum of a packet into its TCP header, which begins at
/// `at`.
fn ask_to_sum(metadata: &mut [u8], at: u8) {
    metadata.fill(0);
    metadata[..8].copy_from_slice(&u64::from(libc::XDP_TXMD_FLAGS_CHECKSUM).to_ne_bytes());
    metadata[8..10].copy_from_slice(&u16::from(at).to_ne_bytes());
    metadata[10..12].copy_from_slice(&TCP_CHECKSUM_AT.to_ne_bytes());
}

fn register(fd: &OwnedFd, umem: &Umem, sums: bool) -> io::Result<()> {
    let (addr, len) = umem.region();
    let region = libc::xdp_umem_reg {
        addr,
        len,
        chunk_size: umem.chunk_bytes(),
        headroom: 0,
        flags: if sums { libc::XDP_UMEM_TX_METADATA_LEN } else { 0 },
        tx_metadata_len: if sums { METADATA_BYTES.into() } else { 0 },
    };
    set_option(fd.as_raw_fd(), libc::SOL_XDP, libc::XDP_UMEM_REG, &region).map_err(|cause| {
        let attempt = format!(
            "register {len} bytes of packet memory (if it is the memlock limit: \
             `ulimit -l unlimited`, or run with CAP_IPC_LOCK)"
        );
        failed(attempt, cause)
    })
}

/// Maps one ring of `len` entries of T.
fn map<T: Entry>(
    fd: &OwnedFd,
    offsets: libc::xdp_ring_offset,
    page_offset: u64,
    len: u32,
) -> io::Result<(Arc<Mapping>, Offsets)> {
    let bytes = offsets.desc as usize + len as usize * size_of::<T>();
    let mapping = Mapping::of_fd(fd.as_raw_fd(), page_offset, bytes)
        .map_err(|cause| failed("map a ring", cause))?;
    let offsets = Offsets {
        producer: offsets.producer as usize,
        consumer: offsets.consumer as usize,
        flags: offsets.flags as usize,
        entries: offsets.desc as usize,
    };
    Ok((Arc::new(mapping), offsets))
}

fn attach_to_queue(fd: &OwnedFd, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    // SAFETY: pointer and length describe `address`.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            size_of::<libc::sockaddr_xdp>() as libc::socklen_t,
        )
    };
    check(result, &format!("bind queue {queue}")).map(drop)
}
