//! Device memory: one budget, what MLX may keep of it, and what is taken now.
//!
//! MLX keeps freed buffers for reuse and by itself never gives one back, up to the whole device. A prefill makes buffers
//! of ever new sizes, so nothing kept is reused, and once the device is full every allocation first frees others. So the
//! limits are set when a model is loaded, from one budget.
//!
//! 1. Weights, KV, working memory of a step and MLX's kept buffers together stay within the budget.
//! 2. What a prompt leaves behind is given back when it is done ([`give_back`]): what comes next has other sizes.

use std::ffi::CStr;

use prefixd_engine::MemoryUse;

use super::array::Result;
use super::backend::Backend;
use super::config::ModelConfig;
use super::error::MlxError;
use super::gate::Mlx;
use super::kv::Vectors;
use super::mask::Mask;

/// Share of the budget that MLX may keep in freed buffers, and the most bytes it may.
const KEPT_SHARE: f64 = 1.0 / 16.0;
const MOST_KEPT_BYTES: u64 = 4 << 30;
/// Share of what is free at the start that the budget may not pass: drivers and kernels need some for themselves.
const FREE_SHARE: f64 = 0.97;

/// What a budget is to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DeviceBudget {
    /// That many bytes.
    Bytes(u64),
    /// A share of what the device reports.
    Share(f64),
}

impl Default for DeviceBudget {
    fn default() -> Self {
        Self::Share(0.9)
    }
}

/// The limits that hold while a model is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceLimits {
    /// All of it.
    pub budget_bytes: u64,
    /// What MLX may keep in freed buffers.
    pub kept_bytes: u64,
}

impl DeviceLimits {
    /// The limits within `budget` of a device with `total_bytes`, of which `free_bytes` are free where it tells.
    fn new(budget: DeviceBudget, total_bytes: u64, free_bytes: Option<u64>) -> Self {
        let wanted = match budget {
            DeviceBudget::Bytes(bytes) => bytes,
            DeviceBudget::Share(share) => (total_bytes as f64 * share) as u64,
        };
        let there = free_bytes.map_or(total_bytes, |free| (free as f64 * FREE_SHARE) as u64);
        let budget_bytes = wanted.min(there);
        let kept_bytes = ((budget_bytes as f64 * KEPT_SHARE) as u64).min(MOST_KEPT_BYTES);
        Self { budget_bytes, kept_bytes }
    }

    /// Sets MLX's limits. `None` on the CPU, whose memory is the machine's: there nothing is kept, and rows are bounded
    /// by `scheduler.live_budget`.
    ///
    /// # Errors
    /// When the device does not say how much memory it has and the budget is a share of it.
    pub fn set(mx: &Mlx, backend: Backend, budget: DeviceBudget) -> Result<Option<Self>> {
        if backend == Backend::Cpu {
            return Ok(None);
        }
        let device = DeviceInfo::read(mx)?;
        let total = TOTAL_KEYS.iter().find_map(|key| device.size(key));
        let total = match (total, budget) {
            (Some(total), _) => total,
            (None, DeviceBudget::Bytes(bytes)) => bytes,
            (None, DeviceBudget::Share(_)) => {
                return Err(MlxError::backend(
                    "the device does not say how much memory it has; give server.device_budget in bytes"
                        .into(),
                ));
            }
        };
        let limits = Self::new(budget, total, device.size(c"free_memory"));
        let mut before = 0;
        // SAFETY: the calls only set numbers in MLX's allocator.
        let status = unsafe {
            mlx_sys::mlx_set_memory_limit(&raw mut before, limits.budget_bytes as usize)
                | mlx_sys::mlx_set_cache_limit(&raw mut before, limits.kept_bytes as usize)
        };
        if status != 0 {
            return Err(MlxError::backend(format!(
                "MLX refused a memory limit of {} bytes",
                limits.budget_bytes
            )));
        }
        if backend == Backend::Metal {
            // Weights and KV stay where the GPU reads them. Refused by macOS before 15, where nothing else changes.
            // SAFETY: as above.
            unsafe { mlx_sys::mlx_set_wired_limit(&raw mut before, limits.budget_bytes as usize) };
        }
        Ok(Some(limits))
    }
}

/// Leaves `bytes` of the budget to MLX, where rows lie in memory that it does not count. At that limit it waits for what
/// is under way before it takes more. Without one a prompt took 10 GB beyond its estimate.
pub fn leave(_: &Mlx, bytes: u64) {
    let mut before = 0;
    // SAFETY: the call only sets a number in MLX's allocator. A failure leaves the limit that was set before.
    unsafe { mlx_sys::mlx_set_memory_limit(&raw mut before, bytes as usize) };
}

