use mlx_rs::{fast, ops, random, transforms, memory, Array, Device, Dtype, Stream};
use mlx_rs::ops::indexing::{TryIndexOp, TryIndexMutOp, IndexOp};
type R<T> = Result<T, Box<dyn std::error::Error>>;
fn ptr(a: &Array) -> *const f32 { a.as_slice::<f32>().as_ptr() }
fn main() -> R<()> {
    println!("device {:?} stream {:?}", Device::try_default()?, Stream::new());
    // donation
    let mut a = Array::zeros::<f32>(&[1, 2, 64, 64])?; let v = Array::ones::<f32>(&[1, 2, 1, 64])?;
    a = a.add(&Array::from_f32(1.0))?; transforms::eval([&a, &v])?;
    let p0 = ptr(&a);
    a.try_index_mut((.., .., 5..6, ..), &v)?; a.eval()?; println!("donated in place: {}", p0 == ptr(&a));
    let keep = a.clone(); a.try_index_mut((.., .., 6..7, ..), &v)?; a.eval()?; println!("with clone alive same ptr: {}", p0 == ptr(&a)); drop(keep);
    let p0 = ptr(&a); { let view = a.try_index((.., .., 0..7, ..))?; view.eval()?; drop(view); }
    a.try_index_mut((.., .., 6..7, ..), &v)?; a.eval()?; println!("after an evaluated view was dropped: {}", p0 == ptr(&a));
    let p0 = ptr(&a); let view = a.try_index((.., .., 0..7, ..))?; a.try_index_mut((.., .., 6..7, ..), &v)?; transforms::eval([&a, &view])?; println!("with lazy view alive: {}", p0 == ptr(&a)); drop(view);
    let p0 = ptr(&a); let view = a.try_index((.., .., 0..7, ..))?; let s = view.sum(None)?; drop(view); a.try_index_mut((.., .., 6..7, ..), &v)?; transforms::eval([&s, &a])?; println!("with lazy consumer evaluated in same eval: {}", p0 == ptr(&a)); drop(s);
    // rope dynamic
    random::seed(1)?;
    let x = random::normal::<f32>(&[3, 2, 4, 64], None, None, None)?;
    let offs = Array::from_slice(&[0i32, 17, 300], &[3]);
    for trad in [false, true] {
    let y = fast::rope_dynamic(&x, 64, trad, 10000.0, 1.0, &offs, None)?;
    for (i, o) in [0, 17, 300].iter().enumerate() {
        let i = i as i32;
        let yi = fast::rope(x.try_index(i..i + 1)?, 64, trad, 10000.0, 1.0, *o, None)?;
        println!("rope trad {trad} row {i} equal {}", ops::all(yi.eq(y.try_index(i..i + 1)?)?, None)?.item_exact::<bool>());
    } }
    // chunk invariance of rope: one token at offset
    let y = fast::rope(&x, 64, false, 10000.0, 1.0, 5, None)?; let y1 = fast::rope(x.try_index((.., .., 2..3, ..))?, 64, false, 10000.0, 1.0, 7, None)?;
    println!("rope chunk equal {}", ops::all(y1.eq(y.try_index((.., .., 2..3, ..))?)?, None)?.item_exact::<bool>());
    // quantize
    for bits in [4, 8] { for gs in [32, 64, 128] {
        let d = 128; let k = random::normal::<f32>(&[2, 3, 5, d], None, None, None)?;
        match ops::quantize(&k, gs, bits) { Ok((w, s, b)) => { let back = ops::dequantize(&w, &s, &b, gs, bits)?; let e = back.subtract(&k)?.abs()?.max(None)?.item_exact::<f32>();
          println!("q{bits} g{gs}: {:?} {:?} s {:?} {:?} back {:?} {:?} err {e}", w.shape(), w.dtype(), s.shape(), s.dtype(), back.shape(), back.dtype()) } Err(e) => println!("q{bits} g{gs}: {e}") }
    } }
    let k = random::normal::<f32>(&[2, 3, 5, 128], None, None, None)?; let q = random::normal::<f32>(&[2, 3, 2, 128], None, None, None)?;
    let (w, s, b) = ops::quantize(&k, 64, 8)?;
    let m1 = ops::quantized_matmul(&q, &w, &s, &b, true, 64, 8)?; let m2 = q.matmul(ops::dequantize(&w, &s, &b, 64, 8)?.swap_axes(-1, -2)?)?;
    println!("qmm 4d {:?} err {}", m1.shape(), m1.subtract(&m2)?.abs()?.max(None)?.item_exact::<f32>());
    // quantizing one token at a time == all at once
    let (w1, s1, b1) = ops::quantize(k.try_index((.., .., 3..4, ..))?, 64, 8)?;
    println!("quantize per token equal {} {} {}", ops::all(w1.eq(w.try_index((.., .., 3..4, ..))?)?, None)?.item_exact::<bool>(), ops::all(s1.eq(s.try_index((.., .., 3..4, ..))?)?, None)?.item_exact::<bool>(), ops::all(b1.eq(b.try_index((.., .., 3..4, ..))?)?, None)?.item_exact::<bool>());
    match ops::quantize(random::normal::<f32>(&[2, 3, 5, 48], None, None, None)?, 64, 8) { Ok(_) => println!("ok 48"), Err(e) => println!("quantize 48: {e}") }
    // sdpa
    let q = random::normal::<f32>(&[2, 8, 3, 64], None, None, None)?; let k = random::normal::<f32>(&[2, 2, 10, 64], None, None, None)?; let vv = random::normal::<f32>(&[2, 2, 10, 64], None, None, None)?;
    let c = fast::scaled_dot_product_attention(&q, &k, &vv, 0.125, fast::ScaledDotProductAttentionMask::Causal, None)?;
    let rows = Array::arange::<_, i32>(7, 10, None)?.reshape(&[3, 1])?; let cols = Array::arange::<_, i32>(0, 10, None)?.reshape(&[1, 10])?;
    let mask = cols.le(&rows)?; let m = fast::scaled_dot_product_attention(&q, &k, &vv, 0.125, &mask, None)?;
    println!("sdpa gqa {:?} causal==boolmask diff {}", c.shape(), c.subtract(&m)?.abs()?.max(None)?.item_exact::<f32>());
    let none = fast::scaled_dot_product_attention(&q, &k, &vv, 0.125, None, None)?; println!("none {:?}", none.shape());
    // batch invariance of sdpa: row 0 alone
    for (l, n) in [(3, 10), (1, 10), (1, 1000), (64, 300)] {
    let q = random::normal::<f32>(&[2, 8, l, 64], None, None, None)?; let k = random::normal::<f32>(&[2, 2, n, 64], None, None, None)?; let vv = random::normal::<f32>(&[2, 2, n, 64], None, None, None)?;
    let c = fast::scaled_dot_product_attention(&q, &k, &vv, 0.125, fast::ScaledDotProductAttentionMask::Causal, None)?;
    let c0 = fast::scaled_dot_product_attention(q.try_index(0..1)?, k.try_index(0..1)?, vv.try_index(0..1)?, 0.125, fast::ScaledDotProductAttentionMask::Causal, None)?;
    println!("sdpa {l}x{n} row alone equal {}", ops::all(c0.eq(c.try_index(0..1)?)?, None)?.item_exact::<bool>());
    let last = fast::scaled_dot_product_attention(q.try_index((.., .., l-1..l, ..))?, &k, &vv, 0.125, None, None)?;
    println!("sdpa last query alone equal {}", ops::all(last.eq(c.try_index((.., .., l-1..l, ..))?)?, None)?.item_exact::<bool>());
    }
    // safetensors lazy
    let dir = std::env::temp_dir().join("probe.safetensors");
    Array::save_safetensors([("x", &x)], None, &dir)?;
    let m = Array::load_safetensors(&dir)?; println!("active after load {}", memory::active_memory()?);
    std::fs::write(&dir, b"short")?; let l = m["x"].eval(); println!("eval after truncation: {l:?}");
    std::fs::remove_file(&dir)?; println!("load missing: {:?}", Array::load_safetensors(&dir).err());
    std::fs::write(&dir, b"short")?; println!("load bad: {:?}", Array::load_safetensors(&dir).err()); 
    // threads
    let lazy = x.add(&x)?; 
    let r = std::thread::spawn(move || lazy.eval().map_err(|e| e.to_string())).join(); println!("lazy on another thread: {r:?}");
    let real = x.add(&x)?; real.eval()?; let r = std::thread::spawn(move || real.add(&real).and_then(|y| { y.eval()?; Ok(y.shape().to_vec()) }).map_err(|e| e.to_string())).join(); println!("realized on another thread: {r:?}");
    // slices
    println!("transposed: {:?}", x.transpose()?.try_as_slice::<f32>().err());
    println!("slice: {:?}", x.try_index((.., .., 1..2, ..))?.try_as_slice::<f32>().err());
    println!("prefix slice ok: {:?}", x.try_index(0..1)?.try_as_slice::<f32>().is_ok());
    println!("dtype: {:?}", x.try_as_slice::<i32>().err());
    println!("empty: {:?}", Array::zeros::<f32>(&[0, 4])?.try_as_slice::<f32>().err());
    println!("broadcast: {:?}", ops::broadcast_to(Array::from_f32(1.0), &[4])?.try_as_slice::<f32>().err());
    println!("matmul err: {:?}", x.matmul(&Array::zeros::<f32>(&[3, 3])?).err());
    println!("eval err index: {:?}", x.try_index((.., 9..12)).map(|y| y.shape().to_vec()));
    let h = x.as_dtype(Dtype::Float16)?; println!("f16 slice {:?} item {:?}", &h.as_slice::<half::f16>()[..2], h.try_index((0, 0, 0, 0))?.item_exact::<half::f16>());
    let h = x.as_dtype(Dtype::Bfloat16)?; println!("bf16 slice {:?} item {:?}", &h.as_slice::<half::bf16>()[..2], h.try_index((0, 0, 0, 0))?.item_exact::<half::bf16>());
    println!("memory: active {} cache {} peak {} limit {} wired {:?}", memory::active_memory()?, memory::cache_memory()?, memory::peak_memory()?, memory::memory_limit()?, memory::set_wired_limit(0).err());
    println!("set cache limit: was {}", memory::set_cache_limit(1 << 20)?);
    let lg = Array::from_slice(&[0f32, 10., 0.], &[1, 3]); println!("categorical {:?}", random::categorical(&lg, -1, None, None)?.item_exact::<u32>());
    println!("argmax {:?} {:?}", ops::indexing::argmax_axis(&lg, -1, false)?.as_slice::<u32>(), Stream::thread_local_or_default());
    println!("index scalar {:?}", lg.index((0, 1)).item_exact::<f32>());
    std::fs::remove_file(&dir)?;
    Ok(())
}
