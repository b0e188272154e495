//! The driver's own memory calls: allocations that MLX does not manage, and copies over page-locked memory.
//!
//! An array of MLX's moves to memory that host and device share when the host reads it, at a tenth of the bus's rate. What is copied
//! for every prompt therefore lies in memory of its own, and goes by page-locked buffers of which one is filled while the
//! other is copied.
//!
//! Copies run on a stream of their own and are done when a call returns. What they touch must not be in use by MLX: nothing
//! here waits for its streams.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};

use libloading::Library;
use prefixd_blas::threads;

use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::gate::Mlx;
use crate::mlx::kv::DeviceMemory;

/// Bytes of a page-locked buffer, and of the pieces that processor cores copy at a time.
const STAGE_BYTES: usize = 8 << 20;
const PIECE_BYTES: usize = 512 << 10;

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: c_uint = 1;

/// The driver, with a stream and buffers for copies.
pub struct Driver {
    calls: Calls,
    stream: *mut c_void,
    stages: RefCell<[Pinned; 2]>,
}

/// Page-locked memory, which the device reads and writes at the same address.
pub struct Pinned {
    memory: *mut u8,
    bytes: usize,
    free: unsafe extern "C" fn(*mut c_void) -> c_int,
}

/// Declares the calls and finds them in the library.
macro_rules! calls {
    ($($field:ident = $name:literal ($($argument:ty),*);)*) => {
        struct Calls {
            $($field: unsafe extern "C" fn($($argument),*) -> c_int,)*
            _library: Library,
        }

        impl Calls {
            fn find(library: Library) -> std::result::Result<Self, libloading::Error> {
                // SAFETY: the types are those of cuda.h, for these names.
                unsafe { Ok(Self { $($field: *library.get(concat!($name, "\0").as_bytes())?,)* _library: library }) }
            }
        }
    };
}

calls! {
    init = "cuInit" (c_uint);
    device = "cuDeviceGet" (*mut c_int, c_int);
    context = "cuDevicePrimaryCtxRetain" (*mut *mut c_void, c_int);
    enter = "cuCtxSetCurrent" (*mut c_void);
    stream = "cuStreamCreate" (*mut *mut c_void, c_uint);
    wait = "cuStreamSynchronize" (*mut c_void);
    allocate = "cuMemAlloc_v2" (*mut u64, usize);
    clear = "cuMemsetD8Async" (u64, c_uchar, usize, *mut c_void);
    free = "cuMemFree_v2" (u64);
    lock = "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    unlock = "cuMemFreeHost" (*mut c_void);
    upload = "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, *mut c_void);
    download = "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, *mut c_void);
    duplicate = "cuMemcpyDtoDAsync_v2" (u64, u64, usize, *mut c_void);
    describe = "cuGetErrorString" (c_int, *mut *const c_char);
}

impl Driver {
    /// Joins the context that MLX works in, on this thread.
    ///
    /// # Errors
    /// When the driver is not there or refuses.
    pub fn open(_: &Mlx) -> Result<Self> {
        // SAFETY: the driver's library may be loaded any number of times; MLX has it already.
        let library = unsafe { Library::new("libcuda.so.1") };
        let calls = library.and_then(Calls::find);
        let calls = calls.map_err(|error| MlxError::backend(format!("the CUDA driver: {error}")))?;
        let (mut device, mut context, mut stream) = (0, std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: each call writes one value that lives here.
        unsafe {
            check(&calls, "cuInit", (calls.init)(0))?;
            check(&calls, "cuDeviceGet", (calls.device)(&raw mut device, 0))?;
            check(&calls, "cuDevicePrimaryCtxRetain", (calls.context)(&raw mut context, device))?;
            check(&calls, "cuCtxSetCurrent", (calls.enter)(context))?;
            check(&calls, "cuStreamCreate", (calls.stream)(&raw mut stream, NON_BLOCKING))?;
        }
        let stages = [pinned(&calls, STAGE_BYTES)?, pinned(&calls, STAGE_BYTES)?];
        Ok(Self { calls, stream, stages: RefCell::new(stages) })
    }

    /// Page-locked memory, zeroed.
    pub fn pinned(&self, bytes: usize) -> Result<Pinned> {
        pinned(&self.calls, bytes)
    }

    fn wait(&self) -> Result<()> {
        // SAFETY: the stream is live.
        check(&self.calls, "cuStreamSynchronize", unsafe { (self.calls.wait)(self.stream) })
    }
}

fn pinned(calls: &Calls, bytes: usize) -> Result<Pinned> {
    let mut memory = std::ptr::null_mut();
    // SAFETY: the call writes one address.
    check(calls, "cuMemHostAlloc", unsafe { (calls.lock)(&raw mut memory, bytes, 0) })?;
    let memory = memory.cast::<u8>();
    // SAFETY: so many bytes were allocated there.
    unsafe { memory.write_bytes(0, bytes) };
    Ok(Pinned { memory, bytes, free: calls.unlock })
}

impl DeviceMemory for Driver {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        let mut address = 0;
        // SAFETY: the call writes one address.
        check(&self.calls, "cuMemAlloc", unsafe { (self.calls.allocate)(&raw mut address, bytes) })?;
        self.clear(address, bytes).inspect_err(|_| self.free(address))?;
        Ok(address)
    }

