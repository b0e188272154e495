//! Tokens are quantized once: one block's bytes in the batch, in memory, in its file, after a restart, and in a batch again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prefixd::mlx::{LoadOptions, MlxEngine};
use prefixd_cache::{
    CacheOptions, DiskOptions, FlushOutcome, Lookup, Payload, PrefixCache, Restored, Tenant, Tier,
};
use prefixd_engine::{Engine, Gate, GateError, ImportBlock, Steps};
use safetensors::SafeTensors;

const BLOCK: usize = 256;

fn cache(engine: &MlxEngine, dir: &Path) -> PrefixCache {
    let disk = DiskOptions {
        dir: dir.to_owned(),
        budget_bytes: 1 << 30,
        free_floor_bytes: 0,
        write_queue_bytes: 1 << 30,
        readers: 2,
    };
    let fingerprint = engine.info().fingerprint;
    PrefixCache::open(CacheOptions {
        fingerprint,
        block_tokens: BLOCK,
        resident_bytes: 1 << 30,
        disk: Some(disk),
    })
    .unwrap()
}

fn restore(cache: &mut PrefixCache, lookup: &Lookup) -> Restored {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    cache.restore(lookup, 0, Box::new(move |restored| sender.send(restored).unwrap()));
    receiver.recv_timeout(Duration::from_mins(1)).unwrap()
}

fn block_files(dir: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(dir.join("blocks")).unwrap().map(|folder| folder.unwrap().path());
    folders.flat_map(|folder| std::fs::read_dir(folder).unwrap()).map(|file| file.unwrap().path()).collect()
}

/// Are these tensors in the files, with the same bytes, and nothing else?
fn are_in_files(payload: &Payload, files: &[PathBuf]) -> bool {
    let bytes: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let files: Vec<_> = bytes.iter().map(|bytes| SafeTensors::deserialize(bytes).unwrap()).collect();
    let stored = |name: &str| files.iter().find_map(|file| file.tensor(name).ok()).unwrap();
    files.iter().map(SafeTensors::len).sum::<usize>() == payload.tensors.len()
        && payload.tensors.iter().all(|tensor| {
            let stored = stored(&tensor.name);
            stored.dtype() == tensor.dtype && stored.shape() == tensor.shape && *stored.data() == *tensor.data
        })
}

#[test]
fn a_block_s_bytes_are_the_same_wherever_it_is() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/clerk");
    for kv in ["k8v4", "16", "8", "4"] {
        let options = LoadOptions { kv: kv.parse().unwrap(), block_tokens: BLOCK, ..LoadOptions::default() };
        let mut engine = MlxEngine::load(owner.thread(), &model, options, &mut |_| ()).unwrap();
        let vocab = engine.info().vocab;
        let prompt: Vec<u32> = (0..BLOCK + 40).map(|i| ((i * 7919 + 13) % vocab) as u32).collect();
        let dir = tempfile::tempdir().unwrap();

        // Live: a row of a batch that decodes.
        let mut row = engine.start().unwrap();
        engine.prefill(&mut row, &prompt).unwrap();
        let mut batch = engine.empty();
        engine.extend(&mut batch, row).unwrap();
        engine.decode(&mut batch, &[7]).unwrap();
        let live = engine.export(&batch, 0, 0..BLOCK).unwrap();

        // Resident, then on disk.
        let mut first = cache(&engine, dir.path());
        let lookup = first.lookup(&Tenant::PUBLIC, &prompt, prompt.len());
        let mut lease = first.lease(&Tenant::PUBLIC, &lookup);
        let resident = first.insert(&mut lease, &prompt[..BLOCK], live.clone());
        assert!(resident.payload == live, "{kv}: resident");
        let flushed = first.flush(Instant::now() + Duration::from_mins(1));
        assert_eq!(flushed, FlushOutcome::Durable);
        drop(first);
        let files = block_files(dir.path());
        assert_eq!(files.len(), 2, "the block and its window part: {files:?}");
        assert!(are_in_files(&live, &files), "{kv}: on disk");

        // After a restart, and live again.
        let mut second = cache(&engine, dir.path());
        let lookup = second.lookup(&Tenant::PUBLIC, &prompt, prompt.len());
        assert_eq!((lookup.tokens, lookup.hits[0].tier), (BLOCK, Tier::Disk));
        let restored = restore(&mut second, &lookup);
        let payload = &restored.blocks[0].block.payload;
        assert!(*payload == live, "{kv}: restored");
        let block = ImportBlock { payload, block_tokens: BLOCK, used_tokens: BLOCK };
        let mut again = engine.import(&[block]).unwrap();
        engine.prefill(&mut again, &prompt[BLOCK..]).unwrap();
        engine.extend(&mut batch, again).unwrap();
        engine.filter(&mut batch, &[1]).unwrap();
        engine.decode(&mut batch, &[7]).unwrap();
        assert!(engine.export(&batch, 0, 0..BLOCK).unwrap() == live, "{kv}: live again");
    }
}
