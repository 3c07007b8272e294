//! Takes memory until it is killed for it, in `shop::touch` <- `shop::leak` <- `main`.

mod shop {
    const ALL: usize = 256 << 20;

    #[inline(never)]
    pub fn touch(bytes: &mut [u8]) -> u64 {
        let mut sum = 0;
        for byte in bytes.iter_mut().step_by(4096) {
            // SAFETY: an element of the slice.
            unsafe { std::ptr::write_volatile(byte, 1) };
            sum += u64::from(*byte);
        }
        sum
    }

    #[inline(never)]
    pub fn leak() -> u64 {
        // Given at once, taken page by page: nobody but `touch` takes any.
        let mut bytes = vec![0; ALL];
        let sum = bytes.chunks_mut(64 << 10).map(touch).sum();
        drop(bytes);
        sum
    }
}

fn main() {
    std::process::exit(i32::from(shop::leak() == 1));
}
