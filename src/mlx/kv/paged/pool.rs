//! Pages in a device's memory, and which of the cache's blocks and snapshots lie there. The state of one recurrent layer is a page, too.
//!
//! 1. A page is freed when nobody holds its handle: rows do, and the pool itself for what it has seen of the cache. The latter only as
//!    long as the cache holds the same bytes in the host's memory, and only until a row needs the room; the longest unused go first.
//!    So a prefix that is used again takes entries of a table, and one whose page is gone is uploaded from the host.
//! 2. Memory is taken in slabs of several pages, up to a limit. A slab without pages in use goes back when another part needs it.
//! 3. Everything happens on the gate's thread, between steps.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::rc::{Rc, Weak};

use bytesize::ByteSize;
use prefixd_cache::{Buffer, Bytes, Counted, Memory, Part, Watch};
use prefixd_engine::EngineError;

use super::memory::PageMemory;
use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::kv::spec::KvSpec;

/// Kinds of pages, by their numbers.
const PARTS: usize = 3;
/// Bytes that are taken from the device at a time, about.
const SLAB_BYTES: usize = 64 << 20;
/// How many slabs fill the pool at least.
const SLABS_AT_LEAST: u64 = 16;

/// The memory of a device.
pub trait DeviceMemory {
    /// The address of `bytes` bytes, zeroed: kernels multiply by 0 what no token has written yet.
    fn allocate(&self, bytes: usize) -> Result<u64>;
    /// Gives back what was allocated.
    fn free(&self, address: u64);
    /// Copies to the device.
    fn upload(&self, address: u64, source: &[u8]) -> Result<()>;
    /// Copies to the host.
    fn download(&self, address: u64, into: &mut [u8]) -> Result<()>;
    /// Copies on the device.
    fn duplicate(&self, from: u64, to: u64, bytes: usize) -> Result<()>;
    /// Writes zeros.
    fn clear(&self, address: u64, bytes: usize) -> Result<()>;
}

/// The pages of one model.
pub struct DevicePool {
    device: Rc<dyn DeviceMemory>,
    /// Where pages in use count.
    memory: Memory,
    limit_bytes: Cell<u64>,
    shelves: Rc<RefCell<[Shelf; PARTS]>>,
    resident: RefCell<HashMap<(usize, usize), Resident>>,
    /// Counts uses of residents.
    clock: Cell<u64>,
}

/// A page. Dropped, it is free.
pub struct DevicePage {
    address: u64,
    bytes: usize,
    part: Part,
    shelves: Weak<RefCell<[Shelf; PARTS]>>,
    _counted: Counted,
}

/// A page of one row.
#[derive(Debug)]
pub struct OwnPage(DevicePage);

/// The pages of one part, which are all of one size.
#[derive(Default)]
struct Shelf {
    page_bytes: usize,
    slabs: Vec<Slab>,
}

struct Slab {
    address: u64,
    pages: usize,
    free: Vec<u64>,
}

/// A page with the bytes of a block.
struct Resident {
    block: Watch,
    page: Rc<DevicePage>,
    used: u64,
}

impl DevicePool {
    /// A pool that takes up to `limit_bytes` of a device's memory; pages in use count in `memory`.
    pub fn new(device: Rc<dyn DeviceMemory>, memory: Memory, limit_bytes: u64) -> Self {
        Self {
            device,
            memory,
            limit_bytes: Cell::new(limit_bytes),
            shelves: Rc::default(),
            resident: RefCell::default(),
            clock: Cell::default(),
        }
    }

    /// The device's memory.
    pub fn device(&self) -> &Rc<dyn DeviceMemory> {
        &self.device
    }

    /// Changes the limit. What is taken beyond it stays until it is free.
    pub fn limit(&self, bytes: u64) {
        self.limit_bytes.set(bytes);
    }

    /// Bytes taken from the device, those of free pages included.
    pub fn taken_bytes(&self) -> u64 {
        self.shelves.borrow().iter().map(Shelf::taken_bytes).sum()
    }

    /// Bytes of pages that only blocks of the cache keep.
    pub fn resident_bytes(&self) -> u64 {
        let resident = self.resident.borrow();
        resident.values().filter(|resident| resident.idle()).map(|resident| resident.page.bytes as u64).sum()
    }

