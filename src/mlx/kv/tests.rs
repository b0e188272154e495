//! Rows that move, grow, leave and travel through blocks, against a plain list of bytes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use mlx_rs::Array;
use prefixd_cache::{Part, Payload, TensorBytes};
use prefixd_engine::{EngineError, Gate, GateError, ImportBlock, Owner};
use proptest::prelude::*;

use super::spec::Stored;
use super::{
    BatchKv, DeviceMemory, DevicePool, DeviceState, KvSetting, KvSpec, RowKv, StateTensor, StatesSpec,
    Vectors,
};
use crate::mlx::array::{Result, bytes, dims, from_f32, host_contiguous};
use crate::mlx::backend::Kernels;
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

/// Where rows keep their tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Pages of the host.
    Host,
    /// Pages of a device.
    Pool,
    /// Arrays of a device.
    Arrays,
}

const PLACES: [Place; 3] = [Place::Host, Place::Pool, Place::Arrays];

impl Place {
    fn kernels(self) -> Kernels {
        if self == Self::Host { Kernels::Host } else { Kernels::Device }
    }

    /// The same specification with rows that lie here.
    fn put(self, spec: KvSpec) -> KvSpec {
        if self != Self::Pool {
            return spec;
        }
        let pool = DevicePool::new(Rc::new(Ram::default()), spec.memory.clone(), 1 << 30);
        spec.with_pool(pool)
    }
}

/// A device's memory that is the host's: an address is one of the host's.
#[derive(Default)]
struct Ram {
    allocated: RefCell<HashMap<u64, Box<[u64]>>>,
    /// Copies to the device, and on it.
    uploads: RefCell<[usize; 2]>,
}

impl DeviceMemory for Ram {
    fn allocate(&self, bytes: usize) -> Result<u64> {
        // Not zeros: the host reads nothing that was not written.
        let memory = vec![0xa5a5_a5a5_a5a5_a5a5; bytes.div_ceil(8)].into_boxed_slice();
        let address = memory.as_ptr() as u64;
        self.allocated.borrow_mut().insert(address, memory);
        Ok(address)
    }

    fn free(&self, address: u64) {
        self.allocated.borrow_mut().remove(&address).unwrap();
    }

    fn upload(&self, address: u64, source: &[u8]) -> Result<()> {
        self.uploads.borrow_mut()[0] += 1;
        // SAFETY: the pool stays within what it has allocated.
        unsafe { std::ptr::copy(source.as_ptr(), address as *mut u8, source.len()) };
        Ok(())
    }

