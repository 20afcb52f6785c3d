//! The rival of `rival`, by io_uring instead of epoll: the kernel is handed all that a connection
//! does at once.

use super::plan::Drive;
use super::rival::{Exchange, SOCKETS_MAX, WAIT_MS};
use super::settings::{CloseName, Rival, WorkloadName};
use crate::sys::uring::{Ended, Step, Uring};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Connections that one server has at a time, those that it waits for included: as many as the
/// clients have, and as many again that these have closed already. Others wait in the backlog.
const PLACES: u32 = 2 * SOCKETS_MAX;

const WAIT: Duration = Duration::from_millis(WAIT_MS as u64);

/// Holds a bench to what this rival can do as well, if it is among those to compare with.
///
/// # Errors
/// What it can't, and what to leave out.
pub(super) fn suits(compare: &[Rival], drive: &Drive) -> Result<(), String> {
    match (drive.workload, drive.close) {
        _ if !compare.contains(&Rival::IoUring) => Ok(()),
        (WorkloadName::Stream, _) => {
            Err("--compare io-uring knows no streams: --compare kernel does".to_string())
        }
        (_, CloseName::Rst) => {
            Err("--compare io-uring needs a run without --close rst".to_string())
        }
        (_, CloseName::Fin) => Ok(()),
    }
}

/// One client: `sockets` connections at a time, each replaced when it has done its work. Answers
/// how many have.
pub(super) fn drive(
    remote: SocketAddr,
    sockets: u32,
    exchange: Option<Exchange>,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let mut steps = vec![Step::Connect];
    if let Some(Exchange { request, response }) = exchange {
        steps.extend([Step::Send(request as u32), Step::Receive(response as u32)]);
    }
    let mut uring = Uring::client(remote, sockets)?;
    let mut free: Vec<u32> = (0..sockets).collect();
    let (mut done, mut failed) = (0, 0);
    while !stop.load(Relaxed) && failed == 0 {
        for place in free.drain(..) {
            uring.chain(place, &steps)?;
        }
        uring.wait(WAIT, |Ended { place, error }| {
            free.push(place);
            done += u64::from(error == 0);
            failed = failed.max(error);
        })?;
    }
    if failed != 0 {
        return Err(io::Error::from_raw_os_error(failed));
    }
    Ok(done)
}

/// One server: answers when a request is whole, and closes after the client has. Answers how many
/// it served.
pub(super) fn serve(
    listener: TcpListener,
    exchange: Option<Exchange>,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let mut steps = vec![Step::Accept];
    if let Some(Exchange { request, response }) = exchange {
        steps.extend([Step::Receive(request as u32), Step::Send(response as u32)]);
    }
    steps.push(Step::AwaitClose);
    let mut uring = Uring::server(listener, PLACES)?;
    let mut free: Vec<u32> = (0..PLACES).collect();
    let mut served = 0;
    while !stop.load(Relaxed) {
        for place in free.drain(..) {
            uring.chain(place, &steps)?;
        }
        // How a connection ends is the client's to judge.
        uring.wait(WAIT, |ended| free.push(ended.place))?;
        served += free.len() as u64;
    }
    Ok(served)
}
