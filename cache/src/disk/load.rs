//! Reading the files of one block or snapshot, and believing nothing in them that is not checked.
//!
//! Order: length, header checksum, fingerprint, identity, tensor checksums.
//!
//! All tensors of a part lie in one buffer, in the order of the file, which is the order in which the engine laid them out:
//! so the engine can use the buffer as it is.
//!
//! A tensor is hashed piece by piece while the piece is still in the processor's cache: memory is walked once.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::block::Block;
use crate::disk::codec::{self, Contents, Header, LENGTH_BYTES, TensorEntry};
use crate::disk::directory::Directory;
use crate::disk::files::{FileId, FileSystem};
use crate::error::ReadError;
use crate::key::BlockKey;
use crate::memory::Memory;
use crate::payload::{Part, Payload, TensorBytes};
use crate::tier::Expected;

/// Bytes read and hashed at a time: within a core's second-level cache, wide enough for the hash's widest form.
const PIECE_BYTES: usize = 64 << 10;

/// A verified block.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub block: Block,
    /// Whether all tensors are there.
    pub whole: bool,
    pub read_bytes: u64,
    /// Time in the file system's calls.
    pub read: Duration,
    /// All other time: headers, identity, checksums.
    pub verify: Duration,
}

/// A block that cannot be used, and the file it was not read from.
#[derive(Debug)]
pub(crate) struct LoadFailure {
    pub error: ReadError,
    pub file: Option<FileId>,
}

/// Files of the store, as a reader uses them.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub directory: &'a Directory,
    pub files: &'a dyn FileSystem,
    /// Blocks are read into it.
    pub memory: &'a Memory,
}

/// A file of the store, read from its beginning to its end.
struct OpenFile {
    file: File,
    metadata: fs::Metadata,
    /// Time that opening and reading it took so far.
    read: Duration,
}

/// The tensors of one file, each with its place in the payload.
struct PartRead {
    header: Header,
    tensors: Vec<(usize, TensorBytes)>,
    read_bytes: u64,
    read: Duration,
}