    fn download(&self, address: u64, into: &mut [u8]) -> Result<()> {
        // SAFETY: as above.
        unsafe { std::ptr::copy(address as *const u8, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn clear(&self, address: u64, bytes: usize) -> Result<()> {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, bytes) };
        Ok(())
    }

    fn duplicate(&self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.uploads.borrow_mut()[1] += 1;
        // SAFETY: as above.
        unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
        Ok(())
    }
}

fn spec(place: Place, setting: &str) -> Rc<KvSpec> {
    spec_of(place, setting, [HEADS; 2])
}

fn spec_of(place: Place, setting: &str, sides: [Vectors; 2]) -> Rc<KvSpec> {
    // Window layers and others need not keep vectors of one shape.
    let layers = [(Mask::Window { tokens: 40 }, [HEADS; 2]), (Mask::Causal, sides)];
    let setting = setting.parse::<KvSetting>().unwrap();
    Rc::new(place.put(KvSpec::with_layers(place.kernels(), setting, layers, BLOCK)))
}

/// A step of one token, in which recurrent layers of two come to hold `value`; it is whole with both.
fn step_states(mx: &Mlx, batch: &mut BatchKv, row: usize, layers: usize, value: f32) {
    let spec = batch.spec().clone();
    let state = &mut batch.rows_mut()[row];
    state.reserve(mx, &spec, 1).unwrap();
    for layer in 0..layers {
        let array = || DeviceState::new(&spec, vec![from_f32(mx, &[value; 3], &[1, 3]).unwrap()]);
        match state {
            RowKv::Host(row) => {
                let mut state = spec.memory.buffer(12);
                state.copy_from_slice(&[value.to_le_bytes(); 3].concat());
                row.states.put(layer, state.share());
            }
            RowKv::Pool(row) => {
                let [_, after] = row.states.both(layer).unwrap();
                let device = spec.pool.as_ref().unwrap().device();
                device.upload(after.address(), &[value.to_le_bytes(); 3].concat()).unwrap();
            }
            RowKv::Device(row) => row.states.put(layer, array()),
        }
    }
    if layers == 2 {
        batch.rows_mut()[row].advance(&spec, 1);
    }
}

#[test]
fn latents_take_a_small_part_of_the_keys_and_values_they_stand_for() {
    // DeepSeek-V2-Lite: 27 layers, 16 heads with keys of 192 and values of 128.
    let sides = [Vectors { heads: 1, width: 64 }, Vectors { heads: 1, width: 512 }];
    let layers = || std::iter::repeat_n((Mask::Causal, sides), 27);
    let bytes = |setting: &str| {
        let spec = KvSpec::of_latents(Kernels::Host, setting.parse().unwrap(), layers(), BLOCK);
        spec.token_bytes(Part::Full)
    };
    assert_eq!(27 * 16 * (192 + 128) * 2, 276_480);
    assert_eq!(["16", "k8v4"].map(bytes), [27 * 576 * 2, 27 * (544 + 128)]);
    assert!(bytes("16") * 8 < 276_480 && bytes("k8v4") * 15 < 276_480);
}

#[test]
fn states_are_a_row_s_own_and_a_step_that_fails_leaves_them_as_they_were() {
    let owner = owner();
    let mx = owner.thread();
    for place in PLACES {
        let tensor = StateTensor { name: "tail", shape: vec![1, 3], dtype: mlx_rs::Dtype::Float32 };
        let states = StatesSpec { layers: vec![0, 3], tensors: vec![tensor] };
        let masks = vec![Mask::Causal; 2];
        let spec = KvSpec::new(place.kernels(), KvSetting::DEFAULT, 2, 64, masks, BLOCK);
        let mut batch = BatchKv::start(Rc::new(place.put(spec.with_states(Some(states)))));
        let value = |batch: &BatchKv, row| {
            let snapshot = batch.snapshot(mx, row).unwrap();
            let names: Vec<_> = snapshot.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
            assert_eq!(names, ["000.tail", "003.tail"]);
            let floats =
                snapshot.tensors[1].data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            floats.collect::<Vec<_>>()
        };
        step_states(mx, &mut batch, 0, 2, 1.0);
        let copy = batch.extract(mx, 0).unwrap();
        batch.extend(mx, copy).unwrap();
        step_states(mx, &mut batch, 1, 2, 2.0);
        step_states(mx, &mut batch, 0, 1, 3.0);
        assert_eq!((value(&batch, 0), value(&batch, 1)), (vec![1.0; 3], vec![2.0; 3]), "{place:?}");
        step_states(mx, &mut batch, 0, 2, 4.0);
        batch.filter(mx, &[1, 0]).unwrap();
        assert_eq!((value(&batch, 0), value(&batch, 1)), (vec![2.0; 3], vec![4.0; 3]), "{place:?}");
        let memory = batch.spec().memory.clone();
        drop(batch);
        assert_eq!(memory.held_bytes(), 0, "{place:?}");
    }
}

/// Tensor bytes of one token: layer by layer, plane by plane, head by head.
type Token = Vec<u8>;

/// Appends `count` tokens to a row and returns their encoded bytes.
fn append(mx: &Mlx, batch: &mut BatchKv, row: usize, count: usize, seed: u64) -> Vec<Token> {
    let spec = batch.spec().clone();
    let mut tokens = vec![Token::new(); count];
    let state = &mut batch.rows_mut()[row];
    let position = state.length();
    state.reserve(mx, &spec, count).unwrap();
    for layer in 0..spec.masks.len() {
        let mut encoded = Vec::new();
        let [keys, values] = spec.sides_of(layer);
        let sides = [(spec.setting.keys, keys), (spec.setting.values, values)];
        for (side, (format, Vectors { heads, width })) in sides.into_iter().enumerate() {
            let salt = seed.wrapping_mul(31).wrapping_add((layer * 2 + side) as u64);
            let value = |i: usize| ((i as u64 * 2_654_435_761 + salt * 40_503) % 8191) as f32 / 1000.0 - 4.0;
            let vectors: Vec<f32> = (0..heads * count * width).map(value).collect();
            let array = from_f32(mx, &vectors, &dims([heads, count, width])).unwrap();
            encoded.extend(format.encode(mx, &array).unwrap());
        }
        for (array, Stored { plane, .. }) in encoded.iter().zip(spec.tensors_of(layer)) {
            let array = host_contiguous(mx, array).unwrap();
            let bytes = bytes(mx, &array).unwrap();
            let vector = plane.vector_bytes();
            for head in 0..plane.heads {
                for (t, token) in tokens.iter_mut().enumerate() {
                    token.extend(&bytes[(head * count + t) * vector..][..vector]);
                }
            }
        }
        match state {
            RowKv::Device(row) => row.layers[layer].write(mx, position, count, &encoded).unwrap(),
            RowKv::Pool(row) => {
                // As `store.cu` does: every vector to its slot of its page.
                for (array, Stored { plane, before, part, .. }) in encoded.iter().zip(spec.tensors_of(layer))
                {
                    let (array, table) = (host_contiguous(mx, array).unwrap(), row.table(*part));
                    let (bytes, vector) = (bytes(mx, &array).unwrap(), plane.vector_bytes());
                    for (i, source) in bytes.chunks_exact(vector).enumerate() {
                        let (head, at) = (i / count, position + i % count);
                        let page = table.pages().nth(at / BLOCK - table.first()).unwrap().address();
                        let slot = before * BLOCK + (head * BLOCK + at % BLOCK) * vector;
                        // SAFETY: the page is the row's own, and as long as its tensors.
                        unsafe { std::ptr::copy(source.as_ptr(), (page as usize + slot) as *mut u8, vector) };
                    }
                }
            }
            RowKv::Host(row) => {
                // A step's planes go token by token; this row's share of them begins at `first`.
                let first = seed as usize % 5;
                let by_token = |plane: &Array| {
                    let plane = plane.transpose_axes(&[1, 0, 2]).unwrap();
                    let others =
                        mlx_rs::ops::zeros_dtype(&[first as i32, plane.dim(1), plane.dim(2)], plane.dtype());
                    let step = mlx_rs::ops::concatenate(&[others.unwrap(), plane], 0).unwrap();
                    bytes(mx, &host_contiguous(mx, &step).unwrap()).unwrap().to_vec()
                };
                let encoded: Vec<_> = encoded.iter().map(by_token).collect();
                row.write(&spec, layer, RowStep { position, tokens: count, first }, &encoded).unwrap();
            }
        }
    }
    state.advance(&spec, count);
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

/// A row of the model: its tokens, the whole blocks of them that were exported as they were complete, and how many tokens
/// it may be told to forget: those of its last append.
#[derive(Clone, Debug, Default)]
struct ModelRow {
    tokens: Vec<Token>,
    blocks: Vec<Payload>,
    forgettable: usize,
}

/// The model: rows, and every block that anybody still holds, with the bytes that it had at first.
#[derive(Debug, Default)]
struct Model {
    rows: Vec<ModelRow>,
    held: Vec<(Payload, Vec<Token>)>,
}

impl Model {
    /// As the scheduler does after a step: exports what is complete now.
    fn keep_blocks(&mut self, mx: &Mlx, batch: &BatchKv, row: usize) {
        let state = &mut self.rows[row];
        while (state.blocks.len() + 1) * BLOCK <= state.tokens.len() {
            let start = state.blocks.len() * BLOCK;
            let payload = batch.export(mx, row, start..start + BLOCK).unwrap();
            self.held.push((payload.clone(), state.tokens[start..start + BLOCK].to_vec()));
            state.blocks.push(payload);
        }
    }

    fn appended(&mut self, mx: &Mlx, batch: &BatchKv, row: usize, tokens: Vec<Token>) {
        let state = &mut self.rows[row];
        state.forgettable = tokens.len();
        state.tokens.extend(tokens);
        self.keep_blocks(mx, batch, row);
    }

    fn check(&self, mx: &Mlx, batch: &BatchKv) {
        let lengths: Vec<_> = self.rows.iter().map(|row| row.tokens.len()).collect();
        assert_eq!(batch.lengths().collect::<Vec<_>>(), lengths);
        for (number, row) in self.rows.iter().enumerate() {
            let range = held(row.tokens.len());
            if !range.is_empty() {
                let payload = batch.export(mx, number, range.clone()).unwrap();
                assert!(by_token(&payload, range.len()) == row.tokens[range], "row {number}");
            }
            // All of it, as long as the window layers still hold all of it.
            if let Ok(payload) = batch.export(mx, number, 0..row.tokens.len()) {
                assert!(by_token(&payload, row.tokens.len()) == row.tokens, "row {number}");
            }
        }
        for (payload, tokens) in &self.held {
            assert!(by_token(payload, tokens.len()) == *tokens, "a block changed under its holder");
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
    Append {
        row: usize,
        count: usize,
    },
    Filter {
        order: Vec<usize>,
    },
    Extend {
        count: usize,
    },
    Merge,
    Extract {
        row: usize,
        count: usize,
    },
    Trim {
        row: usize,
        back: usize,
    },
    /// A new row that begins as the first `tokens` of another do; `piece` blocks come at a time.
    Share {
        row: usize,
        tokens: usize,
        piece: usize,
    },
    /// Nobody holds the exported blocks any more.
    Evict,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let one = prop_oneof![
        4 => (0..4_usize, 1..90_usize).prop_map(|(row, count)| Operation::Append { row, count }),
        2 => (0..4_usize, 1..4_usize).prop_map(|(row, count)| Operation::Append { row, count }),
        2 => prop::collection::vec(0..4_usize, 0..4).prop_map(|order| Operation::Filter { order }),
        2 => (1..60_usize).prop_map(|count| Operation::Extend { count }),
        1 => Just(Operation::Merge),
        2 => (0..4_usize, 1..40_usize).prop_map(|(row, count)| Operation::Extract { row, count }),
        2 => (0..4_usize, 1..50_usize).prop_map(|(row, back)| Operation::Trim { row, back }),
        3 => (0..4_usize, 1..200_usize, 1..9_usize)
            .prop_map(|(row, tokens, piece)| Operation::Share { row, tokens, piece }),
        1 => Just(Operation::Evict),
    ];
    prop::collection::vec(one, 1..16)
}

/// A row that holds the first `tokens` tokens of another, out of its blocks and, behind those, a tail block.
fn share(mx: &Mlx, batch: &BatchKv, model: &Model, row: usize, tokens: usize, piece: usize) -> BatchKv {
    let (spec, from) = (batch.spec(), &model.rows[row]);
    let mut payloads = from.blocks.clone();
    payloads.truncate(tokens.div_ceil(BLOCK));
    if payloads.len() * BLOCK < tokens {
        payloads.push(batch.export(mx, row, payloads.len() * BLOCK..tokens).unwrap());
    }
    let blocks: Vec<_> = (payloads.iter().enumerate())
        .map(|(i, payload)| {
            let used_tokens = BLOCK.min(tokens - i * BLOCK);
            let block_tokens = if i < from.blocks.len() { BLOCK } else { used_tokens };
            ImportBlock { payload, block_tokens, used_tokens }
        })
        .collect();
    let mut shared = BatchKv::start(spec.clone());
    for piece in blocks.chunks(piece) {
        shared.append(mx, 0, piece, tokens).unwrap();
    }
    if spec.kernels == Kernels::Host && tokens >= BLOCK {
        // No bytes were moved: the row holds the pages that the blocks hold.
        let last = tokens / BLOCK - 1;
        let again = shared.export(mx, 0, last * BLOCK..(last + 1) * BLOCK).unwrap();
        let pairs = again.tensors.iter().zip(&payloads[last].tensors);
        assert!(pairs.into_iter().all(|(a, b)| a.data.shares_with(&b.data)));
    }
    shared
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_behaves_like_a_list_of_rows(
        place in prop::sample::select(PLACES.to_vec()),
        setting in settings(),
        sides in sides(),
        operations in operations(),
    ) {
        let owner = owner();
        let (mx, spec) = (owner.thread(), spec_of(place, setting, sides));
        let mut batch = BatchKv::new(spec.clone());
        let mut model = Model::default();
        for (seed, operation) in operations.into_iter().enumerate() {
            let seed = seed as u64;
            match operation {
                Operation::Append { row, count } if row < model.rows.len() => {
                    let tokens = append(mx, &mut batch, row, count, seed);
                    model.appended(mx, &batch, row, tokens);
                }
                Operation::Filter { order } => {
                    let mut keep: Vec<usize> =
                        order.into_iter().filter(|row| *row < model.rows.len()).collect();
                    let mut seen = Vec::new();
                    keep.retain(|row| !seen.contains(row) && { seen.push(*row); true });
                    batch.filter(mx, &keep).unwrap();
                    model.rows = keep.iter().map(|row| model.rows[*row].clone()).collect();
                }
                Operation::Extend { count } => {
                    let mut row = BatchKv::start(spec.clone());
                    let tokens = append(mx, &mut row, 0, count, seed);
                    batch.extend(mx, row).unwrap();
                    model.rows.push(ModelRow::default());
                    model.appended(mx, &batch, model.rows.len() - 1, tokens);
                }
                Operation::Merge => {
                    let other = BatchKv::start(spec.clone());
                    batch = BatchKv::merge(mx, spec.clone(), [other, batch]).unwrap();
                    model.rows.insert(0, ModelRow::default());
                }
                Operation::Extract { row, count } if row < model.rows.len() => {
                    let mut copy = batch.extract(mx, row).unwrap();
                    // What happens to the copy does not happen to the row.
                    append(mx, &mut copy, 0, count, 999);
                    let mut copy = batch.extract(mx, row).unwrap();
                    let mut own = Model { rows: vec![model.rows[row].clone()], held: Vec::new() };
                    own.check(mx, &copy);
                    let tokens = append(mx, &mut copy, 0, count, 998);
                    own.appended(mx, &copy, 0, tokens);
                    own.check(mx, &copy);
                }
                Operation::Trim { row, back } if row < model.rows.len() => {
                    let state = &mut model.rows[row];
                    let back = back.min(state.forgettable);
                    let length = state.tokens.len() - back;
                    batch.trim(mx, row, length).unwrap();
                    state.tokens.truncate(length);
                    state.blocks.truncate(length / BLOCK);
                    state.forgettable -= back;
                }
                Operation::Share { row, tokens, piece } if row < model.rows.len() => {
                    let from = &model.rows[row];
                    let tokens = tokens.min(from.tokens.len());
                    if tokens > 0 {
                        let shared = share(mx, &batch, &model, row, tokens, piece);
                        let mut blocks = from.blocks.clone();
                        blocks.truncate(tokens / BLOCK);
                        let tokens = from.tokens[..tokens].to_vec();
                        batch.extend(mx, shared).unwrap();
                        model.rows.push(ModelRow { tokens, blocks, forgettable: 0 });
                    }
                }
                Operation::Evict => model.held.clear(),
                _ => {}
            }
            model.check(mx, &batch);
        }
        drop((batch, model));
        if let Some(pool) = &spec.pool {
            pool.forget_blocks();
        }
        prop_assert_eq!(spec.memory.held_bytes(), 0);
    }

    #[test]
    fn blocks_come_back_byte_for_byte(
        place in prop::sample::select(PLACES.to_vec()),
        setting in settings(),
        sides in sides(),
        length in 1..150_usize,
        unused in 0..BLOCK,
    ) {
        let owner = owner();
        let (mx, spec) = (owner.thread(), spec_of(place, setting, sides));
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
    PLACES.into_iter().for_each(window_parts_where_the_window_reaches);
}

fn window_parts_where_the_window_reaches(place: Place) {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec(place, "k8v4"));
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
    PLACES.into_iter().for_each(another_shape_is_refused_and_named);
}

fn another_shape_is_refused_and_named(place: Place) {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec(place, "k8v4"));
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
            let data = &mut p.tensors[0].data;
            *data = data.slice(0..data.len() - 1);
        })
        .contains("000.k.packed")
    );
    assert!(refused(&|p| p.tensors[0].shape.swap(0, 1)).contains("000.k.packed"));
    assert!(refused(&|p| p.tensors[1].dtype = prefixd_cache::Dtype::U32).contains("000.k.scales"));
    // Codes of another setting have other names or widths.
    let other = five_blocks(mx, &self::spec(place, "8"));
    let error = BatchKv::import(mx, &spec, &chain(&other, 80, 0)).unwrap_err().to_string();
    assert!(error.contains("001.v.packed") || error.contains("000.v.packed"), "{error}");
    let inner = ImportBlock { used_tokens: 3, ..chain(&good, 80, 0)[0] };
    let error = BatchKv::import(mx, &spec, &[inner, chain(&good, 80, 0)[1]]).unwrap_err().to_string();
    assert!(error.contains("3 of 16"), "{error}");
}

