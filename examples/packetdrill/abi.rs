//! The C side: the struct of callbacks that packetdrill fills its calls in by, and pointers made
//! into values. The only unsafe code of the shim.
//!
//! What every block here rests on is packetdrill's promise: `userdata` is what `init` put into the
//! struct until `free`, and every other pointer is as its system call wants it, for the length of
//! the call.

use crate::blocking::{Shared, World};
use crate::calls::Half;
use crate::flags::Settings;
use crate::net::Net;
use crate::{Errno, Outcome, address};
use libc::{c_char, c_int, c_long, c_longlong, c_uint, c_ulong, c_void, socklen_t, ssize_t};
use shakedown::time::{Instant, Span};
use std::ffi::CStr;
use std::net::SocketAddr;
use std::slice;

/// `struct packetdrill_interface`: the same 33 pointers in the same order.
#[repr(C)]
pub struct Interface {
    userdata: *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    socket: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int) -> c_int,
    bind: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, socklen_t) -> c_int,
    listen: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    accept: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, *mut socklen_t) -> c_int,
    connect: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, socklen_t) -> c_int,
    read: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, usize) -> ssize_t,
    readv: unsafe extern "C" fn(*mut c_void, c_int, *const libc::iovec, c_int) -> ssize_t,
    recv: unsafe extern "C" fn(*mut c_void, c_int, *mut c_void, usize, c_int) -> ssize_t,
    recvfrom: RecvFrom,
    recvmsg: unsafe extern "C" fn(*mut c_void, c_int, *mut libc::msghdr, c_int) -> ssize_t,
    write: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize) -> ssize_t,
    writev: unsafe extern "C" fn(*mut c_void, c_int, *const libc::iovec, c_int) -> ssize_t,
    send: unsafe extern "C" fn(*mut c_void, c_int, *const c_void, usize, c_int) -> ssize_t,
    sendto: SendTo,
    sendmsg: unsafe extern "C" fn(*mut c_void, c_int, *const libc::msghdr, c_int) -> ssize_t,
    // The last two are variadic in C: on x86-64 and AArch64 Linux a third argument that is fixed
    // stands in the same register.
    fcntl: unsafe extern "C" fn(*mut c_void, c_int, c_int, c_long) -> c_int,
    ioctl: unsafe extern "C" fn(*mut c_void, c_int, c_ulong, *mut c_int) -> c_int,
    close: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    shutdown: unsafe extern "C" fn(*mut c_void, c_int, c_int) -> c_int,
    getsockopt: GetOption,
    setsockopt:
        unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    poll: unsafe extern "C" fn(*mut c_void, *mut libc::pollfd, libc::nfds_t, c_int) -> c_int,
    netdev_send: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int,
    netdev_receive:
        unsafe extern "C" fn(*mut c_void, *mut c_void, *mut usize, *mut c_longlong) -> c_int,
    usleep: unsafe extern "C" fn(*mut c_void, c_uint) -> c_int,
    gettimeofday: unsafe extern "C" fn(*mut c_void, *mut libc::timeval, *mut c_void) -> c_int,
    epoll_create: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    epoll_ctl:
        unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut libc::epoll_event) -> c_int,
    epoll_wait:
        unsafe extern "C" fn(*mut c_void, c_int, *mut libc::epoll_event, c_int, c_int) -> c_int,
    pipe: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    splice: Splice,
}

type RecvFrom = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *mut c_void,
    usize,
    c_int,
    *mut c_void,
    *mut socklen_t,
) -> ssize_t;
type SendTo = unsafe extern "C" fn(
    *mut c_void,
    c_int,
    *const c_void,
    usize,
    c_int,
    *const c_void,
    socklen_t,
) -> ssize_t;
type GetOption =
    unsafe extern "C" fn(*mut c_void, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;
type Splice =
    unsafe extern "C" fn(*mut c_void, c_int, *mut i64, c_int, *mut i64, usize, c_uint) -> ssize_t;

const _: () = assert!(size_of::<Interface>() == 33 * size_of::<*mut c_void>());

/// Makes a host from `so_flags` and fills in `out`. What is wrong with the flags is said on stderr
/// and ends the process: there is no other way to refuse.
///
/// # Safety
/// `so_flags` is null or a C string; `out` has room for the struct.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(so_flags: *const c_char, out: *mut Interface) {
    let flags = match so_flags.is_null() {
        true => String::new(),
        // SAFETY: packetdrill passes a C string if it is not null.
        false => unsafe { CStr::from_ptr(so_flags) }.to_string_lossy().into_owned(),
    };
    let made = Settings::parse(&flags)
        .and_then(|settings| Net::new(settings).map_err(|why| format!("so_flags: {why}")));
    let net = match made {
        Ok(net) => net,
        Err(why) => {
            eprintln!("{why}");
            std::process::exit(1);
        }
    };
    let userdata = Box::into_raw(Box::new(Shared::new(net))).cast();
    let interface = Interface {
        userdata,
        free,
        socket,
        bind,
        listen,
        accept,
        connect,
        read,
        readv,
        recv,
        recvfrom,
        recvmsg,
        write,
        writev,
        send,
        sendto,
        sendmsg,
        fcntl,
        ioctl,
        close,
        shutdown,
        getsockopt,
        setsockopt,
        poll,
        netdev_send,
        netdev_receive,
        usleep,
        gettimeofday,
        epoll_create,
        epoll_ctl,
        epoll_wait,
        pipe,
        splice,
    };
    // SAFETY: `out` has room for the struct.
    unsafe { out.write(interface) };
}