impl Reading<'_> {
    /// Reads and verifies a snapshot.
    pub fn load_snapshot(self, expected: &Expected) -> Result<Loaded, LoadFailure> {
        let began = Instant::now();
        let PartRead { header, mut tensors, read_bytes, read } = self.part(expected, Part::State, false)?;
        tensors.sort_by_key(|(place, _)| *place);
        let payload = Payload { tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect() };
        let Header { tenant, parent, start, tokens, .. } = header;
        let block = Block { key: expected.key, parent, tenant, start, tokens, payload };
        Ok(Loaded { block, whole: true, read_bytes, read, verify: began.elapsed().saturating_sub(read) })
    }

    /// Reads and verifies a block, with its window part or without.
    pub fn load(self, expected: &Expected, with_window: bool) -> Result<Loaded, LoadFailure> {
        let began = Instant::now();
        let full = self.part(expected, Part::Full, with_window)?;
        let (mut tensors, mut read_bytes, mut read) = (full.tensors, full.read_bytes, full.read);
        let mut whole = full.header.contents == Contents::Full { window: false }
            || tensors.len() == full.header.tensors.len() && full.header.contents == Contents::All;
        if full.header.contents == (Contents::Full { window: true }) && with_window {
            let window = self.part(expected, Part::Window, true)?;
            tensors.extend(window.tensors);
            read_bytes += window.read_bytes;
            read += window.read;
            whole = true;
        }
        tensors.sort_by_key(|(place, _)| *place);
        if whole && !codec::are_all(tensors.iter().map(|(place, _)| *place)) {
            let error = ReadError::Header("the tensors of both parts are not numbered from 0".into());
            return Err(LoadFailure { error, file: None });
        }
        let payload = Payload { tensors: tensors.into_iter().map(|(_, tensor)| tensor).collect() };
        let Header { tenant, parent, start, tokens, .. } = full.header;
        let block = Block { key: expected.key, parent, tenant, start, tokens, payload };
        Ok(Loaded { block, whole, read_bytes, read, verify: began.elapsed().saturating_sub(read) })
    }

    /// Reads and verifies the header of a file, and that the file is named by it.
    pub fn header(self, key: &BlockKey, part: Part) -> Result<Header, ReadError> {
        let path = self.directory.path(key, part);
        let mut file = self.open(&path).map_err(|failure| failure.error)?;
        let header = self.read_header(&mut file)?;
        if header.key() == *key && header.contents.is_of(part) {
            Ok(header)
        } else {
            Err(ReadError::Identity)
        }
    }

    fn part(self, expected: &Expected, part: Part, with_window: bool) -> Result<PartRead, LoadFailure> {
        let mut file = self.open(&self.directory.path(&expected.key, part))?;
        let id = FileId::of(&file.metadata);
        self.tensors(&mut file, expected, part, with_window)
            .map_err(|error| LoadFailure { error, file: Some(id) })
    }

    fn open(self, path: &Path) -> Result<OpenFile, LoadFailure> {
        let began = Instant::now();
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
        let file = self.files.open(path).map_err(|error| failure(system(&error), None))?;
        let metadata = file.metadata().map_err(|error| failure(system(&error), None))?;
        if !metadata.is_file() {
            return Err(failure(ReadError::NotAFile, Some(FileId::of(&metadata))));
        }
        Ok(OpenFile { file, metadata, read: began.elapsed() })
    }

    fn tensors(
        self,
        file: &mut OpenFile,
        expected: &Expected,
        part: Part,
        with_window: bool,
    ) -> Result<PartRead, ReadError> {
        let header = self.read_header(file)?;
        if header.fingerprint != expected.fingerprint {
            return Err(ReadError::Fingerprint);
        }
        let same = header.tenant == expected.tenant
            && header.parent == expected.parent
            && header.start == expected.start
            && header.tokens[..] == expected.tokens[..]
            && header.key() == expected.key
            && header.contents.is_of(part);
        if !same {
            return Err(ReadError::Identity);
        }
        let (mut read_bytes, mut tensors) = (header.head_bytes, Vec::with_capacity(header.tensors.len()));
        for entries in header.tensors.chunk_by(|a, b| a.part == b.part) {
            if entries[0].part == Part::Window && !with_window {
                break;
            }
            // The header was held against the file's length: no more than that is allocated.
            let part_bytes = entries.iter().map(|entry| entry.bytes).sum();
            let mut buffer = self.memory.buffer(part_bytes);
            self.read_tensors(file, entries, &mut buffer)?;
            let (bytes, mut at) = (buffer.share(), 0);
            for TensorEntry { name, part, order, dtype, shape, bytes: length, .. } in entries {
                let (name, part, dtype, shape) = (name.clone(), *part, *dtype, shape.clone());
                let data = bytes.slice(at..at + length);
                tensors.push((*order, TensorBytes { name, part, dtype, shape, data }));
                at += length;
            }
            read_bytes += part_bytes as u64;
        }
        Ok(PartRead { header, tensors, read_bytes, read: file.read })
    }

    /// Reads tensors that lie one behind the other, and checks each against its checksum.
    fn read_tensors(
        self,
        file: &mut OpenFile,
        entries: &[TensorEntry],
        mut into: &mut [u8],
    ) -> Result<(), ReadError> {
        for entry in entries {
            let (tensor, rest) = into.split_at_mut(entry.bytes);
            let mut hasher = blake3::Hasher::new();
            self.read_exactly(file, tensor, |piece| {
                hasher.update(piece);
            })?;
            if hasher.finalize() != entry.checksum {
                return Err(ReadError::Checksum(format!("tensor {:?}", entry.name)));
            }
            into = rest;
        }
        Ok(())
    }

    fn read_header(self, file: &mut OpenFile) -> Result<Header, ReadError> {
        let file_bytes = file.metadata.len();
        let mut field = [0; LENGTH_BYTES];
        self.read_exactly(file, &mut field, |_| {})?;
        let mut header = vec![0; codec::header_bytes(field, file_bytes)?];
        self.read_exactly(file, &mut header, |_| {})?;
        codec::decode(&header, file_bytes)
    }

    /// The next bytes of a file, as many as `into` holds; they lie within its length. `seen` gets them piece by piece.
    fn read_exactly(
        self,
        file: &mut OpenFile,
        into: &mut [u8],
        mut seen: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let (file_bytes, wanted) = (file.metadata.len(), into.len() as u64);
        for piece in into.chunks_mut(PIECE_BYTES) {
            let asked = Instant::now();
            let count = self.files.read(&mut file.file, piece).map_err(|error| system(&error))?;
            file.read += asked.elapsed();
            seen(&piece[..count]);
            if count < piece.len() {
                return Err(ReadError::Length { found: file_bytes, expected: file_bytes.max(wanted) });
            }
        }
        Ok(())
    }
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