    /// Lets go of every page that only blocks keep.
    #[cfg(test)]
    pub fn forget_blocks(&self) {
        self.resident.borrow_mut().clear();
    }

    /// A page of `bytes`, whatever it holds.
    fn page(&self, part: Part, bytes: usize) -> Result<DevicePage> {
        let page = |address| DevicePage {
            address,
            bytes,
            part,
            shelves: Rc::downgrade(&self.shelves),
            _counted: self.memory.count(bytes),
        };
        if let Some(address) = self.free_page(part, bytes) {
            return Ok(page(address));
        }
        // Of blocks that the cache has let go.
        self.resident.borrow_mut().retain(|_, resident| resident.block.is_held());
        if let Some(address) = self.free_page(part, bytes) {
            return Ok(page(address));
        }
        if let Err(error) = self.grow(part, bytes)
            && !self.let_one_go(part)
        {
            self.give_back_slabs(part);
            self.grow(part, bytes).map_err(|_| error)?;
        }
        self.free_page(part, bytes).map(page).ok_or_else(|| MlxError::backend("a slab without pages".into()))
    }

    fn copy(&self, page: &DevicePage) -> Result<OwnPage> {
        let copy = self.page(page.part, page.bytes)?;
        self.device.duplicate(page.address, copy.address, page.bytes)?;
        Ok(OwnPage(copy))
    }

    fn free_page(&self, part: Part, bytes: usize) -> Option<u64> {
        let mut shelves = self.shelves.borrow_mut();
        let shelf = &mut shelves[part as usize];
        debug_assert!(shelf.page_bytes == bytes || shelf.slabs.is_empty());
        // Out of the fullest slab, so that others empty.
        let slabs = shelf.slabs.iter_mut().filter(|slab| !slab.free.is_empty());
        slabs.min_by_key(|slab| slab.free.len())?.free.pop()
    }

    /// Takes another slab from the device.
    fn grow(&self, part: Part, bytes: usize) -> Result<()> {
        let limit = self.limit_bytes.get();
        let left = limit.saturating_sub(self.taken_bytes()) as usize / bytes.max(1);
        // A small part of all that there is, or what one part takes first the other would lack.
        let slab = SLAB_BYTES.min((limit / SLABS_AT_LEAST) as usize);
        let pages = (slab / bytes.max(1)).max(1).min(left);
        if pages == 0 {
            let [limit, page] = [limit, bytes as u64].map(ByteSize);
            return Err(EngineError::OutOfMemory(format!(
                "all of the {limit} that pages may take of the device are in use, a page takes {page}"
            ))
            .into());
        }
        let address = self.device.allocate(pages * bytes)?;
        let mut shelves = self.shelves.borrow_mut();
        let shelf = &mut shelves[part as usize];
        shelf.page_bytes = bytes;
        let free = (0..pages).rev().map(|page| address + (page * bytes) as u64).collect();
        shelf.slabs.push(Slab { address, pages, free });
        Ok(())
    }

    /// Lets go of the page of the block that was unused for longest, among those that no row reads.
    fn let_one_go(&self, part: Part) -> bool {
        let mut resident = self.resident.borrow_mut();
        let idle = resident.iter().filter(|(_, resident)| resident.page.part == part && resident.idle());
        let oldest = idle.min_by_key(|(_, resident)| resident.used).map(|(key, _)| *key);
        oldest.is_some_and(|key| resident.remove(&key).is_some())
    }

    /// Gives slabs of the other parts that hold nothing back to the device, after letting go of what only blocks keep there.
    fn give_back_slabs(&self, part: Part) {
        for other in [Part::Full, Part::Window, Part::State].into_iter().filter(|other| *other != part) {
            while self.let_one_go(other) {}
            self.shelves.borrow_mut()[other as usize].slabs.retain(|slab| {
                let empty = slab.free.len() == slab.pages;
                if empty {
                    self.device.free(slab.address);
                }
                !empty
            });
        }
    }

    /// A recurrent layer's state, to be written by one step.
    pub fn state(&self, bytes: usize) -> Result<Rc<DevicePage>> {
        self.page(Part::State, bytes).map(Rc::new)
    }