    fn free(&self, address: u64) {
        // SAFETY: made by `allocate`, freed once, and in use by nobody. A failure leaves the memory taken.
        unsafe { (self.calls.free)(address) };
    }

    fn upload(&self, address: u64, source: &[u8]) -> Result<()> {
        let mut stages = self.stages.borrow_mut();
        for (number, part) in source.chunks(STAGE_BYTES).enumerate() {
            let stage = &mut stages[number % 2];
            copy(part, &mut stage.bytes_mut()[..part.len()]);
            if number > 0 {
                self.wait()?;
            }
            let to = address + (number * STAGE_BYTES) as u64;
            // SAFETY: the stage holds these bytes until the next wait, and the target is as long as the source.
            let status = unsafe { (self.calls.upload)(to, stage.memory.cast(), part.len(), self.stream) };
            check(&self.calls, "cuMemcpyHtoDAsync", status)?;
        }
        self.wait()
    }

    fn download(&self, address: u64, into: &mut [u8]) -> Result<()> {
        let mut stages = self.stages.borrow_mut();
        let begin = |stage: &Pinned, number: usize, bytes: usize| {
            let from = address + (number * STAGE_BYTES) as u64;
            // SAFETY: the stage has room for these bytes, and the source is as long as the target.
            let status = unsafe { (self.calls.download)(stage.memory.cast(), from, bytes, self.stream) };
            check(&self.calls, "cuMemcpyDtoHAsync", status)
        };
        let lengths: Vec<usize> = into.chunks(STAGE_BYTES).map(<[u8]>::len).collect();
        for (number, part) in into.chunks_mut(STAGE_BYTES).enumerate() {
            if number == 0 {
                begin(&stages[0], 0, part.len())?;
            }
            self.wait()?;
            if let Some(next) = lengths.get(number + 1) {
                begin(&stages[(number + 1) % 2], number + 1, *next)?;
            }
            copy(&stages[number % 2].bytes_mut()[..part.len()], part);
        }
        Ok(())
    }

    fn duplicate(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        // SAFETY: both are allocations of at least so many bytes.
        let status = unsafe { (self.calls.duplicate)(to, from, bytes, self.stream) };
        check(&self.calls, "cuMemcpyDtoDAsync", status)?;
        self.wait()
    }

    fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: an allocation of at least so many bytes.
        let status = unsafe { (self.calls.clear)(address, 0, bytes, self.stream) };
        check(&self.calls, "cuMemsetD8Async", status)?;
        self.wait()
    }
}

impl Pinned {
    /// Where it begins, for the host as for the device.
    pub fn address(&self) -> u64 {
        self.memory as u64
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// What it holds. Nothing on the device may be writing there.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes were allocated and zeroed, and nobody else on the host refers to them.
        unsafe { std::slice::from_raw_parts_mut(self.memory, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by the driver, freed once. The driver's library stays loaded: MLX holds it.
        unsafe { (self.free)(self.memory.cast()) };
    }
}

/// Copies by several cores.
fn copy(from: &[u8], to: &mut [u8]) {
    threads::pieces(true, to, PIECE_BYTES, |i, to| to.copy_from_slice(&from[i * PIECE_BYTES..][..to.len()]));
}

/// An error of the driver's, as it describes it.
fn check(calls: &Calls, call: &str, status: c_int) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    let mut text = std::ptr::null();
    // SAFETY: the driver fills in a text that lives as long as it does, or leaves the null.
    let text = unsafe {
        (calls.describe)(status, &raw mut text);
        if text.is_null() { "unknown error".into() } else { CStr::from_ptr(text).to_string_lossy() }
    };
    Err(MlxError::described(&format!("{call} failed: {text} ({status})")))
}
