//! How fast a restore is against a plain parallel read of the same files from the page cache.
//!
//! `cargo bench -p prefixd-cache --bench restore [-- BLOCKS THREADS]`: both read every byte of the same block files with the
//! same number of threads; a restore also checks every checksum. The plain read comes in two kinds: each file whole, and
//! in pieces of the tensors' sizes, which asks the allocator for what a restore asks it for. Nothing that was read is freed
//! before the end: a restore after a restart fills fresh memory, and so does every round here. They take turns, so that
//! whatever else the machine does meets all; the best and the median of the rounds are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use prefixd_cache::{
    CacheOptions, DiskOptions, Dtype, Fingerprint, FlushOutcome, Part, Payload, PrefixCache, Restored,
    Tenant, TensorBytes,
};

const BLOCK_TOKENS: usize = 256;
const ROUNDS: usize = 9;
/// Of the tensors of one layer: K and V, each packed values, scales, biases.
const TENSOR_BYTES: [usize; 6] = [262_144, 8_192, 8_192, 131_072, 8_192, 8_192];

fn options(dir: &Path, readers: usize) -> CacheOptions {
    CacheOptions {
        fingerprint: Fingerprint::from_bytes([1; 32]),
        block_tokens: BLOCK_TOKENS,
        resident_bytes: 0,
        disk: Some(DiskOptions {
            dir: dir.to_owned(),
            budget_bytes: 1 << 40,
            free_floor_bytes: 0,
            write_queue_bytes: 1 << 33,
            readers,
        }),
    }
}

