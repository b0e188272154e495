//! Implementations against the definition in f64 (that over pages of a device proves itself there, see `proof`), over every format, window and shape that differs in kind.

use mlx_rs::{Array, Dtype};
use prefixd_engine::{Gate, GateError};

use super::{Queries, device, host};
use crate::mlx::array::{bytes, dims, from_f32, host as memory, host_contiguous};
use crate::mlx::backend::{Backend, Kernels};
use crate::mlx::gate::Mlx;
use crate::mlx::kv::{Format, HostRow, KvSetting, KvSpec, LayerKv};
use crate::mlx::mask::Mask;
use crate::mlx::step::{RowStep, Step};

const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 64;
const SCALE: f32 = 0.11;

/// Numbers in about -2..2 that look like nothing.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 22) as f32 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

/// The same tokens as a layer's arrays and as a row of one layer in pages.
struct Row {
    layer: LayerKv,
    host: HostRow,
    position: usize,
    /// `[tokens, heads, head_dim]`.
    queries: Vec<f32>,
}

fn spec_of(setting: KvSetting, mask: Mask, block_tokens: usize) -> KvSpec {
    KvSpec::new(Kernels::Host, setting, KV_HEADS, HEAD_DIM, vec![mask], block_tokens)
}

/// A row of `length` tokens that entered in pieces, whose last `tokens` are the queries.
fn row(mx: &Mlx, spec: &KvSpec, mask: Mask, length: usize, tokens: usize, heads: usize) -> Row {
    let (mut layer, mut host) = (LayerKv::empty(mask), HostRow::default());
    let (mut at, piece) = (0, 97);
    while at < length {
        // The queries' own keys enter last and together, as in a step.
        let count = if at < length - tokens { piece.min(length - tokens - at) } else { tokens };
        layer.reserve(mx, spec, 0, at, count).unwrap();
        let encoded = [(spec.setting.keys, 1), (spec.setting.values, 2)].map(|(format, seed)| {
            let vectors = noise(seed * 1000 + at as u64, KV_HEADS * count * HEAD_DIM);
            let array = from_f32(mx, &vectors, &dims([KV_HEADS, count, HEAD_DIM])).unwrap();
            format.encode(mx, &array).unwrap()
        });
        let encoded = encoded.concat();
        layer.write(mx, at, count, &encoded).unwrap();
        let by_token =
            |plane: &Array| host_contiguous(mx, &plane.transpose_axes(&[1, 0, 2]).unwrap()).unwrap();
        let encoded: Vec<_> = encoded.iter().map(by_token).collect();
        host.reserve(spec, count).unwrap();
        let encoded: Vec<_> = encoded.iter().map(|plane| bytes(mx, plane).unwrap().to_vec()).collect();
        host.write(spec, 0, RowStep { position: at, tokens: count, first: 0 }, &encoded).unwrap();
        at += count;
        if at < length {
            host.advance(spec, count);
        }
    }
    let queries = noise(77 + length as u64, tokens * heads * HEAD_DIM);
    Row { layer, host, position: length - tokens, queries }
}

/// The definition, over what is stored.
fn expected(mx: &Mlx, spec: &KvSpec, row: &Row, tokens: usize, heads: usize) -> Vec<f32> {
    let (origin, end) = (row.layer.origin(), row.position + tokens);
    let planes = row.layer.read(mx, origin, end).unwrap();
    let (keys, values) = planes.split_at(spec.key_planes());
    // The kernels read codes as exact numbers; MLX decodes to f16. So decode here, from codes and scales.
    let decode = |format: Format, planes: &[Array]| -> Vec<f32> {
        let wide: Vec<Array> =
            planes
                .iter()
                .map(|plane| {
                    if plane.dtype() == Dtype::Uint32 {
                        plane.clone()
                    } else {
                        plane.as_type::<f32>().unwrap()
                    }
                })
                .collect();
        let array = host_contiguous(mx, &format.decode(mx, &wide).unwrap()).unwrap();
        memory::<f32>(mx, &array).unwrap().to_vec()
    };
    let (keys, values) = (decode(spec.setting.keys, keys), decode(spec.setting.values, values));
    let held = end - origin;
    let mut out = Vec::new();
    for (i, query) in row.queries.chunks_exact(HEAD_DIM).enumerate() {
        let (position, kv_head) = (row.position + i / heads, i % heads / (heads / KV_HEADS));
        let at = |p: usize| (kv_head * held + p - origin) * HEAD_DIM;
        let seen: Vec<usize> = (row.layer.mask().visible_from(position)..=position).collect();
        let dot = |p: usize| -> f64 {
            let products =
                query.iter().zip(&keys[at(p)..][..HEAD_DIM]).map(|(q, k)| f64::from(*q) * f64::from(*k));
            products.sum::<f64>() * f64::from(SCALE)
        };
        let scores: Vec<f64> = seen.iter().map(|&p| dot(p)).collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for d in 0..HEAD_DIM {
            let mixed = seen.iter().zip(&weights).map(|(&p, weight)| weight * f64::from(values[at(p) + d]));
            out.push((mixed.sum::<f64>() / sum) as f32);
        }
    }
    out
}