/// What `userdata` points to.
unsafe fn shared<'a>(userdata: *mut c_void) -> &'a Shared {
    // SAFETY: `init` made it of a `Shared`, which `free` alone takes back.
    unsafe { &*userdata.cast::<Shared>() }
}

/// Sets `errno` on an error.
fn answer<T: TryFrom<i64>>(outcome: Outcome<usize>) -> T {
    let number = match outcome {
        Ok(count) => count as i64,
        Err(Errno(why)) => {
            // SAFETY: the C library's own place for this thread's errno.
            unsafe { *libc::__errno_location() = why };
            -1
        }
    };
    T::try_from(number).unwrap_or_else(|_| unreachable!("counts fit their type"))
}

fn done(outcome: Outcome<()>) -> c_int {
    answer(outcome.map(|()| 0))
}

fn descriptor(outcome: Outcome<i32>) -> c_int {
    answer(outcome.map(|fd| fd as usize))
}

/// Bytes to read, none where the pointer is null.
unsafe fn bytes<'a>(at: *const c_void, len: usize) -> &'a [u8] {
    if at.is_null() {
        return &[];
    }
    // SAFETY: whoever passes a pointer and a length to a call promises that many bytes.
    unsafe { slice::from_raw_parts(at.cast(), len) }
}

/// Copies as much of `from` as fits.
unsafe fn copy_out(from: &[u8], to: *mut c_void, room: usize) {
    if !to.is_null() {
        // SAFETY: the caller has `room` bytes at `to`, and they are not ours.
        unsafe { to.cast::<u8>().copy_from_nonoverlapping(from.as_ptr(), from.len().min(room)) };
    }
}

/// Gives a value whose room and length stand at `len`.
unsafe fn give(value: &[u8], to: *mut c_void, len: *mut socklen_t) {
    if to.is_null() || len.is_null() {
        return;
    }
    // SAFETY: `len` is the caller's, and says how much room there is at `to`.
    unsafe {
        copy_out(value, to, *len as usize);
        *len = value.len() as socklen_t;
    }
}

unsafe fn vectors<'a>(at: *const libc::iovec, count: usize) -> &'a [libc::iovec] {
    if at.is_null() {
        return &[];
    }
    // SAFETY: whoever passes vectors promises that many.
    unsafe { slice::from_raw_parts(at, count) }
}

unsafe extern "C" fn free(userdata: *mut c_void) {
    // SAFETY: `userdata` is what `init` gave.
    unsafe { shared(userdata) }.end();
    // SAFETY: `init` made it of a box; it is the last call, and no other waits any more.
    let shared = unsafe { Box::from_raw(userdata.cast::<Shared>()) };
    shared.leave_descriptors();
}

unsafe extern "C" fn socket(userdata: *mut c_void, domain: c_int, kind: c_int, of: c_int) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    descriptor(shared.call(|world| world.open(domain, kind, of)))
}

unsafe extern "C" fn bind(
    userdata: *mut c_void,
    fd: c_int,
    addr: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: the address is `len` bytes long.
    let (shared, addr) = unsafe { (shared(userdata), bytes(addr, len as usize)) };
    done(shared.call(|world| world.bind(fd, address::parse(addr))))
}

unsafe extern "C" fn listen(userdata: *mut c_void, fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    done(shared.call(|world| world.listen(fd, backlog)))
}

