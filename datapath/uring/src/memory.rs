//! Page-aligned memory that a worker and the kernel hand to and fro.
//!
//! A [`Region`] is one anonymous mapping cut into equal [`Buffer`]s. Each buffer exists once, so
//! holding it is the permission to touch its bytes; the last holder unmaps the region.

use std::ffi::c_void;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// One anonymous, zeroed, page-aligned mapping.
#[derive(Debug)]
pub(crate) struct Region {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is an address range without thread affinity; it hands out no reference
// itself, and the bytes are reached through `Buffer`s only, each of which is unique.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives access to two plain integers.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes (rounded up to pages by the kernel), faulted in now rather than on the
    /// packet path.
    pub(crate) fn map(len: usize) -> io::Result<Region> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, MapFlags::PRIVATE)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let region = Region { base, len };
        region.advise(Advice::LinuxHugepage);
        region.advise(Advice::LinuxPopulateWrite);
        Ok(region)
    }

    /// Both hints only save page faults and TLB misses: a kernel that declines costs speed alone.
    fn advise(&self, advice: Advice) {
        // SAFETY: the range is exactly our mapping, and neither hint used here changes contents.
        let _ = unsafe { madvise(self.base.as_ptr().cast::<c_void>(), self.len, advice) };
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of our own mapping. Every `Buffer` and every owner
        // that gave the address to the kernel holds an `Arc` of the region, so none is left.
        let _ = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// One of the equal parts of a region, and the sole access to its bytes.
#[derive(Debug)]
pub(crate) struct Buffer {
    region: Arc<Region>,
    offset: u32,
    len: u32,
    index: u16,
}

impl Buffer {
    /// Maps a region of `count` buffers of `len` bytes each, in index order.
    pub(crate) fn allocate(count: u16, len: usize) -> io::Result<Vec<Buffer>> {
        let region = Arc::new(Region::map(usize::from(count) * len)?);
        let part = |index: u16| -> io::Result<Buffer> {
            let offset = u32::try_from(usize::from(index) * len).map_err(io::Error::other)?;
            let len = u32::try_from(len).map_err(io::Error::other)?;
            Ok(Buffer { region: Arc::clone(&region), offset, len, index })
        };
        (0..count).map(part).collect()
    }

    /// Position within its region.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    /// The region it is a part of.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Address of the first byte, for the kernel. Whoever passes it on keeps the buffer, unused,
    /// until the kernel is done.
    pub(crate) fn address(&self) -> *mut u8 {
        // SAFETY: `allocate` keeps `offset + len` within the region's mapping.
        unsafe { self.region.base().as_ptr().add(self.offset as usize) }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in a live mapping that began zeroed, so all of it is
        // initialised; no other `Buffer` covers it, and `&self` excludes `bytes_mut`.
        unsafe { std::slice::from_raw_parts(self.address(), self.len()) }
    }

    /// The bytes, writable.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.len()) }
    }
}