#[test]
fn wrong_rows_and_ranges_are_errors_and_change_nothing() {
    PLACES.into_iter().for_each(wrong_rows_and_ranges_change_nothing);
}

fn wrong_rows_and_ranges_change_nothing(place: Place) {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec(place, "16"));
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
    assert!(batch.extend(mx, BatchKv::start(self::spec(place, "8"))).is_err());
}

/// Where each plane, or each page, of the first row lies.
fn addresses(batch: &BatchKv) -> Vec<usize> {
    if let RowKv::Pool(row) = &batch.rows()[0] {
        let pages = [Part::Full, Part::Window]
            .map(|part| row.table(part).pages().map(|page| page.address() as usize));
        return pages.into_iter().flatten().collect();
    }
    let RowKv::Host(row) = &batch.rows()[0] else {
        let address = |plane: &Array| match plane.dtype() {
            mlx_rs::Dtype::Uint32 => plane.try_as_slice::<u32>().unwrap().as_ptr() as usize,
            _ => plane.try_as_slice::<half::f16>().unwrap().as_ptr() as usize,
        };
        return batch.rows()[0].arrays().map(address).collect();
    };
    let layers = 0..batch.spec().masks.len();
    let pages = layers.flat_map(|layer| row.pages(batch.spec(), layer).memory);
    pages.map(|page| page.as_ptr() as usize).collect()
}

