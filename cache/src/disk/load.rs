//! Reading one block file, and believing nothing in it that is not checked.
//!
//! Order: length, header checksum, fingerprint, identity, tensor checksums.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use crate::block::Block;
use crate::disk::codec::{self, Header, LENGTH_BYTES};
use crate::disk::files::{FileId, open_no_follow};
use crate::error::ReadError;
use crate::key::{BlockKey, Fingerprint, Tenant};
use crate::payload::{Part, Payload, TensorBytes};

/// The block that a file must hold to be used.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub key: BlockKey,
    pub fingerprint: Fingerprint,
    pub tenant: Tenant,
    pub parent: Option<BlockKey>,
    pub start: usize,
    pub tokens: Arc<[u32]>,
}

/// A verified block.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub block: Block,
    /// Whether all tensors are there.
    pub whole: bool,
    pub read_bytes: u64,
}

/// A block that cannot be used, and the file it was not read from.
#[derive(Debug)]
pub(crate) struct LoadFailure {
    pub error: ReadError,
    pub file: Option<FileId>,
}

/// Reads and verifies the block in `path`, with its window part or without.
pub(crate) fn load(path: &Path, expected: &Expected, with_window: bool) -> Result<Loaded, LoadFailure> {
    let (mut file, metadata) = open(path)?;
    let id = FileId::of(&metadata);
    load_from(&mut file, metadata.len(), expected, with_window)
        .map_err(|error| LoadFailure { error, file: Some(id) })
}

/// Reads and verifies the header in `path`, and that the file is named by it.
pub(crate) fn load_header(path: &Path, key: &BlockKey) -> Result<Header, ReadError> {
    let (mut file, metadata) = open(path).map_err(|failure| failure.error)?;
    let header = read_header(&mut file, metadata.len())?;
    if header.key() == *key { Ok(header) } else { Err(ReadError::Identity) }
}

fn open(path: &Path) -> Result<(File, fs::Metadata), LoadFailure> {
    let failure = |error, file| LoadFailure { error, file };
    // The directory above must be real as well: a link there would lead all its blocks elsewhere.
    if let Some(shard) = path.parent() {
        match fs::symlink_metadata(shard) {
            Ok(metadata) if !metadata.is_dir() => return Err(failure(ReadError::NotAFile, None)),
            Ok(_) => {}
            Err(error) => return Err(failure(system(&error), None)),
        }
    }
    let named = fs::symlink_metadata(path).map_err(|error| failure(system(&error), None))?;
    if !named.is_file() {
        return Err(failure(ReadError::NotAFile, Some(FileId::of(&named))));
    }
    let file = open_no_follow(path).map_err(|error| failure(system(&error), None))?;
    let metadata = file.metadata().map_err(|error| failure(system(&error), None))?;
    if !metadata.is_file() {
        return Err(failure(ReadError::NotAFile, Some(FileId::of(&metadata))));
    }
    Ok((file, metadata))
}

fn load_from(
    file: &mut File,
    file_bytes: u64,
    expected: &Expected,
    with_window: bool,
) -> Result<Loaded, ReadError> {
    let header = read_header(file, file_bytes)?;
    if header.fingerprint != expected.fingerprint {
        return Err(ReadError::Fingerprint);
    }
    let same = header.tenant == expected.tenant
        && header.parent == expected.parent
        && header.start == expected.start
        && header.tokens[..] == expected.tokens[..]
        && header.key() == expected.key;
    if !same {
        return Err(ReadError::Identity);
    }
    let (mut read_bytes, mut tensors) = (header.head_bytes, Vec::with_capacity(header.tensors.len()));
    for entry in &header.tensors {
        if entry.part == Part::Window && !with_window {
            break;
        }
        let data = read_exactly(file, entry.bytes, file_bytes)?;
        if blake3::hash(&data) != entry.checksum {
            return Err(ReadError::Checksum(format!("tensor {:?}", entry.name)));
        }
        read_bytes += entry.bytes as u64;
        let (name, shape) = (entry.name.clone(), entry.shape.clone());
        tensors.push((entry.order, TensorBytes { name, part: entry.part, dtype: entry.dtype, shape, data }));
    }
    tensors.sort_by_key(|(order, _)| *order);
    let whole = tensors.len() == header.tensors.len();
    let payload = Payload { tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect() };
    let Header { tenant, parent, start, tokens, .. } = header;
    Ok(Loaded {
        block: Block { key: expected.key, parent, tenant, start, tokens, payload },
        whole,
        read_bytes,
    })
}

fn read_header(file: &mut File, file_bytes: u64) -> Result<Header, ReadError> {
    let field = read_exactly(file, LENGTH_BYTES, file_bytes)?;
    let field = field.try_into().map_err(|_| ReadError::Header("length field".into()))?;
    let header = read_exactly(file, codec::header_bytes(field, file_bytes)?, file_bytes)?;
    codec::decode(&header, file_bytes)
}

/// The next `bytes` of a file; they lie within its length.
fn read_exactly(file: &mut File, bytes: usize, file_bytes: u64) -> Result<Vec<u8>, ReadError> {
    let mut data = Vec::with_capacity(bytes.min(file_bytes as usize));
    file.take(bytes as u64).read_to_end(&mut data).map_err(|error| system(&error))?;
    if data.len() < bytes {
        return Err(ReadError::Length { found: file_bytes, expected: file_bytes.max(bytes as u64) });
    }
    Ok(data)
}

fn system(error: &io::Error) -> ReadError {
    if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return ReadError::NotAFile;
    }
    match error.kind() {
        io::ErrorKind::NotFound => ReadError::Gone,
        _ => ReadError::Io(error.to_string()),
    }
}
