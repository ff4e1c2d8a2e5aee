//! A hint to the processor that memory will be read soon.

const LINE: usize = 64;

/// Asks for all cache lines of a slice. It changes no result, and does nothing on processors without a known hint.
#[inline(always)]
pub fn prefetch<T>(slice: &[T]) {
    // From the line's beginning, or the last line would be missed where the slice does not begin with one.
    let before = slice.as_ptr().addr() % LINE;
    let first = slice.as_ptr().wrapping_byte_sub(before);
    let mut at = 0;
    while at < before + size_of_val(slice) {
        line(first.wrapping_byte_add(at).cast());
        at += LINE;
    }
}

/// Asks for the first and the last cache line of some bytes, without branches.
#[inline(always)]
pub fn prefetch_ends(bytes: &[u8]) {
    line(bytes.as_ptr().cast());
    line(bytes.as_ptr().wrapping_add(bytes.len().saturating_sub(1)).cast());
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch never faults and never changes memory, whatever the address; SSE is part of x86_64.
    unsafe { _mm_prefetch(address, _MM_HINT_T0) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn line(_: *const i8) {}