#[test]
fn appending_writes_into_the_same_memory() {
    let owner = owner();
    for place in PLACES {
        let (mx, spec) = (owner.thread(), spec(place, "k8v4"));
        let mut batch = BatchKv::start(spec.clone());
        append(mx, &mut batch, 0, 2, 1);
        let before = addresses(&batch);
        for seed in 0..BLOCK as u64 - 2 {
            append(mx, &mut batch, 0, 1, seed);
        }
        assert_eq!(addresses(&batch), before, "{place:?}");
    }
}

/// Memory that one more block takes in a row, in pages of the operating system.
fn page_bytes(spec: &KvSpec) -> u64 {
    let parts =
        [Part::Full, Part::Window].map(|part| (BLOCK * spec.token_bytes(part)).next_multiple_of(4096));
    parts.iter().sum::<usize>() as u64
}

#[test]
fn rows_that_share_a_prefix_hold_it_once() {
    let owner = owner();
    let (mx, spec) = (owner.thread(), spec(Place::Host, "k8v4"));
    let full = five_blocks(mx, &spec);
    let blocks = chain(&full, 80, 0);
    let held = spec.memory.held_bytes();
    let mut batch = BatchKv::new(spec.clone());
    for _ in 0..4 {
        batch.extend(mx, BatchKv::import(mx, &spec, &blocks).unwrap()).unwrap();
    }
    assert_eq!(spec.memory.held_bytes(), held, "blocks and four rows hold the same pages");
    append(mx, &mut batch, 2, 1, 7);
    assert_eq!(spec.memory.held_bytes(), held + page_bytes(&spec), "one row has a page of its own");
    // A last page that is used in part belongs to the block: it is copied by whoever writes behind it.
    let part = BatchKv::import(mx, &spec, &chain(&full, 80, 6)).unwrap();
    batch.extend(mx, part).unwrap();
    assert_eq!(spec.memory.held_bytes(), held + page_bytes(&spec));
    append(mx, &mut batch, 4, 1, 8);
    assert_eq!(spec.memory.held_bytes(), held + 2 * page_bytes(&spec));
    // Blocks that their holder lets go of stay as long as a row reads them.
    let bytes = by_token(&full[4], BLOCK);
    drop(full);
    assert!(spec.memory.held_bytes() >= held);
    let row = batch.export(mx, 0, 4 * BLOCK..5 * BLOCK).unwrap();
    assert!(by_token(&row, BLOCK) == bytes);
    drop((batch, row));
    assert_eq!(spec.memory.held_bytes(), 0);
}

