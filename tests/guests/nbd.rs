//! Connects a network block device of the guest's kernel to the test on the host. The two sides agree on everything beforehand, so they need no handshake.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::path::Path;

const BLOCK: u64 = 4096;
/// The disk says what it can do, flushes its cache, writes single blocks past it, and discards.
const FLAGS: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 5;

const SET_SOCKET: u64 = 0xab00;
const SET_BLOCK_SIZE: u64 = 0xab01;
const WORK: u64 = 0xab03;
const SET_BLOCKS: u64 = 0xab07;
const SET_FLAGS: u64 = 0xab0a;

/// Returns when the connection has ended.
pub fn attach(address: &str, device: &Path, bytes: u64) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    let device = File::options().read(true).write(true).open(device).unwrap();
    tell(&device, SET_BLOCK_SIZE, BLOCK);
    tell(&device, SET_BLOCKS, bytes / BLOCK);
    tell(&device, SET_FLAGS, FLAGS);
    tell(&device, SET_SOCKET, u64::try_from(stream.as_raw_fd()).unwrap());
    tell(&device, WORK, 0);
}

fn tell(device: &File, request: u64, argument: u64) {
    // SAFETY: these requests of the nbd driver take a number, and touch no memory of this process.
    let done = unsafe { nix::libc::ioctl(device.as_raw_fd(), request, argument) };
    assert!(done >= 0, "nbd request {request:#x}: {}", std::io::Error::last_os_error());
}
