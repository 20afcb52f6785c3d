//! An AF_PACKET socket: whole frames of one interface, one system call a burst, copied. It sees
//! what the kernel sees beside it; a classic filter keeps the rest of the traffic from being copied
//! at all.

use super::umem::Frame;
use super::{check, failed, option, set_option};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Frames of one system call.
pub const BATCH_FRAMES_MAX: usize = 64;

/// Receive buffer, so that a turn that takes long loses nothing: some 5,000 small frames.
const RECEIVE_BUFFER_BYTES: libc::c_int = 4 << 20;

/// Bytes of a tag, which the kernel takes out of a received frame and tells of beside it.
const TAG_BYTES: usize = 4;
const CONTROL_BYTES: usize = 64;

// Newer than, or not in, the libc crate.
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// One instruction of a classic BPF filter, as the kernel wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u16,
    pub if_true: u8,
    pub if_false: u8,
    pub value: u32,
}

/// A bound AF_PACKET socket.
pub struct PacketSocket {
    fd: OwnedFd,
}

/// While it lives the interface hears every multicast group, as those of its own; the kernel, which
/// asked for none of them, drops what is not taken before it.
pub struct Groups(#[allow(dead_code)] OwnedFd);

impl Groups {
    /// Hears all groups on an interface. Undone when dropped or when the process ends, in whatever
    /// way.
    ///
    /// # Errors
    /// Not permitted, or the interface is gone.
    pub fn hear(ifindex: u32) -> io::Result<Groups> {
        // Protocol 0: the socket itself receives nothing.
        // SAFETY: no pointers.
        let fd = check(
            unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) },
            "open an AF_PACKET socket (needs root or CAP_NET_RAW)",
        )?;
        // SAFETY: a descriptor just made, owned by nobody else.
        let groups = Groups(unsafe { OwnedFd::from_raw_fd(fd) });
        let request = libc::packet_mreq {
            mr_ifindex: ifindex as i32,
            mr_type: libc::PACKET_MR_ALLMULTI as u16,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        set_option(fd, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
            .map_err(|cause| failed("hear multicast groups, as IPv6 needs", cause))?;
        Ok(groups)
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Auxdata {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Filter {
    len: libc::c_ushort,
    instructions: *const Instruction,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Statistics {
    packets: u32,
    drops: u32,
}

/// Room for ancillary data, aligned as its header must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

impl PacketSocket {
    /// A socket that receives what comes in on an interface and passes `filter`.
    ///
    /// # Errors
    /// With what was attempted: not permitted, a filter that the kernel refuses, the interface is
    /// gone.
    pub fn bind(ifindex: u32, filter: &[Instruction]) -> io::Result<PacketSocket> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // Protocol 0: nothing is received before the filter is in place and the address bound.
        // SAFETY: no pointers.
        let fd = check(
            unsafe { libc::socket(libc::AF_PACKET, kind, 0) },
            "open an AF_PACKET socket (needs root or CAP_NET_RAW)",
        )?;
        // SAFETY: a descriptor just made, owned by nobody else.
        let socket = PacketSocket { fd: unsafe { OwnedFd::from_raw_fd(fd) } };
        let program = Filter { len: filter.len() as u16, instructions: filter.as_ptr() };
        set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
            .map_err(|cause| failed("attach a filter to the AF_PACKET socket", cause))?;
        for name in [PACKET_AUXDATA, PACKET_IGNORE_OUTGOING] {
            set_option(fd, libc::SOL_PACKET, name, &1i32)
                .map_err(|cause| failed("set up the AF_PACKET socket (needs Linux 4.20)", cause))?;
        }
        // Past the system's limit where that is permitted; a smaller buffer is no error.
        let _ = set_option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER_BYTES);
        // SAFETY: integers and an array; zero is valid for each.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = ifindex as i32;
        // SAFETY: pointer and length describe `address`.
        let result = unsafe {
            libc::bind(
                fd,
                std::ptr::from_ref(&address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        check(result, "bind the AF_PACKET socket")?;
        Ok(socket)
    }

    /// Receives into the first of `free` frames, at most `max` and [`BATCH_FRAMES_MAX`], and gives
    /// those that were filled, in order of arrival, with their 802.1Q tag put back; as an `Err`,
    /// without content, a frame whose packet was longer than a chunk and is lost. Never blocks. One
    /// system call.
    pub fn receive(
        &mut self,
        free: &mut Vec<Frame>,
        max: usize,
        mut give: impl FnMut(Result<Frame, Frame>),
    ) {
        let count = free.len().min(max).min(BATCH_FRAMES_MAX);
        // SAFETY: integers and null pointers.
        let mut headers: [libc::mmsghdr; BATCH_FRAMES_MAX] = unsafe { std::mem::zeroed() };
        let mut vectors = [EMPTY; BATCH_FRAMES_MAX];
        let mut controls = [Control([0; CONTROL_BYTES]); BATCH_FRAMES_MAX];
        for (index, frame) in free[..count].iter_mut().enumerate() {
            frame.reset(frame.capacity());
            let room_bytes = frame.capacity() - TAG_BYTES;
            let room = &mut frame.bytes_mut()[..room_bytes];
            vectors[index] =
                libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let header = &mut headers[index].msg_hdr;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = controls[index].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: `count` headers, each with one vector over the bytes of a frame that we hold and
        // one control buffer, all of them alive and not looked at during the call.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let filled = received.max(0) as usize;
        let outcomes = headers[..filled].iter().zip(&controls);
        for (mut frame, (header, control)) in free.drain(..filled).zip(outcomes) {
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
                frame.truncate(0);
                give(Err(frame));
                continue;
            }
            let control = &control.0[..header.msg_hdr.msg_controllen];
            settle(&mut frame, header.msg_len as usize, tag(control));
            give(Ok(frame));
        }
    }

    /// Sends the first of `frames`, in order; how many. Fewer than all: the interface's queue is
    /// full, try the rest later. Never blocks. One system call.
    ///
    /// # Errors
    /// The first frame can't be sent at all: it is longer than the MTU, for instance. The others
    /// were not tried.
    pub fn send(&mut self, frames: &[Frame]) -> io::Result<usize> {
        let count = frames.len().min(BATCH_FRAMES_MAX);
        // SAFETY: integers and null pointers.
        let mut headers: [libc::mmsghdr; BATCH_FRAMES_MAX] = unsafe { std::mem::zeroed() };
        let mut vectors = [EMPTY; BATCH_FRAMES_MAX];
        for (index, frame) in frames[..count].iter().enumerate() {
            let bytes = frame.bytes();
            let iov_base = bytes.as_ptr().cast_mut().cast();
            vectors[index] = libc::iovec { iov_base, iov_len: bytes.len() };
            headers[index].msg_hdr.msg_iov = &mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: `count` headers, each with one vector over the bytes of a frame; sendmmsg only
        // reads them.
        let sent = unsafe {
            libc::sendmmsg(
                self.fd.as_raw_fd(),
                headers.as_mut_ptr(),
                count as u32,
                libc::MSG_DONTWAIT,
            )
        };
        if sent >= 0 {
            return Ok(sent as usize);
        }
        let cause = io::Error::last_os_error();
        match cause.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EBUSY | libc::EINTR | libc::ENETDOWN) => {
                Ok(0)
            }
            _ => Err(failed("send a frame", cause)),
        }
    }

    /// Frames that the kernel dropped since the last call because the receive buffer was full.
    pub fn take_drops(&self) -> u32 {
        // SAFETY: a struct of integers.
        let statistics: io::Result<Statistics> =
            unsafe { option(self.fd.as_raw_fd(), libc::SOL_PACKET, PACKET_STATISTICS) };
        statistics.map_or(0, |statistics| statistics.drops)
    }
}

const EMPTY: libc::iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };

/// Cuts a frame to the `len` bytes received, with the tag put back behind the addresses.
fn settle(frame: &mut Frame, len: usize, tag: Option<[u8; TAG_BYTES]>) {
    const ADDRESSES_BYTES: usize = 12;
    match tag {
        Some(tag) if len >= ADDRESSES_BYTES => {
            frame.truncate(len + TAG_BYTES);
            let bytes = frame.bytes_mut();
            bytes.copy_within(ADDRESSES_BYTES..len, ADDRESSES_BYTES + TAG_BYTES);
            bytes[ADDRESSES_BYTES..][..TAG_BYTES].copy_from_slice(&tag);
        }
        _ => frame.truncate(len),
    }
}

/// The tag that the kernel took out of a received frame, if it had one.
fn tag(control: &[u8]) -> Option<[u8; TAG_BYTES]> {
    const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
    let data = control.get(HEADER_BYTES..HEADER_BYTES + size_of::<Auxdata>())?;
    // SAFETY: the kernel puts one message here, PACKET_AUXDATA, because that is all we asked for;
    // it has the bytes of an Auxdata, for which any bit pattern is valid.
    let auxdata = unsafe { data.as_ptr().cast::<Auxdata>().read_unaligned() };
    if auxdata.status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let tpid =
        if auxdata.status & TP_STATUS_VLAN_TPID_VALID != 0 { auxdata.vlan_tpid } else { 0x8100 };
    let ([a, b], [c, d]) = (tpid.to_be_bytes(), auxdata.vlan_tci.to_be_bytes());
    Some([a, b, c, d])
}