type Implementation = fn(&Mlx, &KvSpec, Queries<'_>, &[(&Row, RowStep)]) -> Array;

/// The rows' queries in one step.
fn run(mx: &Mlx, spec: &KvSpec, rows: &[&Row], heads: usize, on: Implementation) -> Vec<f32> {
    let queries: Vec<f32> = rows.iter().flat_map(|row| row.queries.clone()).collect();
    let width = heads * HEAD_DIM;
    let array = from_f32(mx, &queries, &dims([queries.len() / width, heads, HEAD_DIM])).unwrap();
    let spans = rows.iter().map(|row| (row.position, row.queries.len() / width));
    let step = Step::new(mx, spans);
    let rows: Vec<_> = rows.iter().copied().zip(step.rows().iter().copied()).collect();
    let out = on(mx, spec, Queries { array: &array, scale: SCALE, sinks: None }, &rows);
    let out = host_contiguous(mx, &out).unwrap();
    memory::<f32>(mx, &out).unwrap().to_vec()
}

fn on_host(mx: &Mlx, spec: &KvSpec, queries: Queries<'_>, rows: &[(&Row, RowStep)]) -> Array {
    host(mx, spec, 0, queries, rows.iter().map(|(row, at)| (&row.host, *at))).unwrap()
}

fn layers<'a>(rows: &'a [(&Row, RowStep)]) -> impl Iterator<Item = (&'a LayerKv, RowStep)> {
    rows.iter().map(|(row, at)| (&row.layer, *at))
}

fn on_device(mx: &Mlx, spec: &KvSpec, queries: Queries<'_>, rows: &[(&Row, RowStep)]) -> Array {
    device(mx, spec, 0, queries, layers(rows)).unwrap()
}

fn settings() -> impl Iterator<Item = KvSetting> {
    ["32", "16", "8", "k8v4", "4"].into_iter().map(|text| text.parse().unwrap())
}

const MASKS: [Mask; 3] = [Mask::Causal, Mask::Window { tokens: 100 }, Mask::Window { tokens: 1000 }];

/// The host's queries and weights are whole numbers of 16 bits where keys and values are codes.
fn host_tolerance(setting: KvSetting) -> f32 {
    if setting.keys.bits() < 16 && setting.values.bits() < 16 { 5e-4 } else { 2e-5 }
}

#[test]
fn all_implementations_follow_the_definition() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mx = owner.thread();
    for setting in settings() {
        for mask in MASKS {
            for (length, tokens, heads) in [(1, 1, 2), (333, 1, 6), (65, 65, 4), (400, 130, 6), (257, 3, 2)] {
                let spec = spec_of(setting, mask, 16);
                let row = row(mx, &spec, mask, length, tokens, heads);
                let exact = expected(mx, &spec, &row, tokens, heads);
                // The device's keys and values are f16 numbers: half a unit in the last place each. GPUs multiply f32
                // with 10 bits of mantissa.
                let exact_f32 =
                    setting == KvSetting::REFERENCE && Backend::detect(mx).unwrap() == Backend::Cpu;
                let half = if exact_f32 { 2e-5 } else { 4e-3 };
                for (name, on, tolerance) in [
                    ("host", on_host as Implementation, host_tolerance(setting)),
                    ("device", on_device, half),
                ] {
                    let found = run(mx, &spec, &[&row], heads, on);
                    let worst = found.iter().zip(&exact).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs()));
                    let case =
                        format!("{name}, {setting}, {mask:?}, {tokens} of {length} tokens, {heads} heads");
                    assert!(worst < tolerance, "{case}: {worst:e}");
                }
            }
        }
    }
}

