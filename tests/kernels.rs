//! Our kernels for NVIDIA GPUs, run by processor cores: their source, compiled as plain C++ with what a GPU has besides
//! (`kernels/device.h`), against the definition in f64. What the hardware itself does is not shown here; there they prove themselves
//! when a model is loaded.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mlx/attention/paged");
const SMALL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mlx/layer/fused");
const SCAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/mlx/layer/scan");
const BLOCK_SUM: &str = include_str!("../src/mlx/cuda/block_sum.cu");
const TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels");

/// Headers that are the same on both; what `units.cu` has is in `device.h`.
const HEADERS: [&str; 5] = ["codes", "step", "operands", "encode", "decode"];
/// Kernels: file, name here, parameters, and constants that mean something else in others.
const KERNELS: [(&str, &str, &str, &str); 5] = [
    (
        "store",
        "store",
        "const unsigned long long* step, const int* at, const T* x_q, const T* x_k, const T* x_v, const T* q_weight, \
         const T* k_weight, const float* rates, const float* turn, const float* eps, T* turned",
        "constexpr int QUERIES = KV_HEADS * REPEATS, K_WIDTH = D, V_WIDTH = D, KEYS_AT = QUERIES * D, \
         VALUES_AT = KEYS_AT + KV_HEADS * D, Q_STRIDE = VALUES_AT + KV_HEADS * D, K_STRIDE = Q_STRIDE, V_STRIDE = Q_STRIDE;",
    ),
    (
        "gather",
        "gather",
        "const unsigned long long* step, const int* at, const int* span, const T* order, __half* keys, __half* values",
        "constexpr int K_WIDTH = D, V_WIDTH = D;",
    ),
    (
        "part",
        "part",
        "const unsigned long long* step, const int* at, const T* query, const float* factor, const T* order, float* mixed, \
         float* weights",
        "constexpr int HEADS = REPEATS / SPLIT;",
    ),
    (
        "join",
        "join_shares",
        "const unsigned long long* step, const int* at, const T* sinks, const float* mixed, const float* weights, T* attended",
        "",
    ),
    (
        "flash",
        "flash",
        "const T* query, const __half* keys, const __half* values, const int* span, const float* factor, const T* sinks, T* attended",
        "",
    ),
];

/// A model's layer: what the kernels are compiled for.
#[derive(Clone, Copy, Debug)]
struct Layer {
    head_dim: usize,
    kv_heads: usize,
    repeats: usize,
    split: usize,
    bits: [usize; 2],
    page: usize,
    window: usize,
    turned: usize,
    norm: bool,
    neighbours: bool,
    sinks: bool,
}

const PLAIN: Layer = Layer {
    head_dim: 128,
    kv_heads: 2,
    repeats: 2,
    split: 1,
    bits: [8, 4],
    page: 32,
    window: 0,
    turned: 128,
    norm: false,
    neighbours: false,
    sinks: false,
};

/// Every head size, format, mask and way to turn at least once.
const LAYERS: [Layer; 5] = [
    PLAIN,
    Layer {
        head_dim: 64,
        kv_heads: 1,
        repeats: 7,
        bits: [4, 8],
        window: 50,
        turned: 64,
        norm: true,
        sinks: true,
        ..PLAIN
    },
    Layer { head_dim: 256, kv_heads: 1, repeats: 4, split: 2, page: 16, window: 100, turned: 64, ..PLAIN },
    Layer { head_dim: 64, repeats: 1, bits: [16, 16], turned: 32, neighbours: true, ..PLAIN },
    Layer {
        head_dim: 64,
        kv_heads: 1,
        repeats: 3,
        bits: [32, 32],
        turned: 64,
        norm: true,
        page: 256,
        ..PLAIN
    },
];

fn source(layer: &Layer) -> String {
    let Layer { head_dim, kv_heads, repeats, split, bits, page, window, turned, .. } = layer;
    let mut text = format!(
        "#include \"{TESTS}/device.h\"\nusing T = bf16;\n\
         constexpr int D = {head_dim}, KV_HEADS = {kv_heads}, REPEATS = {repeats}, SPLIT = {split}, K_BITS = {}, V_BITS = {}, \
         PAGE = {page}, WINDOW = {window}, TURNED = {turned};\n\
         constexpr bool NORM = {}, NEIGHBOURS = {}, SINKS = {};\n",
        bits[0], bits[1], layer.norm, layer.neighbours, layer.sinks
    );
    let read = |name: &str| std::fs::read_to_string(format!("{SOURCES}/{name}.cu")).unwrap();
    for header in HEADERS {
        text += &read(header).replace("#include <cuda_fp16.h>", "");
    }
    for (file, name, parameters, constants) in KERNELS {
        let body = read(file).replace("extern __shared__ uint4 shared[];", "__shared__ uint4 shared[16384];");
        write!(text, "static void {name}({parameters}) {{\n{constants}\n{body}}}\n").unwrap();
    }
    text + &format!("#include \"{TESTS}/check.h\"\n")
}

/// How far stored vectors may be from what they were.
fn loss(bits: usize) -> f64 {
    match bits {
        4 => 0.1,
        8 => 1e-2,
        // Normalized vectors are bf16.
        _ => 3e-3,
    }
}