/// Working memory that a step of `step_tokens` tokens over rows of `context_tokens` may take: activations of two layers at a
/// time, in which keys and values of the longest row lie decoded beside the chunk's mask. An estimate from shapes.
pub fn step_bytes(config: &ModelConfig, step_tokens: usize, context_tokens: usize) -> u64 {
    let float = 2.0;
    let widest = config.masks.iter().map(|mask| config.vectors(*mask)).max_by_key(|v| v.heads * v.width);
    let Vectors { heads: kv_heads, width: head_dim } = widest.unwrap_or(config.vectors(Mask::Causal));
    let head_dim = head_dim + config.latent.map_or(0, |latent| latent.rank);
    let [hidden, inner, heads, kv_heads, head_dim] =
        [config.hidden, config.intermediate, config.heads, kv_heads, head_dim].map(|size| size as f64);
    let (tokens, context) = (step_tokens as f64, context_tokens as f64);
    let activations = tokens * (8.0 * hidden + 4.0 * inner + 4.0 * heads * head_dim) * float;
    let decoded = 2.0 * context * kv_heads * head_dim * float;
    let mask = tokens * context.min(config.window_tokens().unwrap_or(0) as f64 + tokens) * float;
    let logits = 64.0 * config.vocab as f64 * 4.0;
    (2.0 * (activations + decoded + mask) + logits) as u64
}

/// What is taken now, as MLX counts it. Budget and weights are not its to know.
pub fn used(_: &Mlx) -> MemoryUse {
    let read = |of: unsafe extern "C" fn(*mut usize) -> i32| {
        let mut bytes = 0;
        // SAFETY: the call writes one number.
        let status = unsafe { of(&raw mut bytes) };
        if status == 0 { bytes as u64 } else { 0 }
    };
    MemoryUse {
        active_bytes: read(mlx_sys::mlx_get_active_memory),
        kept_bytes: read(mlx_sys::mlx_get_cache_memory),
        peak_bytes: read(mlx_sys::mlx_get_peak_memory),
        ..MemoryUse::default()
    }
}

/// Gives every kept buffer back to the device.
pub fn give_back(_: &Mlx) {
    // SAFETY: no arguments. A failure leaves the buffers where they are, within their limit.
    unsafe { mlx_sys::mlx_clear_cache() };
}

/// Keys under which backends tell the size of their memory, the most careful first: what Metal recommends to use, what
/// CUDA has, what Metal has.
const TOTAL_KEYS: [&CStr; 3] = [c"max_recommended_working_set_size", c"total_memory", c"memory_size"];

/// What the default device tells of itself.
struct DeviceInfo(mlx_sys::mlx_device_info);

impl DeviceInfo {
    fn read(_: &Mlx) -> Result<Self> {
        // SAFETY: no arguments; freed on drop.
        let mut info = Self(unsafe { mlx_sys::mlx_device_info_new() });
        // SAFETY: the device is made and freed here, and the description is filled while both are live.
        let status = unsafe {
            let mut device = mlx_sys::mlx_device_new();
            let status = mlx_sys::mlx_get_default_device(&raw mut device)
                | mlx_sys::mlx_device_info_get(&raw mut info.0, device);
            mlx_sys::mlx_device_free(device);
            status
        };
        if status == 0 { Ok(info) } else { Err(MlxError::backend("MLX does not describe its device".into())) }
    }

    fn size(&self, key: &CStr) -> Option<u64> {
        let (mut there, mut bytes) = (false, 0);
        // SAFETY: the handle and the key are live; the calls write one value each.
        let status = unsafe {
            mlx_sys::mlx_device_info_has_key(&raw mut there, self.0, key.as_ptr())
                | if there {
                    mlx_sys::mlx_device_info_get_size(&raw mut bytes, self.0, key.as_ptr())
                } else {
                    1
                }
        };
        (status == 0 && bytes > 0).then_some(bytes as u64)
    }
}

impl Drop for DeviceInfo {
    fn drop(&mut self) {
        // SAFETY: made by `read`, freed once.
        unsafe { mlx_sys::mlx_device_info_free(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn a_budget_is_a_share_of_the_device_or_bytes_and_never_more_than_is_free() {
        let limits = |budget, free| DeviceLimits::new(budget, 80 * GB, free);
        assert_eq!(limits(DeviceBudget::Share(0.5), None).budget_bytes, 40 * GB);
        assert_eq!(limits(DeviceBudget::Bytes(7 * GB), Some(79 * GB)).budget_bytes, 7 * GB);
        let beside_others = limits(DeviceBudget::Share(0.9), Some(20 * GB)).budget_bytes;
        assert!((19 * GB..20 * GB).contains(&beside_others), "{beside_others}");
    }

    #[test]
    fn mlx_keeps_a_small_part_of_the_budget() {
        assert_eq!(DeviceLimits::new(DeviceBudget::Bytes(16 * GB), 80 * GB, None).kept_bytes, GB);
        assert_eq!(
            DeviceLimits::new(DeviceBudget::Bytes(80 * GB), 80 * GB, None).kept_bytes,
            MOST_KEPT_BYTES
        );
    }
}
