//! Rows that move, grow, leave and travel through blocks, against a plain list of bytes.

use std::ops::Range;
use std::rc::Rc;

use mlx_rs::Array;
use prefixd_cache::{Part, Payload, TensorBytes};
use prefixd_engine::{EngineError, Gate, GateError, ImportBlock, Owner};
use proptest::prelude::*;

use super::{BatchKv, KvSetting, KvSpec, Vectors};
use crate::mlx::array::{bytes, dims, from_f32, host_contiguous, item_bytes};
use crate::mlx::gate::Mlx;
use crate::mlx::mask::Mask;
use crate::mlx::step::RowStep;

const BLOCK: usize = 16;
const HEADS: Vectors = Vectors { heads: 2, width: 64 };
/// As latent attention stores: one rotated key and one longer latent for all heads.
const LATENT: [Vectors; 2] = [Vectors { heads: 1, width: 64 }, Vectors { heads: 1, width: 192 }];

fn owner() -> Owner {
    Gate::new(|_| Err(GateError::Closed)).enter().unwrap()
}

fn spec(setting: &str) -> Rc<KvSpec> {
    spec_of(setting, [HEADS; 2])
}

fn spec_of(setting: &str, sides: [Vectors; 2]) -> Rc<KvSpec> {
    let masks = vec![Mask::Window { tokens: 40 }, Mask::Causal];
    Rc::new(KvSpec::with_sides(setting.parse::<KvSetting>().unwrap(), sides, masks, BLOCK))
}

/// Tensor bytes of one token: layer by layer, plane by plane, head by head.
type Token = Vec<u8>;

/// Appends `count` tokens to a row and returns their encoded bytes.
fn append(mx: &Mlx, batch: &mut BatchKv, row: usize, count: usize, seed: u64) -> Vec<Token> {
    let spec = batch.spec().clone();
    let mut tokens = vec![Token::new(); count];
    let start = batch.rows()[row].length;
    for layer in 0..spec.masks.len() {
        let mut encoded = Vec::new();
        let sides = [(spec.setting.keys, spec.keys), (spec.setting.values, spec.values)];
        for (side, (format, Vectors { heads, width })) in sides.into_iter().enumerate() {
            let salt = seed.wrapping_mul(31).wrapping_add((layer * 2 + side) as u64);
            let value = |i: usize| ((i as u64 * 2_654_435_761 + salt * 40_503) % 8191) as f32 / 1000.0 - 4.0;
            let vectors: Vec<f32> = (0..heads * count * width).map(value).collect();
            let array = from_f32(mx, &vectors, &dims([heads, count, width])).unwrap();
            encoded.extend(format.encode(mx, &array).unwrap());
        }
        for (array, plane) in encoded.iter().zip(spec.planes()) {
            let array = host_contiguous(mx, array).unwrap();
            let bytes = bytes(mx, &array).unwrap();
            let vector = plane.width * item_bytes(plane.dtype);
            for head in 0..plane.heads {
                for (t, token) in tokens.iter_mut().enumerate() {
                    token.extend(&bytes[(head * count + t) * vector..][..vector]);
                }
            }
        }
        let state = &mut batch.rows_mut()[row].layers[layer];
        state.reserve(mx, &spec, start, count).unwrap();
        // Both ways to write: the device's and the host's.
        if seed.is_multiple_of(2) {
            state.write(mx, start, count, &encoded).unwrap();
        } else {
            // A step's planes go token by token; this row's share of them begins at `first`.
            let first = seed as usize % 5;
            let by_token = |plane: &Array| {
                let plane = plane.transpose_axes(&[1, 0, 2]).unwrap();
                let others =
                    mlx_rs::ops::zeros_dtype(&[first as i32, plane.dim(1), plane.dim(2)], plane.dtype());
                let step = mlx_rs::ops::concatenate(&[others.unwrap(), plane], 0).unwrap();
                host_contiguous(mx, &step).unwrap()
            };
            let encoded: Vec<_> = encoded.iter().map(by_token).collect();
            let at = RowStep { position: start, tokens: count, first };
            state.write_host(mx, &spec, at, &encoded).unwrap();
        }
    }
    batch.rows_mut()[row].length += count;
    batch.settle(mx).unwrap();
    tokens
}

/// A payload's bytes, token by token, in the order of [`append`].
fn by_token(payload: &Payload, count: usize) -> Vec<Token> {
    let mut tokens = vec![Token::new(); count];
    for tensor in &payload.tensors {
        let heads = tensor.shape[0];
        let vector = tensor.data.len() / heads / count;
        for head in 0..heads {
            for (t, token) in tokens.iter_mut().enumerate() {
                token.extend(&tensor.data[(head * count + t) * vector..][..vector]);
            }
        }
    }
    tokens
}

/// The last two blocks' worth of a row: what every layer holds.
fn held(length: usize) -> Range<usize> {
    length.saturating_sub(2 * BLOCK)..length
}

