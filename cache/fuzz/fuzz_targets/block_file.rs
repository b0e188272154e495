//! Any bytes in the place of a block file: refused or read, never a panic, never more memory than the file is long.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prefixd_cache::maintenance::check_block_bytes;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = check_block_bytes(bytes) {
        assert!(error.is_damage(), "bytes alone are never unreachable: {error}");
    }
});
