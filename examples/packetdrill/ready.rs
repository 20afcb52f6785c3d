//! poll and epoll: what a socket is ready for, as Linux says it.

use crate::blocking::{Entry, World};
use crate::socket::Phase;
use crate::{Errno, Outcome};
use std::collections::BTreeMap;
use std::task::Poll;

/// What an epoll descriptor watches.
#[derive(Debug, Default)]
pub struct Epoll {
    watched: BTreeMap<i32, Watch>,
}

#[derive(Clone, Copy, Debug)]
struct Watch {
    events: u32,
    data: u64,
    /// The socket's activity when it was last reported, for `EPOLLET`.
    reported: Option<u64>,
    /// `EPOLLONESHOT` has shot.
    spent: bool,
}

/// What every watch is told of, asked or not.
const ALWAYS: u32 = (libc::POLLERR | libc::POLLHUP) as u32;

impl World {
    /// `POLL...` bits of a descriptor; `POLLNVAL` if it is none of ours.
    pub fn readiness(&mut self, fd: i32) -> u32 {
        let Ok(id) = self.id(fd) else { return libc::POLLNVAL as u32 };
        let room = self.socket(id).send_room() > 0;
        let socket = self.socket(id);
        let mut bits = match &socket.phase {
            Phase::Idle => libc::POLLOUT | libc::POLLHUP,
            Phase::Listening { pending, .. } if pending.is_empty() => 0,
            Phase::Listening { .. } => libc::POLLIN | libc::POLLRDNORM,
            Phase::Connecting => 0,
            Phase::Connected { .. } if room || socket.shut_send => libc::POLLOUT | libc::POLLWRNORM,
            Phase::Connected { .. } => 0,
            Phase::Over => {
                let all = libc::POLLIN | libc::POLLRDNORM | libc::POLLOUT | libc::POLLWRNORM;
                all | libc::POLLRDHUP | libc::POLLHUP
            }
        };
        let no_more = socket.peer_closed || socket.shut_receive;
        if !socket.received.is_empty() || no_more {
            bits |= libc::POLLIN | libc::POLLRDNORM;
        }
        if no_more {
            bits |= libc::POLLRDHUP;
        }
        if no_more && socket.shut_send {
            bits |= libc::POLLHUP;
        }
        if socket.error.is_some() {
            bits |= libc::POLLERR;
        }
        bits as u32
    }

    /// Fills `revents` of each `(fd, events)`; pending while nothing is there.
    pub fn poll(&mut self, asked: &[(i32, u32)], revents: &mut [u32]) -> Poll<Outcome<i32>> {
        let mut count = 0;
        for ((fd, events), answer) in asked.iter().zip(revents) {
            // A negative descriptor is left out.
            let bits = if *fd < 0 { 0 } else { self.readiness(*fd) };
            *answer = bits & (events | ALWAYS | libc::POLLNVAL as u32);
            count += i32::from(*answer != 0);
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    pub fn epoll_create(&mut self, size: i32) -> Outcome<i32> {
        if size <= 0 {
            return Err(Errno(libc::EINVAL));
        }
        self.install(Entry::Epoll(Epoll::default()))
    }

    /// `event` is its bits and its data; none to delete.
    pub fn epoll_ctl(
        &mut self,
        on: i32,
        op: i32,
        fd: i32,
        event: Option<(u32, u64)>,
    ) -> Outcome<()> {
        self.id(fd)?;
        let epoll = self.epoll(on)?;
        let known = epoll.watched.contains_key(&fd);
        let (events, data) = match (op, known, event) {
            (libc::EPOLL_CTL_ADD, true, _) => return Err(Errno(libc::EEXIST)),
            (libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL, false, _) => {
                return Err(Errno(libc::ENOENT));
            }
            (libc::EPOLL_CTL_DEL, true, _) => {
                epoll.watched.remove(&fd);
                return Ok(());
            }
            (libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD, _, Some(event)) => event,
            _ => return Err(Errno(libc::EINVAL)),
        };
        epoll.watched.insert(fd, Watch { events, data, reported: None, spent: false });
        Ok(())
    }

    /// Up to `most` events as bits and data; pending while there is none.
    pub fn epoll_wait(&mut self, on: i32, most: usize) -> Poll<Outcome<Vec<(u32, u64)>>> {
        let watched = match self.epoll(on) {
            Ok(epoll) => epoll.watched.clone(),
            Err(why) => return Poll::Ready(Err(why)),
        };
        let mut found = Vec::new();
        for (fd, watch) in watched {
            let Ok(id) = self.id(fd) else {
                // It was closed.
                self.watch(on, fd, None);
                continue;
            };
            let bits = self.readiness(fd) & (watch.events | ALWAYS);
            let activity = self.socket(id).activity;
            let edge = watch.events & libc::EPOLLET as u32 != 0;
            let old = edge && watch.reported == Some(activity);
            if bits == 0 || old || watch.spent || found.len() == most {
                continue;
            }
            found.push((bits, watch.data));
            let spent = watch.events & libc::EPOLLONESHOT as u32 != 0;
            self.watch(on, fd, Some(Watch { reported: Some(activity), spent, ..watch }));
        }
        if found.is_empty() { Poll::Pending } else { Poll::Ready(Ok(found)) }
    }

    fn watch(&mut self, on: i32, fd: i32, watch: Option<Watch>) {
        let Ok(epoll) = self.epoll(on) else { return };
        match watch {
            Some(watch) => epoll.watched.insert(fd, watch),
            None => epoll.watched.remove(&fd),
        };
    }

    fn epoll(&mut self, fd: i32) -> Outcome<&mut Epoll> {
        match self.entries.get_mut(&fd) {
            Some((Entry::Epoll(epoll), _)) => Ok(epoll),
            Some((Entry::Socket(_), _)) => Err(Errno(libc::EINVAL)),
            None => Err(Errno(libc::EBADF)),
        }
    }
}