fn check(mx: &Mlx, batch: &BatchKv, model: &[Vec<Token>]) {
    assert_eq!(batch.lengths().collect::<Vec<_>>(), model.iter().map(Vec::len).collect::<Vec<_>>());
    for (row, tokens) in model.iter().enumerate() {
        let range = held(tokens.len());
        if !range.is_empty() {
            let payload = batch.export(mx, row, range.clone()).unwrap();
            assert!(by_token(&payload, range.len()) == tokens[range], "row {row}");
        }
    }
}

fn settings() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["16", "8", "k8v4", "4", "32"])
}

fn sides() -> impl Strategy<Value = [Vectors; 2]> {
    prop::sample::select(vec![[HEADS; 2], LATENT])
}

#[derive(Clone, Debug)]
enum Operation {
    Append { row: usize, count: usize },
    Filter { order: Vec<usize> },
    Extend { count: usize },
    Merge,
    Extract { row: usize },
    Trim { row: usize, back: usize },
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = prop_oneof![
        4 => (0..4_usize, 1..90_usize).prop_map(|(row, count)| Operation::Append { row, count }),
        2 => prop::collection::vec(0..4_usize, 0..4).prop_map(|order| Operation::Filter { order }),
        2 => (1..60_usize).prop_map(|count| Operation::Extend { count }),
        1 => Just(Operation::Merge),
        2 => (0..4_usize).prop_map(|row| Operation::Extract { row }),
        1 => (0..4_usize, 1..8_usize).prop_map(|(row, back)| Operation::Trim { row, back }),
    ];
    prop::collection::vec(one, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_behaves_like_a_list_of_rows(
        setting in settings(),
        sides in sides(),
        operations in operations(),
    ) {
        let owner = owner();
        let (mx, spec) = (owner.thread(), spec_of(setting, sides));
        let mut batch = BatchKv::new(spec.clone());
        let mut model: Vec<Vec<Token>> = Vec::new();
        for (seed, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Append { row, count } if row < model.len() => {
                    model[row].extend(append(mx, &mut batch, row, count, seed as u64));
                }
                Operation::Filter { order } => {
                    let mut keep: Vec<usize> = order.into_iter().filter(|row| *row < model.len()).collect();
                    let mut seen = Vec::new();
                    keep.retain(|row| !seen.contains(row) && { seen.push(*row); true });
                    batch.filter(mx, &keep).unwrap();
                    model = keep.iter().map(|row| model[*row].clone()).collect();
                }
                Operation::Extend { count } => {
                    let mut row = BatchKv::start(spec.clone());
                    model.push(append(mx, &mut row, 0, count, seed as u64));
                    batch.extend(mx, row).unwrap();
                }
                Operation::Merge => {
                    let other = BatchKv::start(spec.clone());
                    batch = BatchKv::merge(mx, spec.clone(), [other, batch]).unwrap();
                    model.insert(0, Vec::new());
                }
                Operation::Extract { row } if row < model.len() => {
                    let mut copy = batch.extract(mx, row).unwrap();
                    check(mx, &copy, &model[row..=row]);
                    // What happens to the copy does not happen to the row.
                    append(mx, &mut copy, 0, 3, 999);
                }
                Operation::Trim { row, back } if row < model.len() => {
                    let length = model[row].len().saturating_sub(back);
                    batch.trim(mx, row, length).unwrap();
                    model[row].truncate(length);
                }
                _ => {}
            }
            check(mx, &batch, &model);
        }
    }

    #[test]
    fn blocks_come_back_byte_for_byte(
        setting in settings(),
        sides in sides(),
        length in 1..150_usize,
        unused in 0..BLOCK,
    ) {
        let owner = owner();
        let (mx, spec) = (owner.thread(), spec_of(setting, sides));
        let mut row = BatchKv::start(spec.clone());
        let (mut tokens, mut payloads) = (Vec::new(), Vec::new());
        for start in (0..length).step_by(BLOCK) {
            let count = BLOCK.min(length - start);
            tokens.extend(append(mx, &mut row, 0, count, start as u64));
            payloads.push(row.export(mx, 0, start..start + count).unwrap());
        }
        let last = payloads.len() - 1;
        let blocks = chain(&payloads, length, unused.min((length - 1) % BLOCK));
        let length = last * BLOCK + blocks[last].used_tokens;
        let imported = BatchKv::import(mx, &spec, &blocks).unwrap();
        let range = held(length);
        let again = imported.export(mx, 0, range.clone()).unwrap();
        prop_assert!(by_token(&again, range.len()) == tokens[range]);
    }
}

fn chain(payloads: &[Payload], length: usize, unused: usize) -> Vec<ImportBlock<'_>> {
    let last = payloads.len() - 1;
    let block = |(i, payload)| {
        let block_tokens = BLOCK.min(length - i * BLOCK);
        ImportBlock { payload, block_tokens, used_tokens: block_tokens - if i == last { unused } else { 0 } }
    };
    payloads.iter().enumerate().map(block).collect()
}

