//! MLX's own rules on threads, and that the gate keeps them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlx_rs::Array;
use prefixd_cache::Payload;
use prefixd_engine::{Engine, Gate, GateError, ImportBlock, Job, Steps};

use super::gate::Mlx;
use super::kv::{BatchKv, KvSetting, KvSpec};
use super::mask::Mask;
use super::{Kernels, LoadOptions, MlxEngine};

#[test]
fn a_lazy_array_of_one_thread_cannot_be_evaluated_on_another() {
    let lazy =
        std::thread::spawn(|| Array::from_slice(&[1.0_f32, 2.0], &[2]).add(Array::from_f32(1.0)).unwrap());
    let error = lazy.join().unwrap().eval().unwrap_err();
    assert!(error.what().contains("There is no Stream"), "{}", error.what());
}

#[test]
fn through_the_gate_the_same_work_is_right_from_any_thread() {
    let gate = Gate::spawn().unwrap();
    let sums: Vec<f32> = std::thread::scope(|scope| {
        let work = |i: u16| {
            let gate = gate.clone();
            move || {
                let sum = gate.run(move |_| {
                    let lazy =
                        Array::from_slice(&[f32::from(i), 2.0], &[2]).add(Array::from_f32(1.0)).unwrap();
                    lazy.sum(None).unwrap().try_item_exact::<f32>().unwrap()
                });
                sum.unwrap()
            }
        };
        let threads: Vec<_> = (0..8).map(|i| scope.spawn(work(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(sums, (0..8_u16).map(|i| f32::from(i) + 4.0).collect::<Vec<_>>());
}

/// Imports a block's bytes as a row and exports them again.
fn round_trip(mx: &Mlx, payload: &Payload, tokens: usize) -> Payload {
    let masks = vec![Mask::Causal; 2];
    let spec = std::rc::Rc::new(KvSpec::new(Kernels::Host, KvSetting::DEFAULT, 2, 64, masks, 256));
    let block = ImportBlock { payload, block_tokens: tokens, used_tokens: tokens };
    BatchKv::import(mx, &spec, &[block]).unwrap().export(mx, 0, 0..tokens).unwrap()
}

#[test]
fn eight_threads_of_blocks_leave_a_decoding_owner_s_output_alone() {
    const THREADS: usize = 8;
    const ROUNDS: usize = 12;
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gemma3");
    let (sender, inbox) = crossbeam_channel::bounded::<Job>(THREADS);
    let gate = Gate::new(move |job| sender.send(job).map_err(|_| GateError::Closed));
    let owner = gate.enter().unwrap();
    let options = LoadOptions { kv: "16".parse().unwrap(), block_tokens: 16, ..LoadOptions::default() };
    let mut engine = MlxEngine::load(owner.thread(), &dir, options, &mut |_| ()).unwrap();
    let mut decode = |between: &mut dyn FnMut() -> bool| {
        let mut row = engine.start().unwrap();
        engine.prefill(&mut row, &[1, 5, 9, 13]).unwrap();
        let (mut outputs, mut step) = (Vec::new(), 0_u32);
        while between() || step < 40 {
            let logits = engine.decode(&mut row, &[step % 200]).unwrap().remove(0);
            if step < 40 {
                outputs.push(logits);
            }
            step += 1;
        }
        outputs
    };
    let alone = decode(&mut || false);

    let bytes = |seed: usize, count: usize| {
        (0..count).map(|i| ((i * 37 + seed * 101) % 251) as u8).collect::<Vec<_>>()
    };
    let payload = |seed: usize| {
        let shapes = [
            ("packed", 16, 4, prefixd_cache::Dtype::U32),
            ("scales", 1, 2, prefixd_cache::Dtype::F16),
            ("biases", 1, 2, prefixd_cache::Dtype::F16),
        ];
        let mut payload = Payload::default();
        for name in ["000.k", "000.v", "001.k", "001.v"] {
            for (plane, width, item, dtype) in shapes {
                let width = if plane == "packed" && name.ends_with('v') { width / 2 } else { width };
                payload.tensors.push(prefixd_cache::TensorBytes {
                    name: format!("{name}.{plane}"),
                    part: prefixd_cache::Part::Full,
                    dtype,
                    shape: vec![2, 48, width],
                    data: bytes(seed, 2 * 48 * width * item).into(),
                });
            }
        }
        payload
    };
    let finished = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (gate, finished) = (gate.clone(), finished.clone());
            let payloads: Vec<_> = (0..ROUNDS).map(|round| payload(thread * ROUNDS + round)).collect();
            std::thread::spawn(move || {
                for sent in payloads {
                    let given = sent.clone();
                    let back = gate.run(move |mx| round_trip(mx, &given, 48)).unwrap();
                    assert!(back == sent, "a block came back changed");
                }
                finished.fetch_add(1, Ordering::SeqCst);
            })
        })
        .collect();
    let hammered = decode(&mut || {
        for job in inbox.try_iter() {
            owner.execute(job);
        }
        finished.load(Ordering::SeqCst) < THREADS && threads.iter().any(|thread| !thread.is_finished())
    });
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(hammered, alone);
}