unsafe extern "C" fn accept(
    userdata: *mut c_void,
    fd: c_int,
    addr: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    let patience = |world: &World| world.patience(fd, Half::Receive, 0);
    let accepted = shared.wait(patience, Errno(libc::EAGAIN), |world| world.accept(fd));
    if let Ok((child, Some(peer))) = accepted {
        let peer = shared.call(|world| world.sockaddr(child, peer));
        // SAFETY: the caller's room for an address, or null.
        unsafe { give(&peer, addr, len) };
    }
    descriptor(accepted.map(|(child, _)| child))
}

unsafe extern "C" fn connect(
    userdata: *mut c_void,
    fd: c_int,
    addr: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: the address is `len` bytes long.
    let (shared, addr) = unsafe { (shared(userdata), bytes(addr, len as usize)) };
    let remote: Option<SocketAddr> = address::parse(addr);
    let mut started = false;
    let patience = |world: &World| world.patience(fd, Half::Send, 0);
    let attempt = |world: &mut World| world.connect(fd, remote, &mut started);
    done(shared.wait(patience, Errno(libc::EINPROGRESS), attempt))
}

fn receive(shared: &Shared, fd: c_int, len: usize, flags: c_int) -> Outcome<Vec<u8>> {
    let patience = |world: &World| world.patience(fd, Half::Receive, flags);
    shared.wait(patience, Errno(libc::EAGAIN), |world| world.receive(fd, len, flags))
}

fn transmit(shared: &Shared, fd: c_int, data: &[u8], flags: c_int) -> Outcome<usize> {
    let mut count = 0;
    let patience = |world: &World| world.patience(fd, Half::Send, flags);
    let sent =
        shared.wait(patience, Errno(libc::EAGAIN), |world| world.transmit(fd, data, &mut count));
    // What went before patience ended is an answer too.
    if count > 0 { Ok(count) } else { sent }
}

unsafe fn receive_vectors(
    userdata: *mut c_void,
    fd: c_int,
    vectors: &[libc::iovec],
    flags: c_int,
) -> ssize_t {
    let len = vectors.iter().map(|vector| vector.iov_len).sum();
    // SAFETY: `userdata` is what `init` gave.
    let received = receive(unsafe { shared(userdata) }, fd, len, flags);
    let mut rest = received.as_deref().unwrap_or_default();
    for vector in vectors {
        let (now, later) = rest.split_at(rest.len().min(vector.iov_len));
        // SAFETY: each vector is room for as many bytes as it says.
        unsafe { copy_out(now, vector.iov_base, vector.iov_len) };
        rest = later;
    }
    answer(received.map(|data| data.len()))
}

unsafe fn transmit_vectors(
    userdata: *mut c_void,
    fd: c_int,
    vectors: &[libc::iovec],
    flags: c_int,
) -> ssize_t {
    // SAFETY: each vector is as many bytes as it says.
    let pieces = vectors.iter().map(|vector| unsafe { bytes(vector.iov_base, vector.iov_len) });
    let data = pieces.collect::<Vec<_>>().concat();
    // SAFETY: `userdata` is what `init` gave.
    answer(transmit(unsafe { shared(userdata) }, fd, &data, flags))
}

unsafe extern "C" fn read(
    userdata: *mut c_void,
    fd: c_int,
    to: *mut c_void,
    len: usize,
) -> ssize_t {
    // SAFETY: `len` bytes of room at `to`.
    unsafe { recv(userdata, fd, to, len, 0) }
}

unsafe extern "C" fn readv(
    userdata: *mut c_void,
    fd: c_int,
    at: *const libc::iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: `count` vectors at `at`.
    unsafe { receive_vectors(userdata, fd, vectors(at, count.max(0) as usize), 0) }
}

unsafe extern "C" fn recv(
    userdata: *mut c_void,
    fd: c_int,
    to: *mut c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    let vector = libc::iovec { iov_base: to, iov_len: len };
    // SAFETY: `len` bytes of room at `to`.
    unsafe { receive_vectors(userdata, fd, &[vector], flags) }
}

unsafe extern "C" fn recvfrom(
    userdata: *mut c_void,
    fd: c_int,
    to: *mut c_void,
    len: usize,
    flags: c_int,
    _addr: *mut c_void,
    addr_len: *mut socklen_t,
) -> ssize_t {
    // SAFETY: `len` bytes of room at `to`; a connected socket tells no address, so its length is 0.
    unsafe {
        if !addr_len.is_null() {
            *addr_len = 0;
        }
        recv(userdata, fd, to, len, flags)
    }
}

