//! Where pages lie: what rows ask of the memory of the host, and of a device's.

use std::borrow::Cow;
use std::fmt::Debug;
use std::ops::Deref;

use prefixd_cache::{Buffer, Bytes, Memory, Part};

use crate::mlx::array::Result;
use crate::mlx::error::MlxError;
use crate::mlx::kv::spec::KvSpec;

/// A kind of memory. A page is written by one row, its own; a full one is shared and never written again.
pub trait PageMemory: Sized {
    /// A page's memory.
    type Page: ?Sized;
    /// A page of one row.
    type Own: Deref<Target = Self::Page> + Debug;
    /// A page that others may hold.
    type Shared: Deref<Target = Self::Page> + Clone + Debug;
    /// What a recurrent layer's state lies in.
    type State: Clone + Debug;

    /// The memory of a model's rows.
    ///
    /// # Errors
    /// When they lie elsewhere.
    fn of(spec: &KvSpec) -> Result<&Self>;

    /// A page of `bytes` without tokens.
    fn fresh(&self, part: Part, bytes: usize) -> Result<Self::Own>;

    /// A page that holds these bytes.
    fn filled(&self, part: Part, bytes: Buffer) -> Result<Self::Own>;

    /// Ends the writing.
    fn share(page: Self::Own) -> Self::Shared;

    /// A page to write into: this one when nobody else holds it, else a copy.
    ///
    /// # Errors
    /// When there is no memory for a copy; the page comes back.
    fn make_own(&self, page: Self::Shared) -> std::result::Result<Self::Own, (Self::Shared, MlxError)>;

    /// A copy.
    fn duplicate(&self, page: &Self::Own) -> Result<Self::Own>;

    /// What a page holds, to be read by the host.
    fn read<'a>(&self, page: &'a Self::Page) -> Result<Cow<'a, [u8]>>;

    /// The same as bytes that the cache may hold.
    fn export(&self, page: &Self::Shared) -> Result<Bytes>;

    /// The page of bytes that the cache holds.
    fn import(&self, part: Part, bytes: Bytes) -> Result<Self::Shared>;
}

/// Memory of the host: pages are the bytes that the cache holds.
impl PageMemory for Memory {
    type Page = [u8];
    type Own = Buffer;
    type Shared = Bytes;
    type State = Bytes;

    fn of(spec: &KvSpec) -> Result<&Self> {
        match spec.pool {
            None => Ok(&spec.memory),
            Some(_) => {
                Err(MlxError::backend("a row on the host of a model whose pages lie on a device".into()))
            }
        }
    }

    fn fresh(&self, _: Part, bytes: usize) -> Result<Buffer> {
        Ok(self.buffer(bytes))
    }

    fn filled(&self, _: Part, bytes: Buffer) -> Result<Buffer> {
        Ok(bytes)
    }

    fn share(page: Buffer) -> Bytes {
        page.share()
    }

    fn make_own(&self, page: Bytes) -> std::result::Result<Buffer, (Bytes, MlxError)> {
        Ok(page.into_buffer())
    }

    fn duplicate(&self, page: &Buffer) -> Result<Buffer> {
        Ok(page.clone())
    }

    fn read<'a>(&self, page: &'a [u8]) -> Result<Cow<'a, [u8]>> {
        Ok(Cow::Borrowed(page))
    }

    fn export(&self, page: &Bytes) -> Result<Bytes> {
        Ok(page.clone())
    }

    fn import(&self, _: Part, bytes: Bytes) -> Result<Bytes> {
        Ok(bytes)
    }
}