fn five_blocks(mx: &Mlx, spec: &Rc<KvSpec>) -> Vec<Payload> {
    let mut row = BatchKv::start(spec.clone());
    let block = |i: usize| {
        append(mx, &mut row, 0, BLOCK, i as u64);
        row.export(mx, 0, i * BLOCK..(i + 1) * BLOCK).unwrap()
    };
    (0..5).map(block).collect()
}

fn without(payload: &Payload, keep: impl Fn(&TensorBytes) -> bool) -> Payload {
    Payload { tensors: payload.tensors.iter().filter(|tensor| keep(tensor)).cloned().collect() }
}

#[test]
fn window_parts_are_needed_only_where_the_window_reaches() {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec("k8v4"));
    let full = five_blocks(mx, &spec);
    // 80 tokens, window 40: positions 41.. are seen, so blocks 2, 3 and 4 count.
    let strip = |from: usize| -> Vec<Payload> {
        let stripped = |(i, payload)| {
            if i < from { without(payload, |t| t.part == Part::Full) } else { payload.clone() }
        };
        full.iter().enumerate().map(stripped).collect()
    };
    let payloads = strip(2);
    let row = BatchKv::import(mx, &spec, &chain(&payloads, 80, 0)).unwrap();
    assert_eq!(row.lengths().collect::<Vec<_>>(), [80]);
    let payloads = strip(3);
    let error = BatchKv::import(mx, &spec, &chain(&payloads, 80, 0)).unwrap_err();
    assert!(
        matches!(EngineError::from(error.clone()), EngineError::Block(text) if text.contains("block 2") && text.contains("000.k")),
        "{error}"
    );
}

#[test]
fn a_block_of_another_shape_is_refused_and_named() {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec("k8v4"));
    let good = five_blocks(mx, &spec);
    let refused = |damage: &dyn Fn(&mut Payload)| {
        let mut payloads = good.clone();
        damage(&mut payloads[4]);
        let error = BatchKv::import(mx, &spec, &chain(&payloads, 80, 0)).unwrap_err();
        assert!(matches!(EngineError::from(error.clone()), EngineError::Block(_)), "{error}");
        error.to_string()
    };
    assert!(
        refused(&|p| {
            p.tensors.remove(6);
        })
        .contains("001.k.packed")
    );
    assert!(
        refused(&|p| {
            p.tensors[0].data.pop();
        })
        .contains("000.k.packed")
    );
    assert!(refused(&|p| p.tensors[0].shape.swap(0, 1)).contains("000.k.packed"));
    assert!(refused(&|p| p.tensors[1].dtype = prefixd_cache::Dtype::U32).contains("000.k.scales"));
    // Codes of another setting have other names or widths.
    let other = five_blocks(mx, &self::spec("8"));
    let error = BatchKv::import(mx, &spec, &chain(&other, 80, 0)).unwrap_err().to_string();
    assert!(error.contains("001.v.packed") || error.contains("000.v.packed"), "{error}");
    let inner = ImportBlock { used_tokens: 3, ..chain(&good, 80, 0)[0] };
    let error = BatchKv::import(mx, &spec, &[inner, chain(&good, 80, 0)[1]]).unwrap_err().to_string();
    assert!(error.contains("3 of 16"), "{error}");
}

#[test]
fn wrong_rows_and_ranges_are_errors_and_change_nothing() {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec("16"));
    let mut batch = BatchKv::start(spec.clone());
    append(mx, &mut batch, 0, 600, 1);
    assert!(batch.filter(mx, &[0, 0]).is_err());
    assert!(batch.filter(mx, &[1]).is_err());
    assert_eq!(batch.len(), 1, "a refused filter keeps the rows");
    assert!(batch.export(mx, 0, 590..601).is_err());
    assert!(batch.export(mx, 0, 5..5).is_err());
    assert!(batch.export(mx, 1, 0..1).is_err());
    append(mx, &mut batch, 0, 600, 2);
    let error = batch.export(mx, 0, 0..16).unwrap_err().to_string();
    assert!(error.contains("layer 0"), "a window layer lets go of what is far behind: {error}");
    assert!(batch.trim(mx, 0, 2000).is_err());
    assert!(batch.trim(mx, 0, 100).is_err(), "the window's keys are gone");
    assert!(batch.extend(mx, BatchKv::start(self::spec("8"))).is_err());
}

#[test]
fn appending_writes_into_the_same_memory() {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec("k8v4"));
    let mut batch = BatchKv::start(spec.clone());
    append(mx, &mut batch, 0, 10, 1);
    let addresses = |batch: &BatchKv| -> Vec<usize> {
        let planes = batch.rows()[0].layers.iter().flat_map(super::LayerKv::planes);
        let address = |plane: &Array| match plane.dtype() {
            mlx_rs::Dtype::Uint32 => plane.try_as_slice::<u32>().unwrap().as_ptr() as usize,
            _ => plane.try_as_slice::<half::f16>().unwrap().as_ptr() as usize,
        };
        planes.map(address).collect()
    };
    let before = addresses(&batch);
    for seed in 0..20 {
        append(mx, &mut batch, 0, 1, seed);
    }
    assert_eq!(addresses(&batch), before);
}
