//! What MLX reads from the environment, set before it starts.

use std::env;

/// MLX counts how often its caches of plans (one for each shape of an attention, one for each sequence of kernels) miss, and
/// after twice their size ends whatever runs then with "Cache thrashing is happening". A server meets new shapes for ever.
const SETTINGS: [(&str, &str); 2] =
    [("MLX_ENABLE_CACHE_THRASHING_CHECK", "0"), ("MLX_CUDA_SDPA_CACHE_SIZE", "1024")];

/// Sets what is not set. Call it first in `main`.
///
/// # Safety
/// No other thread may run yet.
pub unsafe fn prepare_mlx() {
    for (name, value) in SETTINGS {
        if env::var_os(name).is_none() {
            // SAFETY: by the caller's promise nobody reads the environment meanwhile.
            unsafe { env::set_var(name, value) };
        }
    }
}
