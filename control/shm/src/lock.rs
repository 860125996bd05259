//! Locks on single bytes of a file: they say who is alive.
//!
//! Open file description locks (`fcntl`, Linux 3.15) belong to the open file, not to the process: a
//! second opening by the same process conflicts as one of another process does, and closing a third
//! one drops nothing. The kernel releases them when the last descriptor and mapping are gone.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Takes the lock on a byte; false if somebody else has it.
pub(crate) fn try_lock(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = describe(libc::F_WRLCK, byte);
    match control(file, libc::F_OFD_SETLK, &mut lock) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        result => result.map(|()| true),
    }
}

/// Whether somebody else has the lock on a byte.
pub(crate) fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    // A question for a shared lock is allowed on a file that is open for reading only.
    let mut lock = describe(libc::F_RDLCK, byte);
    control(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn describe(kind: i32, byte: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    }
}

fn control(file: &File, command: i32, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` lives; both commands take a pointer to a
    // flock, which is valid and ours alone for the call.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), command, lock as *mut libc::flock) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
