//! Takes memory until it is killed for it, in `shop::touch` <- `shop::leak` <- `main`.

mod shop {
    const STEP: usize = 64 << 10;

    #[inline(never)]
    pub fn touch(bytes: &mut [u8]) -> u64 {
        let mut sum = 0;
        for at in (0..STEP).step_by(4096) {
            // SAFETY: an element of the slice.
            unsafe { std::ptr::write_volatile(&mut bytes[at], 1) };
            sum += u64::from(bytes[at]);
        }
        sum
    }

    #[inline(never)]
    pub fn leak() -> u64 {
        let mut kept = Vec::new();
        loop {
            let mut bytes = Vec::with_capacity(STEP);
            // SAFETY: bytes of any value, which are written before they are read.
            unsafe { bytes.set_len(STEP) };
            let sum = touch(&mut bytes);
            kept.push(bytes);
            if sum == 0 {
                return sum;
            }
        }
    }
}

fn main() {
    std::process::exit(i32::from(shop::leak() == 1));
}