/// A pool of so many pages of each part of [`spec`], and its memory.
fn small_pool(full: usize, window: usize) -> (Rc<KvSpec>, Rc<Ram>) {
    let ram = Rc::new(Ram::default());
    let layers = [(Mask::Window { tokens: 40 }, [HEADS; 2]), (Mask::Causal, [HEADS; 2])];
    let spec = KvSpec::with_layers(Kernels::Device, KvSetting::DEFAULT, layers, BLOCK);
    let bytes = |part, pages| (BLOCK * spec.token_bytes(part) * pages) as u64;
    let limit = bytes(Part::Full, full) + bytes(Part::Window, window);
    let pool = DevicePool::new(ram.clone(), spec.memory.clone(), limit);
    (Rc::new(spec.with_pool(pool)), ram)
}

#[test]
fn a_prefix_whose_pages_are_on_the_device_moves_no_bytes() {
    let owner = owner();
    let mx = owner.thread();
    let (spec, ram) = small_pool(40, 40);
    let full = five_blocks(mx, &spec);
    let blocks = chain(&full, 80, 0);
    let moved = *ram.uploads.borrow();
    let taken = spec.pool.as_ref().unwrap().taken_bytes();
    let mut batch = BatchKv::new(spec.clone());
    for _ in 0..4 {
        batch.extend(mx, BatchKv::import(mx, &spec, &blocks).unwrap()).unwrap();
    }
    assert_eq!((*ram.uploads.borrow(), spec.pool.as_ref().unwrap().taken_bytes()), (moved, taken));
    // A page that is used in part is copied on the device by whoever writes behind it.
    let mut part = BatchKv::import(mx, &spec, &chain(&full, 80, 6)).unwrap();
    append(mx, &mut part, 0, 1, 8);
    assert_eq!(*ram.uploads.borrow(), [moved[0], moved[1] + 2], "one copy a part");
}

