//! Threads and streams: arrays belong to the thread whose stream made them. A model built on one thread and used on
//! another failed at its first private array (the scaled frequencies of Llama 3), and a device that is not there took the
//! process with it.
//!
//! Protections: models are built, used and dropped on the gate's thread; after loading every array is there, private
//! ones included. Shown by leaving out `settle(mx, arrays)?` in `MlxEngine::load` for what
//! `every_array_is_materialized_after_loading` (`tests/mlx_engine.rs`) walks; that no array can leave its thread is
//! shown by the examples in `mlx/gate.rs` that must not compile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mlx_rs::{Array, Device, DeviceType, Stream as MlxStream};
use prefixd::mlx::LoadOptions;
use prefixd::prompt::ModelText;
use prefixd::scheduler::SchedulerOptions;
use prefixd_engine::Gate;

use super::support::{Answer, alone, chat, clerk, collect, handbook, request, root, start, stop};

#[test]
fn models_on_several_threads_at_once_answer_as_one_alone() {
    let text = ModelText::open(&clerk()).unwrap();
    let asked = request(chat(&text, &handbook(3, 200), "Who is in room 0?"), 40, &text.stop_tokens);
    let reference = alone();
    let expected = collect(reference.handle().submit(asked.clone()).unwrap());
    stop(reference);
    // Three gates, each with a thread, a default stream and a model of its own.
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let work = |asked| {
            move || {
                let scheduler = alone();
                let answer = collect(scheduler.handle().submit(asked).unwrap());
                stop(scheduler);
                answer
            }
        };
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(work(asked.clone()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");
}

#[test]
fn private_arrays_serve_while_other_threads_compute_through_the_gate() {
    // Llama 3 with scaled frequencies: the arrays that nobody saw.
    let dir = root().join("tests/golden/llama3");
    let load = LoadOptions { kv: "16".parse().unwrap(), ..LoadOptions::default() };
    let scheduler = start(&dir, load, SchedulerOptions::default(), |_| None);
    let never: Arc<[u32]> = Arc::from([]);
    let asked = request((0..120).map(|at| at * 2).collect(), 150, &never);
    let expected = collect(scheduler.handle().submit(asked.clone()).unwrap());
    let over = Arc::new(AtomicBool::new(false));
    let hammers: Vec<_> = (0..8_u16)
        .map(|i| {
            let (gate, over) = (scheduler.handle().gate().clone(), over.clone());
            std::thread::spawn(move || {
                let mut rounds = 0;
                while !over.load(Ordering::SeqCst) || rounds == 0 {
                    let sum = gate.run(move |_| {
                        let lazy = Array::from_slice(&[f32::from(i), 2.0], &[2]).add(Array::from_f32(1.0));
                        lazy.unwrap().sum(None).unwrap().try_item_exact::<f32>().unwrap()
                    });
                    assert_eq!(sum.unwrap().to_bits(), (f32::from(i) + 4.0).to_bits());
                    rounds += 1;
                }
            })
        })
        .collect();
    let found = collect(scheduler.handle().submit(asked).unwrap());
    over.store(true, Ordering::SeqCst);
    for hammer in hammers {
        hammer.join().unwrap();
    }
    assert_eq!(found, expected);
    stop(scheduler);
}

#[test]
fn a_device_that_is_not_there_is_an_error_and_the_gate_goes_on() {
    let gate = Gate::spawn().unwrap();
    let error = gate.run(|_| {
        let nowhere = Device::new(DeviceType::Gpu, 77);
        MlxStream::try_default_on_device(&nowhere).err().map(|error| error.what().to_owned())
    });
    assert!(error.unwrap().is_some_and(|error| !error.is_empty()));
    let sum = gate
        .run(|_| Array::from_f32(2.0).add(Array::from_f32(3.0)).unwrap().try_item_exact::<f32>().unwrap());
    assert_eq!(sum.unwrap().to_bits(), 5.0_f32.to_bits());
}
