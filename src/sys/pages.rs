//! Memory for tables that are read at random: with pages of 4 kB every look-up in a large one would
//! wait for the page's translation before it waits for the data.

/// The size of the pages that a range must begin and end with (x86-64, arm64).
const PAGE_BYTES: usize = 4096;

/// `count` copies of `value`, touched now, in huge pages where the kernel has some to give
/// (`/sys/kernel/mm/transparent_hugepage/enabled`).
pub fn slab<T: Clone>(value: T, count: usize) -> Vec<T> {
    let mut slab = reserved(count);
    slab.resize(count, value);
    slab
}

/// Room for `count` values, in memory that is not touched yet; in huge pages once it is.
pub fn reserved<T>(count: usize) -> Vec<T> {
    let mut room = Vec::with_capacity(count);
    advise(room.spare_capacity_mut());
    room
}

/// `count` values of integers alone, all zero, in memory that is not touched yet, and so costs
/// nothing; in huge pages once it is.
pub fn zeroed<T: Clone + Default>(count: usize) -> Vec<T> {
    // Of integers and arrays of them the allocator has zeros without writing any.
    let mut values = vec![T::default(); count];
    advise(&mut values);
    values
}

/// Asks for huge pages under memory. Nothing depends on the answer.
fn advise<T>(memory: &mut [T]) {
    let start = (memory.as_mut_ptr() as usize).next_multiple_of(PAGE_BYTES);
    let end = memory.as_mut_ptr_range().end as usize / PAGE_BYTES * PAGE_BYTES;
    if start < end {
        // SAFETY: the pages are all within memory that the caller lends; the advice changes what
        // they are made of, not what they hold.
        unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_holds_what_was_asked_for_whatever_its_size() {
        for count in [0, 1, 511, 512, 513, 1 << 20] {
            let (slab, zeroed) = (slab(7u64, count), zeroed::<[u32; 4]>(count));
            assert!(slab.len() == count && slab.iter().all(|&it| it == 7), "{count}");
            assert!(zeroed.len() == count && zeroed.iter().all(|&it| it == [0; 4]), "{count}");
        }
    }
}