/// A block of Llama-3.1-8B with K in 8 bits and V in 4: 32 layers, 8 heads of 128, scales and biases of groups of 64.
fn payload(seed: u32) -> Payload {
    let tensor = |name: String, dtype, width: usize, item: usize| TensorBytes {
        data: (0..8 * BLOCK_TOKENS * width * item)
            .map(|at| (at as u32 ^ seed) as u8)
            .collect::<Vec<_>>()
            .into(),
        shape: vec![8, BLOCK_TOKENS, width],
        name,
        part: Part::Full,
        dtype,
    };
    let mut tensors = Vec::new();
    for layer in 0..32 {
        for (side, packed) in [("k", 32), ("v", 16)] {
            tensors.push(tensor(format!("{layer:03}.{side}.packed"), Dtype::U32, packed, 4));
            tensors.push(tensor(format!("{layer:03}.{side}.scales"), Dtype::F16, 2, 2));
            tensors.push(tensor(format!("{layer:03}.{side}.biases"), Dtype::F16, 2, 2));
        }
    }
    Payload { tensors }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let shards = std::fs::read_dir(dir.join("blocks")).unwrap();
    shards
        .flat_map(|shard| std::fs::read_dir(shard.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect()
}

/// How a plain read divides a file into buffers.
#[derive(Clone, Copy)]
enum Pieces {
    Whole,
    Tensors,
}

fn read_plain(path: &Path, pieces: Pieces) -> Vec<Vec<u8>> {
    match pieces {
        Pieces::Whole => vec![std::fs::read(path).unwrap()],
        Pieces::Tensors => {
            let mut file = File::open(path).unwrap();
            let mut length = [0; 8];
            file.read_exact(&mut length).unwrap();
            let sizes = TENSOR_BYTES.iter().cycle().take(6 * 32);
            let mut read = |bytes: usize| {
                let mut data = Vec::with_capacity(bytes);
                (&mut file).take(bytes as u64).read_to_end(&mut data).unwrap();
                data
            };
            let header = read(u64::from_le_bytes(length) as usize);
            std::iter::once(header).chain(sizes.map(|size| read(*size))).collect()
        }
    }
}

/// Threads that read files and hand the buffers over, like the reader threads of a cache.
struct PlainReaders {
    tasks: crossbeam_channel::Sender<(PathBuf, Pieces)>,
    results: crossbeam_channel::Receiver<Vec<Vec<u8>>>,
}

impl PlainReaders {
    fn spawn(threads: usize) -> Self {
        let (tasks, received) = crossbeam_channel::unbounded::<(PathBuf, Pieces)>();
        let (send, results) = crossbeam_channel::unbounded();
        for _ in 0..threads {
            let (received, send) = (received.clone(), send.clone());
            std::thread::spawn(move || {
                for (path, pieces) in received {
                    send.send(read_plain(&path, pieces)).ok();
                }
            });
        }
        Self { tasks, results }
    }

    /// Reads all files; the buffers are kept to the end, like the blocks of a restore.
    fn read(&self, files: &[PathBuf], pieces: Pieces, kept: &mut Kept) -> (Duration, u64) {
        let began = Instant::now();
        for file in files {
            self.tasks.send((file.clone(), pieces)).unwrap();
        }
        let buffers: Vec<Vec<Vec<u8>>> = self.results.iter().take(files.len()).collect();
        let took = began.elapsed();
        let bytes = buffers.iter().flatten().map(|data| data.len() as u64).sum();
        kept.plain.push(buffers);
        (took, bytes)
    }
}

/// What was read in all rounds.
#[derive(Default)]
struct Kept {
    plain: Vec<Vec<Vec<Vec<u8>>>>,
    restored: Vec<Restored>,
}

fn restore(cache: &mut PrefixCache, prompt: &[u32], kept: &mut Kept) -> (Duration, u64) {
    let lookup = cache.lookup(&Tenant::PUBLIC, prompt, prompt.len());
    let (send, receive) = mpsc::channel();
    let began = Instant::now();
    cache.restore(&lookup, 0, Box::new(move |restored| send.send(restored).unwrap()));
    let restored = receive.recv().unwrap();
    let took = began.elapsed();
    assert_eq!((restored.tokens, restored.failure.clone()), (prompt.len(), None));
    let bytes = restored.read_bytes;
    cache.absorb(&restored);
    kept.restored.push(restored);
    (took, bytes)
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let blocks = numbers.first().copied().unwrap_or(16);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = numbers.get(1).copied().unwrap_or(cores);
    let dir = tempfile::tempdir().unwrap();
    let mut cache = PrefixCache::open(options(dir.path(), threads)).unwrap();
    let prompt: Vec<u32> = (0..(blocks * BLOCK_TOKENS) as u32).collect();
    let nothing = cache.lookup(&Tenant::PUBLIC, &[], 0);
    let mut lease = cache.lease(&Tenant::PUBLIC, &nothing);
    for (number, tokens) in prompt.chunks(BLOCK_TOKENS).enumerate() {
        cache.insert(&mut lease, tokens, payload(number as u32));
    }
    drop(lease);
    assert_eq!(cache.flush(Instant::now() + Duration::from_mins(5)), FlushOutcome::Durable);
    cache.poll();
    let files = files(dir.path());
    let rate = |(took, bytes): (Duration, u64)| bytes as f64 / took.as_secs_f64() / 1e9;
    let [mut whole, mut plains, mut restores, mut ratios, mut of_whole] = [const { Vec::new() }; 5];
    let (readers, mut kept) = (PlainReaders::spawn(threads), Kept::default());
    for _ in 0..ROUNDS {
        whole.push(rate(readers.read(&files, Pieces::Whole, &mut kept)));
        let read = rate(readers.read(&files, Pieces::Tensors, &mut kept));
        let restored = rate(restore(&mut cache, &prompt, &mut kept));
        plains.push(read);
        restores.push(restored);
        ratios.push(restored / read);
        of_whole.push(restored / whole.last().unwrap());
    }
    for rates in [&mut whole, &mut plains, &mut restores, &mut ratios, &mut of_whole] {
        rates.sort_by(f64::total_cmp);
    }
    let (best, middle) = (ROUNDS - 1, ROUNDS / 2);
    let bytes: u64 = files.iter().map(|file| file.metadata().unwrap().len()).sum();
    println!("{blocks} blocks, {} MB, {threads} threads on {cores} cores", bytes / 1_000_000);
    println!("plain, by file      best {:.2} GB/s, median {:.2} GB/s", whole[best], whole[middle]);
    println!("plain, by tensor    best {:.2} GB/s, median {:.2} GB/s", plains[best], plains[middle]);
    println!("restore             best {:.2} GB/s, median {:.2} GB/s", restores[best], restores[middle]);
    println!(
        "restore / plain     by file {:.0} %, by tensor {:.0} % (medians of the rounds' ratios)",
        100.0 * of_whole[middle],
        100.0 * ratios[middle]
    );
}
