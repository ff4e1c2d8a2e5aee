//! Memory in large pages, for what is looked at here and there.
//!
//! Where such an array is larger than what the processor's table of pages reaches, each look has to find its page first,
//! which may take as long as the look. Linux uses pages of 2 MiB where it is asked to. Not all memory should be in such: they
//! are cleared as a whole, and what is soon given back costs more.

/// An empty vector with room for so many elements, in large pages where there are any.
pub fn with_large_pages<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    ask(&mut vec);
    vec
}

#[cfg(all(target_os = "linux", not(miri)))]
fn ask<T>(vec: &mut Vec<T>) {
    const LARGE: usize = 2 << 20;
    let room = vec.spare_capacity_mut();
    // Whole large pages only, whatever the size of others is.
    let before = room.as_ptr().addr().next_multiple_of(LARGE) - room.as_ptr().addr();
    let length = size_of_val(room).saturating_sub(before) / LARGE * LARGE;
    if length == 0 {
        return;
    }
    let start = room.as_mut_ptr().wrapping_byte_add(before);
    // SAFETY: all of it is within memory that the vector owns; the advice changes neither what it holds nor who may use
    // it. A kernel that has no large pages refuses, and nothing is lost.
    let _ = unsafe { libc::madvise(start.cast(), length, libc::MADV_HUGEPAGE) };
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn ask<T>(_: &mut Vec<T>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_all() {
        for capacity in [0, 1, 5000, 3 << 20] {
            let mut vec: Vec<u16> = with_large_pages(capacity);
            assert!(vec.is_empty() && vec.capacity() >= capacity);
            vec.extend((0..capacity).map(|at| at as u16));
            assert!(vec.iter().enumerate().all(|(at, value)| *value == at as u16));
        }
    }
}
