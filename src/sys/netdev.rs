//! What a driver says that AF_XDP sockets can have of it, asked by generic netlink (the kernel's
//! family `netdev`, Linux 6.3): the one thing of an interface that no ioctl tells.

use super::check;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Bytes of an attribute's header, of a message's, and of that of generic netlink.
const ATTRIBUTE_BYTES: usize = 4;
const MESSAGE_BYTES: usize = 16;
const GENERIC_BYTES: usize = 4;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XSK_FEATURES: u16 = 6;
const NETDEV_XSK_FLAGS_TX_CHECKSUM: u64 = 1 << 1;

/// True if the driver of an interface puts checksums into what AF_XDP sends without copying.
///
/// # Errors
/// The kernel does not know the question, or the interface.
pub fn sums(ifindex: u32) -> io::Result<bool> {
    let asker = Asker::new()?;
    let name = attribute(libc::CTRL_ATTR_FAMILY_NAME as u16, b"netdev\0");
    let of_controller =
        asker.ask(libc::GENL_ID_CTRL as u16, libc::CTRL_CMD_GETFAMILY as u8, &name)?;
    let family = find(&of_controller, libc::CTRL_ATTR_FAMILY_ID as u16)
        .and_then(|bytes| Some(u16::from_ne_bytes(bytes.try_into().ok()?)))
        .ok_or(io::ErrorKind::InvalidData)?;
    let index = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let of_device = asker.ask(family, NETDEV_CMD_DEV_GET, &index)?;
    let features = find(&of_device, NETDEV_A_DEV_XSK_FEATURES)
        .and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)))
        .unwrap_or(0);
    Ok(features & NETDEV_XSK_FLAGS_TX_CHECKSUM != 0)
}

struct Asker {
    fd: OwnedFd,
}

impl Asker {
    fn new() -> io::Result<Asker> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = check(
            unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) },
            "open a netlink socket",
        )?;
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(Asker { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Sends a request with one attribute; answers the attributes of what comes back.
    fn ask(&self, family: u16, command: u8, attribute: &[u8]) -> io::Result<Vec<u8>> {
        let len = (MESSAGE_BYTES + GENERIC_BYTES + attribute.len()) as u32;
        let flags = libc::NLM_F_REQUEST as u16;
        let mut message = Vec::with_capacity(len as usize);
        message.extend(len.to_ne_bytes());
        message.extend(family.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence number and port: one question is under way, of one socket.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attribute);
        // SAFETY: pointer and length are those of `message`, which the kernel only reads.
        let sent =
            unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        check(sent as libc::c_int, "ask by netlink")?;
        let mut answer = vec![0u8; 8192];
        // SAFETY: the kernel writes at most as many bytes as `answer` has.
        let received =
            unsafe { libc::recv(self.fd.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        answer.truncate(check(received as libc::c_int, "hear by netlink")? as usize);
        attributes_of(&answer)
    }
}

/// The attributes of an answer.
fn attributes_of(answer: &[u8]) -> io::Result<Vec<u8>> {
    let field = |at: usize, len: usize| answer.get(at..at + len).ok_or(io::ErrorKind::InvalidData);
    let kind = u16::from_ne_bytes([field(4, 1)?[0], field(5, 1)?[0]]);
    if i32::from(kind) == libc::NLMSG_ERROR {
        let errno = field(MESSAGE_BYTES, 4)?.try_into().map(i32::from_ne_bytes).unwrap_or(0);
        return Err(io::Error::from_raw_os_error(-errno));
    }
    Ok(answer.get(MESSAGE_BYTES + GENERIC_BYTES..).ok_or(io::ErrorKind::InvalidData)?.to_vec())
}

/// An attribute with its header, filled up to a whole number of words.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = ATTRIBUTE_BYTES + value.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// The value of the first attribute of a kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(&[len_low, len_high, kind_low, kind_high]) = attributes.first_chunk() {
        let len = usize::from(u16::from_ne_bytes([len_low, len_high]));
        let value = attributes.get(ATTRIBUTE_BYTES..len)?;
        if u16::from_ne_bytes([kind_low, kind_high]) == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_among_others_and_no_garbage_hangs_or_panics() {
        let all = [attribute(1, b"abc"), attribute(2, b""), attribute(6, &[7; 8])].concat();
        assert_eq!(find(&all, 6), Some(&[7; 8][..]));
        assert_eq!(find(&all, 2), Some(&[][..]));
        assert_eq!(find(&all, 3), None);
        assert_eq!(find(&all[..all.len() - 1], 6), None);
        assert_eq!(find(&[0; 64], 6), None, "a length of zero");
        assert_eq!(find(&[0xff; 3], 6), None);
    }

    #[test]
    fn an_error_is_told_from_an_answer() {
        let mut answer = vec![0; 36];
        answer[4..6].copy_from_slice(&(libc::NLMSG_ERROR as u16).to_ne_bytes());
        answer[16..20].copy_from_slice(&(-libc::ENOENT).to_ne_bytes());
        assert_eq!(attributes_of(&answer).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(attributes_of(&answer[..10]).is_err());
    }

    #[test]
    fn loopback_sums_nothing_and_an_interface_that_is_not_there_is_an_error() {
        assert!(!sums(1).unwrap());
        assert!(sums(u32::MAX >> 1).is_err());
    }
}