#[test]
fn kernels_over_pages_follow_the_definition() {
    let limits = |layer: &Layer| {
        let [keys, values] = layer.bits.map(loss);
        vec![("queries", 4e-3), ("keys", keys), ("values", values), ("one", 4e-3), ("chunk", 4e-3)]
    };
    let programs = LAYERS.map(|layer| Program {
        name: format!("{layer:?}"),
        source: source(&layer),
        limits: limits(&layer),
    });
    all_within(&programs);
}

#[test]
fn small_steps_follow_the_definition() {
    // Elements of a token: fewer than a block has threads, and more, not a multiple.
    let programs = [(96, false), (600, true)].map(|(width, gelu)| {
        let read = |name: &str| std::fs::read_to_string(format!("{SMALL}/{name}.cu")).unwrap();
        let source = format!(
            "#include \"{TESTS}/device.h\"\n{BLOCK_SUM}\nusing T = bf16;\nconstexpr int WIDTH = {width};\nconstexpr bool GELU = {gelu};\n\
             static void add_norm(const T* x, const T* more, const T* weight, const float* eps, T* sum, T* normed) {{\n{}}}\n\
             static void gated(const T* x, T* y) {{\n{}}}\n#include \"{TESTS}/small.h\"\n",
            read("add_norm"),
            read("gated")
        );
        let limits = vec![("sum", 4e-3), ("norm", 4e-3), ("gated", 4e-3)];
        Program { name: format!("{width} elements"), source, limits }
    });
    all_within(&programs);
}

#[test]
fn recurrent_layers_follow_the_definition() {
    // By Mamba's rule? Key heads, value heads, elements of a key and of a value, taps.
    let shapes = [
        (false, [1, 2, 32, 48, 4]),
        (false, [2, 2, 16, 16, 3]),
        (true, [1, 2, 32, 48, 4]),
        (true, [2, 4, 16, 40, 3]),
    ];
    let programs = shapes.map(|(mamba, [key_heads, value_heads, key, value, taps])| {
        let read = |name: &str| std::fs::read_to_string(format!("{SCAN}/{name}.cu")).unwrap();
        let words = std::fs::read_to_string(format!("{SOURCES}/step.cu")).unwrap();
        let width = 2 * key_heads * key + value_heads * value;
        let (unit, units) = if mamba { (64, 0) } else { (key, 2 * key_heads) };
        let source = format!(
            "#include \"{TESTS}/device.h\"\nusing T = bf16;\n{words}\n{BLOCK_SUM}\n\
             constexpr int KEY_HEADS = {key_heads}, VALUE_HEADS = {value_heads}, K = {key}, V = {value}, TAPS = {taps}, \
             BEGIN = {}, UNIT = {unit}, UNITS = {units}, QUERIES = KEY_HEADS, GROUP = VALUE_HEADS * V / KEY_HEADS;\n\
             constexpr bool SILU = true, MAMBA = {mamba}, BIASED = {mamba};\n\
             static void rule(const unsigned long long* step, const int* at, const float* mixed, const T* decays, \
             const T* strengths, const float* rate, const T* bias, const float* own, float* read) {{\n{}}}\n\
             constexpr int WIDTH = {width};\n\
             static void conv(const unsigned long long* step, const int* at, const T* x, const T* kernel, float* mixed) {{\n{}}}\n\
             static void gated_norm(const float* x, const T* gate, const T* weight, const float* eps, T* y) {{\n{}}}\n\
             static void opened_norm(const float* x, const T* gate, const T* weight, const float* eps, T* y) {{\n\
             constexpr int V = GROUP, THREADS = 64;\n{}}}\n\
             #include \"{TESTS}/scan.h\"\n",
            (taps - 1) * width * 2,
            read("rule"),
            read("conv"),
            read("gated_norm"),
            read("opened_norm")
        );
        let limits = vec![("mixed", 1e-5), ("read", 1e-4), ("gated", 4e-3), ("kept", 1e-4)];
        let name = format!("Mamba {mamba}, {key_heads} and {value_heads} heads of {key} and {value}");
        Program { name, source, limits }
    });
    all_within(&programs);
}

/// A program and what it has to print: things that were compared, and limits of their distances.
struct Program {
    name: String,
    source: String,
    limits: Vec<(&'static str, f64)>,
}

/// Compiles and runs programs.
fn all_within(programs: &[Program]) {
    let folder = tempfile::tempdir().unwrap();
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let compiled = programs.iter().enumerate().map(|(number, Program { source, .. })| {
        let (path, program) =
            (folder.path().join(format!("{number}.cpp")), folder.path().join(number.to_string()));
        std::fs::write(&path, source).unwrap();
        let mut command = Command::new(&compiler);
        command.args(["-std=c++20", "-O1", "-w", "-o"]).arg(&program).arg(&path);
        (program, command.spawn().expect("a C++ compiler"))
    });
    let compiled: Vec<_> = compiled.collect();
    for (Program { name, limits, .. }, (program, mut compiling)) in programs.iter().zip(compiled) {
        assert!(compiling.wait().unwrap().success(), "{name} does not compile");
        let found = distances(&program);
        assert_eq!(found.len(), limits.len(), "{name}: {found:?}");
        for ((what, distance), (expected, limit)) in found.iter().zip(limits) {
            assert_eq!(what, expected);
            assert!(distance < limit, "{name}: {what} {distance:e}, expected below {limit:e}");
        }
    }
}

fn distances(program: &Path) -> Vec<(String, f64)> {
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (what, distance) = line.split_once(' ').unwrap();
        (what.to_owned(), distance.parse().unwrap())
    };
    text.lines().map(line).collect()
}