unsafe extern "C" fn recvmsg(
    userdata: *mut c_void,
    fd: c_int,
    msg: *mut libc::msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the message is the caller's, and so are its vectors.
    unsafe {
        ((*msg).msg_namelen, (*msg).msg_controllen, (*msg).msg_flags) = (0, 0, 0);
        receive_vectors(userdata, fd, vectors((*msg).msg_iov, (*msg).msg_iovlen), flags)
    }
}

unsafe extern "C" fn write(
    userdata: *mut c_void,
    fd: c_int,
    from: *const c_void,
    len: usize,
) -> ssize_t {
    // SAFETY: `len` bytes at `from`.
    unsafe { send(userdata, fd, from, len, 0) }
}

unsafe extern "C" fn writev(
    userdata: *mut c_void,
    fd: c_int,
    at: *const libc::iovec,
    count: c_int,
) -> ssize_t {
    // SAFETY: `count` vectors at `at`.
    unsafe { transmit_vectors(userdata, fd, vectors(at, count.max(0) as usize), 0) }
}

unsafe extern "C" fn send(
    userdata: *mut c_void,
    fd: c_int,
    from: *const c_void,
    len: usize,
    flags: c_int,
) -> ssize_t {
    // SAFETY: `len` bytes at `from`.
    let (shared, data) = unsafe { (shared(userdata), bytes(from, len)) };
    answer(transmit(shared, fd, data, flags))
}

unsafe extern "C" fn sendto(
    userdata: *mut c_void,
    fd: c_int,
    from: *const c_void,
    len: usize,
    flags: c_int,
    _addr: *const c_void,
    _addr_len: socklen_t,
) -> ssize_t {
    // SAFETY: `len` bytes at `from`. A stream goes where it is connected to.
    unsafe { send(userdata, fd, from, len, flags) }
}

unsafe extern "C" fn sendmsg(
    userdata: *mut c_void,
    fd: c_int,
    msg: *const libc::msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: the message is the caller's, and so are its vectors.
    unsafe { transmit_vectors(userdata, fd, vectors((*msg).msg_iov, (*msg).msg_iovlen), flags) }
}

unsafe extern "C" fn fcntl(userdata: *mut c_void, fd: c_int, command: c_int, arg: c_long) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    // C passes an int: what stands above it in the register is nobody's.
    descriptor(shared.call(|world| world.fcntl(fd, command, arg as c_int)))
}

unsafe extern "C" fn ioctl(
    userdata: *mut c_void,
    fd: c_int,
    request: c_ulong,
    to: *mut c_int,
) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    done(shared.call(|world| world.ioctl(fd, request)).map(|number| {
        // SAFETY: the requests that we know are given an int.
        unsafe { to.write(number) };
    }))
}

unsafe extern "C" fn close(userdata: *mut c_void, fd: c_int) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    done(shared.call(|world| world.close(fd)))
}

unsafe extern "C" fn shutdown(userdata: *mut c_void, fd: c_int, how: c_int) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    done(shared.call(|world| world.shutdown(fd, how)))
}

unsafe extern "C" fn getsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    to: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    done(shared.call(|world| world.option(fd, level, name)).map(|mut value| {
        // SAFETY: `len` says how much room there is; a value longer than that is cut.
        unsafe {
            value.truncate(*len as usize);
            give(&value, to, len);
        }
    }))
}

unsafe extern "C" fn setsockopt(
    userdata: *mut c_void,
    fd: c_int,
    level: c_int,
    name: c_int,
    from: *const c_void,
    len: socklen_t,
) -> c_int {
    // SAFETY: `len` bytes at `from`.
    let (shared, value) = unsafe { (shared(userdata), bytes(from, len as usize)) };
    done(shared.call(|world| world.set_option(fd, level, name, value)))
}

/// When a call gives up that may take `timeout` ms; negative for never.
fn until(now: Instant, timeout: c_int) -> Option<Instant> {
    match timeout {
        0 => None,
        ms if ms < 0 => Some(Instant::NEVER),
        ms => Some(now + Span::from_millis(ms as u64)),
    }
}