#[test]
fn rows_of_any_length_share_a_step() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mx = owner.thread();
    let heads = 6;
    // Decoding rows beside a chunk of a prompt, contexts shorter and longer than the window.
    let shapes = [(333, 1), (40, 1), (400, 130), (65, 65), (257, 3), (99, 1), (101, 1), (640, 64)];
    for setting in ["16", "k8v4"].map(|text| text.parse::<KvSetting>().unwrap()) {
        for mask in MASKS {
            let spec = spec_of(setting, mask, 16);
            let rows: Vec<Row> =
                shapes.iter().map(|(length, tokens)| row(mx, &spec, mask, *length, *tokens, heads)).collect();
            for batch in [1, 2, 3, 4, 8] {
                let exact: Vec<f32> = (rows[..batch].iter().zip(shapes))
                    .flat_map(|(row, (_, tokens))| expected(mx, &spec, row, tokens, heads))
                    .collect();
                let rows: Vec<&Row> = rows[..batch].iter().collect();
                for (on, tolerance) in
                    [(on_host as Implementation, host_tolerance(setting)), (on_device, 4e-3)]
                {
                    let found = run(mx, &spec, &rows, heads, on);
                    assert_eq!(found.len(), exact.len());
                    let worst = found.iter().zip(&exact).fold(0.0_f32, |d, (a, b)| d.max((a - b).abs()));
                    assert!(worst < tolerance, "{setting}, {mask:?}, a batch of {batch}: {worst:e}");
                }
            }
        }
    }
}

#[test]
fn on_the_host_a_query_s_bits_ignore_chunk_neighbours_and_storage() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mx = owner.thread();
    let (heads, tokens) = (6, 150);
    for setting in settings() {
        for mask in MASKS {
            let spec = spec_of(setting, mask, 16);
            let whole = row(mx, &spec, mask, 401, tokens, heads);
            let all = run(mx, &spec, &[&whole], heads, on_host);
            let width = heads * HEAD_DIM;
            for t in [0, 1, 63, 64, 149] {
                let mut alone = row(mx, &spec, mask, 401, tokens, heads);
                alone.position += t;
                alone.queries = whole.queries[t * width..][..width].to_vec();
                let stranger = row(mx, &spec, mask, 73, 1, heads);
                // The keys behind the query are in memory already: they must not show.
                let found = run(mx, &spec, &[&stranger, &alone], heads, on_host);
                let (found, all) = (&found[width..], &all[t * width..][..width]);
                let same = found.iter().zip(all).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{setting}, {mask:?}, query {t}");
            }
        }
    }
}

/// `cargo test --release -- --ignored --nocapture attention_rate`
#[test]
#[ignore = "measures"]
fn attention_rate() {
    let owner = Gate::new(|_| Err(GateError::Closed)).enter().unwrap();
    let mx = owner.thread();
    let heads = 6;
    for setting in settings() {
        for (tokens, length, mask) in
            [(512, 4096, Mask::Causal), (512, 4096, Mask::Window { tokens: 512 }), (1, 4096, Mask::Causal)]
        {
            let spec = spec_of(setting, mask, 256);
            let row = row(mx, &spec, mask, length, tokens, heads);
            let keys: usize = (length - tokens..length).map(|p| p + 1 - mask.visible_from(p)).sum();
            let mut best = f64::INFINITY;
            for _ in 0..10 {
                let begin = std::time::Instant::now();
                run(mx, &spec, &[&row], heads, on_host);
                best = best.min(begin.elapsed().as_secs_f64());
            }
            let rate = (keys * heads * HEAD_DIM * 4) as f64 / best / 1e9;
            println!("{setting} {mask:?} {tokens} x {length}: {:.3} ms, {rate:.1} GFLOP/s", best * 1e3);
        }
    }
}