#[test]
fn rows_take_the_room_of_blocks_that_nobody_reads_and_those_come_back_from_the_host() {
    let owner = owner();
    let mx = owner.thread();
    // Both parts' first slabs take what is there.
    let (spec, ram) = small_pool(12, 12);
    let pool = spec.pool.as_ref().unwrap();
    let full = five_blocks(mx, &spec);
    assert!(pool.resident_bytes() > 0, "the blocks stay on the device");
    let bytes: Vec<_> = full.iter().map(|block| by_token(block, BLOCK)).collect();
    let mut row = BatchKv::start(spec.clone());
    append(mx, &mut row, 0, 11 * BLOCK, 3);
    let moved = ram.uploads.borrow()[0];
    drop(row);
    let again = BatchKv::import(mx, &spec, &chain(&full, 80, 0)).unwrap();
    assert!(ram.uploads.borrow()[0] > moved, "some of them had to go");
    let last = again.export(mx, 0, 64..80).unwrap();
    assert!(by_token(&last, BLOCK) == bytes[4]);
    drop((again, last, full));
    // What nobody holds makes room without being asked.
    let mut row = BatchKv::start(spec.clone());
    append(mx, &mut row, 0, 12 * BLOCK, 4);
    assert_eq!(pool.resident_bytes(), 0);
}

#[test]
fn a_pool_without_room_says_so_and_the_row_stays_as_it_was() {
    let owner = owner();
    let mx = owner.thread();
    let (spec, _) = small_pool(4, 4);
    let mut batch = BatchKv::start(spec.clone());
    let tokens = append(mx, &mut batch, 0, 3 * BLOCK + 5, 1);
    let error = batch.rows_mut()[0].reserve(mx, &spec, 4 * BLOCK).unwrap_err();
    assert!(matches!(EngineError::from(error), EngineError::OutOfMemory(text) if text.contains("in use")));
    let range = held(tokens.len());
    let again = batch.export(mx, 0, range.clone()).unwrap();
    assert!(by_token(&again, range.len()) == tokens[range]);
    append(mx, &mut batch, 0, 2, 2);
}