unsafe extern "C" fn poll(
    userdata: *mut c_void,
    fds: *mut libc::pollfd,
    count: libc::nfds_t,
    timeout: c_int,
) -> c_int {
    // SAFETY: `count` entries at `fds`, which are the caller's.
    let (shared, fds) = unsafe {
        let fds =
            if fds.is_null() { &mut [] } else { slice::from_raw_parts_mut(fds, count as usize) };
        (shared(userdata), fds)
    };
    let asked: Vec<_> = fds.iter().map(|entry| (entry.fd, entry.events as u16 as u32)).collect();
    let mut revents = vec![0; fds.len()];
    let ready = shared.wait(
        |world| until(world.net.now, timeout),
        Errno(0),
        |world| world.poll(&asked, &mut revents),
    );
    for (entry, bits) in fds.iter_mut().zip(revents) {
        entry.revents = bits as libc::c_short;
    }
    descriptor(if ready == Err(Errno(0)) { Ok(0) } else { ready })
}

unsafe extern "C" fn netdev_send(userdata: *mut c_void, from: *const c_void, len: usize) -> c_int {
    // SAFETY: `len` bytes at `from`.
    let (shared, datagram) = unsafe { (shared(userdata), bytes(from, len)) };
    let taken = shared.call(|world| world.net.arrive(datagram));
    done(if taken { Ok(()) } else { Err(Errno(libc::EMSGSIZE)) })
}

unsafe extern "C" fn netdev_receive(
    userdata: *mut c_void,
    to: *mut c_void,
    count: *mut usize,
    time_us: *mut c_longlong,
) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let departure = unsafe { shared(userdata) }.pass(None);
    let (at, datagram) = match &departure {
        Some(departure) => (departure.at, departure.datagram.as_slice()),
        None => (Instant::ZERO, &[] as &[u8]),
    };
    // SAFETY: `count` says how much room there is at `to`; it and the time are the caller's.
    unsafe {
        copy_out(datagram, to, *count);
        *count = datagram.len().min(*count);
        *time_us = micros(at);
    }
    0
}

unsafe extern "C" fn usleep(userdata: *mut c_void, micros: c_uint) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    unsafe { shared(userdata) }.pass(Some(Span::from_micros(u64::from(micros))));
    0
}

unsafe extern "C" fn gettimeofday(
    userdata: *mut c_void,
    to: *mut libc::timeval,
    _zone: *mut c_void,
) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let now = micros(unsafe { shared(userdata) }.time());
    let value = libc::timeval { tv_sec: now / 1_000_000, tv_usec: now % 1_000_000 };
    // SAFETY: room for a timeval.
    unsafe { to.write(value) };
    0
}

fn micros(at: Instant) -> i64 {
    (at.as_nanos() / 1_000) as i64
}

unsafe extern "C" fn epoll_create(userdata: *mut c_void, size: c_int) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    descriptor(shared.call(|world| world.epoll_create(size)))
}

unsafe extern "C" fn epoll_ctl(
    userdata: *mut c_void,
    on: c_int,
    op: c_int,
    fd: c_int,
    event: *mut libc::epoll_event,
) -> c_int {
    // SAFETY: an event or null.
    let (shared, event) = unsafe {
        let event = (!event.is_null()).then(|| event.read());
        (shared(userdata), event.map(|event| (event.events, event.u64)))
    };
    done(shared.call(|world| world.epoll_ctl(on, op, fd, event)))
}

unsafe extern "C" fn epoll_wait(
    userdata: *mut c_void,
    on: c_int,
    to: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    // SAFETY: `userdata` is what `init` gave.
    let shared = unsafe { shared(userdata) };
    let Some(most) = usize::try_from(most).ok().filter(|most| *most > 0) else {
        return done(Err(Errno(libc::EINVAL)));
    };
    let ready = shared.wait(
        |world| until(world.net.now, timeout),
        Errno(0),
        |world| world.epoll_wait(on, most),
    );
    let ready = if ready == Err(Errno(0)) { Ok(Vec::new()) } else { ready };
    for (place, (events, data)) in ready.iter().flatten().enumerate() {
        let event = libc::epoll_event { events: *events, u64: *data };
        // SAFETY: room for `most` events at `to`.
        unsafe { to.add(place).write(event) };
    }
    answer(ready.map(|events| events.len()))
}

unsafe extern "C" fn pipe(_userdata: *mut c_void, _fds: *mut c_int) -> c_int {
    done(Err(Errno(libc::ENOSYS)))
}

unsafe extern "C" fn splice(
    _userdata: *mut c_void,
    _from: c_int,
    _from_at: *mut i64,
    _to: c_int,
    _to_at: *mut i64,
    _len: usize,
    _flags: c_uint,
) -> ssize_t {
    answer(Err(Errno(libc::ENOSYS)))
}
