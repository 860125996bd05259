//! Memory that another process reads and writes at the same time.
//!
//! It is seen as 8-byte words, and touched by atomic operations alone: what the other process does
//! meanwhile can make a value wrong, never the program undefined. A word that holds a
//! [`FutexWord`](crate::sync::FutexWord) is used as nothing else.

use std::sync::Arc;

use crate::sync::{AtomicU64, FutexWord, Ordering};

#[cfg(not(loom))]
pub(crate) use mapped::{Access, Memory};
#[cfg(loom)]
pub(crate) use modelled::Memory;

/// Bytes in a word.
pub(crate) const WORD: usize = 8;

/// Words from the start of one thing to the start of the next that another core writes: two cache
/// lines, because the prefetcher takes them in pairs. One in the model, which has no cache.
pub(crate) const LINE_WORDS: usize = if cfg!(loom) { 1 } else { 16 };

/// A part of the memory, kept alive by this handle.
#[derive(Clone)]
pub(crate) struct Span {
    memory: Arc<Memory>,
    start: usize,
    len: usize,
}

impl Span {
    /// The `len` words from `start` on, which have to be within the memory.
    pub(crate) fn new(memory: &Arc<Memory>, start: usize, len: usize) -> Self {
        assert!(start.checked_add(len).is_some_and(|end| end <= memory.len()));
        Self { memory: Arc::clone(memory), start, len }
    }

    pub(crate) fn part(&self, start: usize, len: usize) -> Self {
        assert!(start.checked_add(len).is_some_and(|end| end <= self.len));
        Self::new(&self.memory, self.start + start, len)
    }

    #[cfg(not(loom))]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn words(&self) -> &[AtomicU64] {
        &self.memory.words()[self.start..self.start + self.len]
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.words()[index]
    }

    pub(crate) fn futex(&self, index: usize) -> &FutexWord {
        assert!(index < self.len);
        self.memory.futex(self.start + index)
    }
}

/// Words that `len` bytes take.
pub(crate) const fn words_for(len: usize) -> usize {
    len.div_ceil(WORD)
}

/// Copies bytes into words, the last filled up with zeros. The order in which others see the words
/// is undefined until something is released after them.
pub(crate) fn store_bytes<'a>(words: impl Iterator<Item = &'a AtomicU64>, bytes: &[u8]) {
    for (word, chunk) in words.zip(bytes.chunks(WORD)) {
        let mut value = [0; WORD];
        value[..chunk.len()].copy_from_slice(chunk);
        word.store(u64::from_le_bytes(value), Ordering::Relaxed);
    }
}

/// Copies words out into bytes.
pub(crate) fn load_bytes<'a>(words: impl Iterator<Item = &'a AtomicU64>, bytes: &mut [u8]) {
    for (word, chunk) in words.zip(bytes.chunks_mut(WORD)) {
        let value = word.load(Ordering::Relaxed).to_le_bytes();
        chunk.copy_from_slice(&value[..chunk.len()]);
    }
}

#[cfg(not(loom))]
mod mapped {
    use std::fs::File;
    use std::io;
    use std::ptr::{self, NonNull};

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::WORD;
    use crate::sync::{AtomicU64, FutexWord};

    /// What the mapping may be used for.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Access {
        /// Looking only: a store would be a fault, so no writing handle is ever made of it.
        Read,
        /// Looking and writing.
        Write,
    }

    /// A file mapped into memory, and the file itself, whose locks say who is alive.
    pub(crate) struct Memory {
        base: NonNull<AtomicU64>,
        len: usize,
        file: File,
    }

    // SAFETY: the mapping belongs to no thread, and all access to it is by atomics.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    impl Memory {
        /// Maps the first `len` words of the file. The file has to be that long, and stay so: an
        /// access behind its end is SIGBUS. So only a file is mapped whose length was checked and
        /// which nobody but its owner can shorten.
        pub(crate) fn map(file: File, len: usize, access: Access) -> io::Result<Self> {
            let protection = match access {
                Access::Read => ProtFlags::READ,
                Access::Write => ProtFlags::READ | ProtFlags::WRITE,
            };
            let size = len * WORD;
            // SAFETY: a new mapping where the kernel chooses replaces no memory of ours.
            let base =
                unsafe { mmap(ptr::null_mut(), size, protection, MapFlags::SHARED, &file, 0)? };
            let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            Ok(Self { base, len, file })
        }

        /// Words in the mapping.
        pub(crate) fn len(&self) -> usize {
            self.len
        }

        pub(crate) fn file(&self) -> &File {
            &self.file
        }

        pub(crate) fn words(&self) -> &[AtomicU64] {
            // SAFETY: `base` is page aligned and the start of `len` mapped words, which stay mapped
            // until drop; every bit pattern is a valid AtomicU64; nobody here has a reference to
            // the memory that is not atomic; loads of this size are allowed on read-only memory.
            unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
        }

        pub(crate) fn futex(&self, index: usize) -> &FutexWord {
            let word = &raw const self.words()[index];
            // SAFETY: FutexWord is a transparent AtomicU32, for which 8 mapped bytes with alignment
            // 8 have room; it lives as long as the mapping; by the rule in this module's header the
            // word is never used as an AtomicU64, so no two sizes meet at one address.
            unsafe { &*word.cast() }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: `base` and the size are those of the mapping that `map` made; references to
            // it cannot outlive `self`. The result says nothing that one could act upon.
            let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len * WORD) };
        }
    }
}

/// Memory for tests, in no file system.
#[cfg(all(test, not(loom)))]
pub(crate) fn test_memory(len: usize) -> Arc<Memory> {
    let file = rustix::fs::memfd_create("ipop-shm-test", rustix::fs::MemfdFlags::CLOEXEC);
    let file = std::fs::File::from(file.expect("memfd"));
    file.set_len((len * WORD) as u64).expect("length of a memfd");
    Arc::new(Memory::map(file, len, Access::Write).expect("mapping of a memfd"))
}

#[cfg(loom)]
mod modelled {
    use crate::sync::{AtomicU64, FutexWord};

    /// Memory of loom's atomics, with one futex.
    pub(crate) struct Memory {
        words: Vec<AtomicU64>,
        futex: FutexWord,
    }

    impl Memory {
        pub(crate) fn new(len: usize) -> Self {
            let words = (0..len).map(|_| AtomicU64::new(0)).collect();
            Self { words, futex: FutexWord::new() }
        }

        pub(crate) fn len(&self) -> usize {
            self.words.len()
        }

        pub(crate) fn words(&self) -> &[AtomicU64] {
            &self.words
        }

        pub(crate) fn futex(&self, _index: usize) -> &FutexWord {
            &self.futex
        }
    }
}
