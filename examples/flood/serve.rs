//! The rival: pages over the kernel's sockets, one thread, nothing but what it takes.

use shakedown::sys::epoll::{Epoll, Interest, listen};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const LISTENER: u64 = u64::MAX;
const WAIT_MS: i32 = 100;
const BODY: usize = 1000;

/// Serves on `local` for so long.
///
/// # Errors
/// The address is not to be had.
pub fn until(local: SocketAddr, life: Duration) -> io::Result<()> {
    let listener = listen(local)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new()?;
    epoll.add(&listener, Interest::Readable, LISTENER)?;
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {BODY}\r\n\r\n");
    let page = [head.as_bytes(), &[b'x'; BODY]].concat();
    let mut open: Vec<Option<TcpStream>> = Vec::new();
    let (mut free, mut ready) = (Vec::new(), Vec::new());
    let started = Instant::now();
    while started.elapsed() < life {
        epoll.wait(WAIT_MS, |token| ready.push(token))?;
        for token in ready.drain(..) {
            if token != LISTENER {
                // Whatever it asked for, in one read: it gets the page, and is closed.
                if let Some(mut stream) = open[token as usize].take() {
                    free.push(token as usize);
                    let mut request = [0; 4096];
                    if stream.read(&mut request).is_ok_and(|len| len > 0) {
                        let _ = stream.write_all(&page);
                    }
                }
                continue;
            }
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true)?;
                let place = free.pop().unwrap_or_else(|| {
                    open.push(None);
                    open.len() - 1
                });
                epoll.add(&stream, Interest::Readable, place as u64)?;
                open[place] = Some(stream);
            }
        }
    }
    Ok(())
}