    /// The state before the first token.
    pub fn zero_state(&self, bytes: usize) -> Result<Rc<DevicePage>> {
        let state = self.state(bytes)?;
        self.device.clear(state.address, bytes)?;
        Ok(state)
    }

    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    fn remember(&self, bytes: &Bytes, page: &Rc<DevicePage>) {
        let resident = Resident { block: bytes.watch(), page: page.clone(), used: self.tick() };
        self.resident.borrow_mut().insert(bytes.place(), resident);
    }
}

impl PageMemory for DevicePool {
    type Page = DevicePage;
    type Own = OwnPage;
    type Shared = Rc<DevicePage>;
    type State = Rc<DevicePage>;

    fn of(spec: &KvSpec) -> Result<&Self> {
        let host = || MlxError::backend("a row on a device of a model whose pages lie on the host".into());
        spec.pool.as_ref().ok_or_else(host)
    }

    fn fresh(&self, part: Part, bytes: usize) -> Result<OwnPage> {
        self.page(part, bytes).map(OwnPage)
    }

    fn filled(&self, part: Part, bytes: Buffer) -> Result<OwnPage> {
        let page = self.page(part, bytes.len())?;
        self.device.upload(page.address, &bytes)?;
        Ok(OwnPage(page))
    }

    fn share(page: OwnPage) -> Rc<DevicePage> {
        Rc::new(page.0)
    }

    fn make_own(&self, page: Rc<DevicePage>) -> std::result::Result<OwnPage, (Rc<DevicePage>, MlxError)> {
        let page = match Rc::try_unwrap(page) {
            Ok(page) => return Ok(OwnPage(page)),
            Err(page) => page,
        };
        self.copy(&page).map_err(|error| (page, error))
    }

    fn duplicate(&self, page: &OwnPage) -> Result<OwnPage> {
        self.copy(page)
    }

    fn read<'a>(&self, page: &'a DevicePage) -> Result<Cow<'a, [u8]>> {
        let mut bytes = vec![0; page.bytes];
        self.device.download(page.address, &mut bytes)?;
        Ok(Cow::Owned(bytes))
    }

    fn export(&self, page: &Rc<DevicePage>) -> Result<Bytes> {
        let mut bytes = self.memory.buffer(page.bytes);
        self.device.download(page.address, &mut bytes)?;
        let bytes = bytes.share();
        self.remember(&bytes, page);
        Ok(bytes)
    }

    fn import(&self, part: Part, bytes: Bytes) -> Result<Rc<DevicePage>> {
        if let Some(resident) = self.resident.borrow_mut().get_mut(&bytes.place())
            && resident.block.is_held()
            && resident.page.bytes == bytes.len()
        {
            resident.used = self.tick();
            return Ok(resident.page.clone());
        }
        let page = Rc::new(self.page(part, bytes.len())?);
        self.device.upload(page.address, &bytes)?;
        self.remember(&bytes, &page);
        Ok(page)
    }
}

impl Drop for DevicePool {
    fn drop(&mut self) {
        for slab in self.shelves.borrow().iter().flat_map(|shelf| &shelf.slabs) {
            self.device.free(slab.address);
        }
    }
}

impl fmt::Debug for DevicePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevicePool of {}", ByteSize(self.taken_bytes()))
    }
}

impl DevicePage {
    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl fmt::Debug for DevicePage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DevicePage at {:#x}", self.address)
    }
}

impl Drop for DevicePage {
    fn drop(&mut self) {
        if let Some(shelves) = self.shelves.upgrade() {
            shelves.borrow_mut()[self.part as usize].put_back(self.address);
        }
    }
}

impl Deref for OwnPage {
    type Target = DevicePage;

    fn deref(&self) -> &DevicePage {
        &self.0
    }
}

impl Shelf {
    fn taken_bytes(&self) -> u64 {
        self.slabs.iter().map(|slab| (slab.pages * self.page_bytes) as u64).sum()
    }

    fn put_back(&mut self, address: u64) {
        let page_bytes = self.page_bytes;
        let holds = |slab: &&mut Slab| {
            (slab.address..slab.address + (slab.pages * page_bytes) as u64).contains(&address)
        };
        if let Some(slab) = self.slabs.iter_mut().find(holds) {
            slab.free.push(address);
        }
    }
}

impl Resident {
    /// Does no row read it?
    fn idle(&self) -> bool {
        Rc::strong_count(&self.page) == 1
    }
}
