//! Many small MLPs, of which a router chooses some for each token.
//!
//! 1. A step's tokens are sorted by expert, so that each expert's weights are read once.
//! 2. On the host a token's result is the sum over its experts from the best on, and each product is one of rows: so it does
//!    not depend on what else is in the step.

use mlx_rs::ops::indexing::{TryIndexOp, put_along_axis, take_along_axis, take_axis};
use mlx_rs::{Array, Dtype};

use super::linear::{Linear, Weight};
use super::mlp::{Mlp, gated_on_device};
use super::source::Source;
use crate::mlx::array::{Result, added, dims, from_vec, host, settle};
use crate::mlx::backend::Kernels;
use crate::mlx::config::{Experts, Groups, Routing};
use crate::mlx::cpu::activation::{Activation, gated};
use crate::mlx::cpu::route::route;
use crate::mlx::error::{LoadError, MlxError};
use crate::mlx::gate::Mlx;

/// Pairs of tokens and experts from which sorting them costs less than reading weights twice.
const SORT_FROM: usize = 64;

/// The router and the experts of one layer.
#[derive(Debug)]
pub struct ExpertMlp {
    router: Linear,
    /// `[experts]`, f32: what is added to scores for the choice.
    favour: Option<Array>,
    /// `[experts]`: what the weights of the chosen are multiplied by.
    scales: Option<Array>,
    shared: Option<Mlp>,
    /// `[1, hidden]`: how much of the shared MLP a token takes.
    shared_gate: Option<Linear>,
    /// To shorter vectors for the experts, and back.
    narrow: Option<[Linear; 2]>,
    /// None where ups are their own gates.
    gate: Option<Bank>,
    up: Bank,
    down: Bank,
    chosen: usize,
    routing: Routing,
    activation: Activation,
}

/// One matrix of every expert.
#[derive(Debug)]
enum Bank {
    /// Apart, for the host.
    Each(Vec<Linear>),
    /// `[experts, …]`, for a device; biases `[experts, out]`.
    Stacked(Weight, Option<Array>),
}

impl ExpertMlp {
    /// The experts of the layer at `path`.
    pub fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        experts: &Experts,
    ) -> std::result::Result<Self, LoadError> {
        let (hidden, width) = (source.config.hidden, experts.width);
        let router = [experts.count, hidden];
        let router = Linear::load(mx, source, &format!("{path}.{}", experts.router), router, experts.bias)?;
        let favour = match experts.routing {
            Routing::Sigmoid { .. } => {
                let name = format!("{path}.{}.e_score_correction_bias", experts.router);
                // Always f32: rounded, it would choose other experts.
                Some(source.weights.take(mx, &name, &[experts.count], Some(Dtype::Float32))?)
            }
            _ => None,
        };
        let scales = match experts.scales {
            Some(name) => Some(source.tensor(mx, &format!("{path}.{name}"), &[experts.count])?),
            None => None,
        };
        let shared = match experts.shared {
            Some((module, width)) => Some(Mlp::load(mx, source, &format!("{path}.{module}"), width)?),
            None => None,
        };
        let shared_gate = match experts.shared_gate {
            Some(module) => Some(Linear::load(mx, source, &format!("{path}.{module}"), [1, hidden], false)?),
            None => None,
        };
        let bias = source.config.mlp_bias;
        let narrow = match experts.narrow {
            Some(([to, back], inner)) => Some([
                Linear::load(mx, source, &format!("{path}.{to}"), [inner, hidden], bias)?,
                Linear::load(mx, source, &format!("{path}.{back}"), [hidden, inner], bias)?,
            ]),
            None => None,
        };
        let (squares, outer) = (source.config.mlp_squares, experts.narrow.map_or(hidden, |(_, inner)| inner));
        let mut bank = |matrix: &str, shape| {
            Bank::load(mx, source, &format!("{path}.{}.{matrix}", experts.module), experts, shape)
        };
        Ok(Self {
            router,
            favour,
            scales,
            shared,
            shared_gate,
            narrow,
            gate: (!squares).then(|| bank("gate_proj", [width, outer])).transpose()?,
            up: bank("up_proj", [width, outer])?,
            down: bank("down_proj", [outer, width])?,
            chosen: experts.chosen,
            routing: experts.routing,
            activation: source.config.activation,
        })
    }

    /// `[n, hidden]` to `[n, hidden]`.
    pub fn forward(&self, mx: &Mlx, x: &Array) -> Result<Array> {
        self.forward_by(mx, x, x)
    }

    /// The same where the router sees something else, `seen`, `[n, hidden]`.
    pub fn forward_by(&self, mx: &Mlx, seen: &Array, x: &Array) -> Result<Array> {
        let logits = self.router.forward(mx, seen)?;
        let short = self.narrow.as_ref().map(|[to, _]| to.forward(mx, x)).transpose()?;
        let taken = short.as_ref().unwrap_or(x);
        let (routed, on_host) = match (&self.up, &self.down) {
            (Bank::Each(up), Bank::Each(down)) => {
                let gate = self.gate.as_ref().map_or(&[][..], Bank::each);
                (self.on_host(mx, taken, &logits, [gate, up, down])?, true)
            }
            _ => (self.on_device(mx, taken, &logits)?, false),
        };
        let routed = match &self.narrow {
            Some([_, back]) => back.forward(mx, &routed)?,
            None => routed,
        };
        let Some(shared) = &self.shared else { return Ok(routed) };
        let shared = shared.forward(mx, x)?;
        let shared = match &self.shared_gate {
            Some(gate) => weighed(mx, &shared, &gate.forward(mx, x)?, on_host)?,
            None => shared,
        };
        if on_host { added(mx, &routed, &shared) } else { Ok(routed.add(shared)?) }
    }

    fn on_host(&self, mx: &Mlx, x: &Array, logits: &Array, banks: [&[Linear]; 3]) -> Result<Array> {
        let [gate, up, down] = banks;
        settle(mx, [x, logits])?;
        let (n, hidden) = (x.dim(0) as usize, x.dim(1) as usize);
        let (rows, logits) = (host::<f32>(mx, x)?, host::<f32>(mx, logits)?);
        let favour = self.favour.as_ref().map(|favour| host::<f32>(mx, favour)).transpose()?;
        let logits = logits.chunks_exact(up.len());
        let mut routed: Vec<_> =
            logits.map(|logits| route(self.routing, logits, favour, self.chosen)).collect();
        if let Some(scales) = &self.scales {
            let scales = host::<f32>(mx, scales)?;
            routed.iter_mut().flatten().for_each(|(expert, weight)| *weight *= scales[*expert]);
        }
        let mut tokens = vec![Vec::new(); up.len()];
        // Where among its expert's results a token's share lies, best expert first.
        let mut places = Vec::with_capacity(n * self.chosen);
        for (token, experts) in routed.iter().enumerate() {
            for &(expert, weight) in experts {
                places.push((expert, tokens[expert].len(), weight));
                tokens[expert].push(token);
            }
        }
        let mut inner = Vec::new();
        for (expert, tokens) in tokens.iter().enumerate().filter(|(_, tokens)| !tokens.is_empty()) {
            let own: Vec<f32> =
                tokens.iter().flat_map(|token| &rows[token * hidden..][..hidden]).copied().collect();
            let own = from_vec(mx, own, &dims([tokens.len(), hidden]))?;
            let [gate, up] = if let Some(gate) = gate.get(expert) {
                Linear::forward_all(mx, &own, [gate, &up[expert]])?
            } else {
                let up = up[expert].forward(mx, &own)?;
                [up.clone(), up]
            };
            inner.push((expert, gate, up));
        }
        settle(mx, inner.iter().flat_map(|(_, gate, up)| [gate, up]))?;
        let mut results = vec![None; down.len()];
        for (expert, gate, up) in &inner {
            let mut out = vec![0.0; gate.size()];
            gated(self.activation, host(mx, gate)?, host(mx, up)?, &mut out);
            results[*expert] = Some(down[*expert].forward(mx, &from_vec(mx, out, gate.shape())?)?);
        }
        settle(mx, results.iter().flatten())?;
        let results = results.iter().map(|result| result.as_ref().map(|result| host::<f32>(mx, result)));
        let results = results.map(Option::transpose).collect::<Result<Vec<_>>>()?;
        let mut out = vec![0.0_f32; n * hidden];
        for (out, places) in out.chunks_exact_mut(hidden).zip(places.chunks_exact(self.chosen)) {
            for &(expert, place, weight) in places {
                let result = results[expert].unwrap_or_default();
                for (out, y) in out.iter_mut().zip(&result[place * hidden..]) {
                    *out += weight * y;
                }
            }
        }
        from_vec(mx, out, x.shape())
    }

    fn on_device(&self, mx: &Mlx, x: &Array, logits: &Array) -> Result<Array> {
        let (n, hidden, k) = (x.dim(0), x.dim(1), self.chosen as i32);
        let best = |scores: &Array| {
            let from = scores.dim(1) - k;
            mlx_rs::ops::argpartition_axis(scores, from, -1)?.try_index((.., from..))
        };
        let softmax = |scores: &Array| mlx_rs::ops::softmax_axis(scores, -1, true);
        let (indices, weights) = match self.routing {
            Routing::SoftmaxThenTop { groups, normalized, factor } => {
                let scores = softmax(logits)?;
                let indices = best(&keep_best_groups(mx, groups, &scores)?)?;
                let weights = take_along_axis(&scores, &indices, -1)?;
                let sum = weights.sum_axis(-1, true)?;
                let weights = if normalized { weights.divide(&sum)? } else { weights };
                (indices, scaled(mx, weights, factor)?)
            }
            Routing::TopThenSoftmax => {
                let indices = best(logits)?;
                let weights = softmax(&take_along_axis(logits, &indices, -1)?)?;
                (indices, weights)
            }
            Routing::Sigmoid { groups, normalized, factor } => {
                let scores = mlx_rs::ops::sigmoid(logits.as_type::<f32>()?)?;
                let ranks = match &self.favour {
                    Some(favour) => scores.add(favour)?,
                    None => scores.clone(),
                };
                let indices = best(&keep_best_groups(mx, groups, &ranks)?)?;
                let weights = take_along_axis(&scores, &indices, -1)?;
                let sum = weights.sum_axis(-1, true)?;
                let weights = if normalized && k > 1 { weights.divide(&sum)? } else { weights };
                (indices, scaled(mx, weights, factor)?)
            }
        };
        let weights = match &self.scales {
            Some(scales) => weights.multiply(take_axis(scales, &indices, 0)?)?,
            None => weights,
        };
        let results = if (n * k) as usize >= SORT_FROM {
            let pairs = indices.reshape(&[n * k])?;
            let order = mlx_rs::ops::argsort_axis(&pairs, 0)?;
            let tokens = order.floor_divide(Array::from_int(k).as_dtype(order.dtype())?)?;
            // A shape, not one axis more: such an axis has stride 1, which MLX's grouped product on CUDA takes for a row's length.
            let own = take_axis(x, tokens, 0)?.reshape(&[n * k, 1, hidden])?;
            let results = self.experts(mx, &own, &take_axis(&pairs, &order, 0)?, true)?;
            take_axis(results, mlx_rs::ops::argsort_axis(&order, 0)?, 0)?
        } else {
            self.experts(mx, &x.reshape(&[n, 1, 1, hidden])?, &indices, false)?
        };
        let results = results.reshape(&[n, k, hidden])?;
        Ok(results.multiply(weights.expand_dims(-1)?)?.sum_axis(-2, false)?.as_dtype(x.dtype())?)
    }

    /// `x`, `[…, 1, hidden]`, through the experts `indices`, `[…]`.
    fn experts(&self, mx: &Mlx, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let up = self.up.product(mx, x, indices, sorted)?;
        let gate = self.gate.as_ref().map(|gate| gate.product(mx, x, indices, sorted)).transpose()?;
        let inner = gated_on_device(mx, self.activation, gate.as_ref().unwrap_or(&up), &up)?;
        self.down.product(mx, &inner, indices, sorted)
    }

    /// The arrays it holds.
    pub fn arrays(&self) -> Vec<&Array> {
        let banks = self.gate.iter().chain([&self.up, &self.down]).flat_map(Bank::arrays);
        let narrow = self.narrow.iter().flatten().flat_map(Linear::arrays);
        let shared = self.shared.iter().flat_map(Mlp::arrays);
        let shared = shared.chain(self.shared_gate.iter().flat_map(Linear::arrays));
        self.router
            .arrays()
            .into_iter()
            .chain(&self.favour)
            .chain(&self.scales)
            .chain(shared)
            .chain(narrow)
            .chain(banks)
            .collect()
    }
}

/// `x`, `[n, hidden]`, times how far the gates `[n, 1]` are open.
fn weighed(mx: &Mlx, x: &Array, gates: &Array, on_host: bool) -> Result<Array> {
    if !on_host {
        return Ok(x.multiply(mlx_rs::ops::sigmoid(gates)?)?);
    }
    settle(mx, [x, gates])?;
    let mut out = host::<f32>(mx, x)?.to_vec();
    let gates = host::<f32>(mx, gates)?;
    for (row, gate) in out.chunks_exact_mut(x.dim(1) as usize).zip(gates) {
        let open = 1.0 / (1.0 + (-gate).exp());
        for x in row {
            *x *= open;
        }
    }
    from_vec(mx, out, x.shape())
}

/// Weights times `factor`, of their own type.
fn scaled(_: &Mlx, weights: Array, factor: f32) -> Result<Array> {
    if factor.to_bits() == 1.0_f32.to_bits() {
        return Ok(weights);
    }
    let factor = Array::from_f32(factor).as_dtype(weights.dtype())?;
    Ok(weights.multiply(factor)?)
}

/// Ranks `[n, experts]` with those of all but the best groups set to 0.
fn keep_best_groups(_: &Mlx, groups: Groups, ranks: &Array) -> Result<Array> {
    let (n, count, dropped) = (ranks.dim(0), groups.count as i32, (groups.count - groups.chosen) as i32);
    if dropped == 0 {
        return Ok(ranks.clone());
    }
    let grouped = ranks.reshape(&[n, count, -1])?;
    let judged_by = groups.judged_by as i32;
    let sums = mlx_rs::ops::indexing::topk_axis(&grouped, judged_by, -1)?.sum_axis(-1, true)?;
    let worst = mlx_rs::ops::argpartition_axis(&sums, dropped - 1, -2)?.try_index((.., ..dropped, ..))?;
    let kept = put_along_axis(&grouped, &worst, Array::from_f32(0.0).as_dtype(ranks.dtype())?, -2)?;
    Ok(kept.reshape(ranks.shape())?)
}

impl Bank {
    fn load(
        mx: &Mlx,
        source: &mut Source<'_>,
        path: &str,
        experts: &Experts,
        [out, inner]: [usize; 2],
    ) -> std::result::Result<Self, LoadError> {
        let stored = source.matrices(mx, path, [experts.count, experts.chosen], [out, inner])?;
        let bias = format!("{path}.bias");
        let bias = if experts.bias { Some(source.tensor(mx, &bias, &[experts.count, out])?) } else { None };
        let weights = stored.into_iter().map(|stored| stored.into_weight(mx));
        let mut weights = weights.collect::<std::result::Result<Vec<_>, LoadError>>()?;
        if source.kernels() == Kernels::Device {
            return Ok(Self::Stacked(weights.remove(0), bias));
        }
        let each = (0..).zip(weights).map(|(expert, weight)| {
            let bias = bias.as_ref().map(|bias| bias.try_index(expert)?.contiguous()).transpose()?;
            settle(mx, &bias)?;
            Ok(Linear::new(weight, bias))
        });
        Ok(Self::Each(each.collect::<std::result::Result<_, LoadError>>()?))
    }

    /// Those of the host; none on a device.
    fn each(&self) -> &[Linear] {
        match self {
            Self::Each(each) => each,
            Self::Stacked(..) => &[],
        }
    }

    /// `[…, 1, in]` to `[…, 1, out]`, on a device.
    fn product(&self, mx: &Mlx, x: &Array, indices: &Array, sorted: bool) -> Result<Array> {
        let Self::Stacked(weight, bias) = self else {
            return Err(MlxError::backend("experts are apart, expected them stacked".into()));
        };
        let product = weight.gathered(mx, x, indices, sorted)?;
        Ok(match bias {
            Some(bias) => product.add(take_axis(bias, indices, 0)?.expand_dims(-2)?)?,
            None => product,
        })
    }

    fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Each(each) => each.iter().flat_map(Linear::arrays).collect(),
            Self::Stacked(weight, bias) => weight.arrays().into_iter().chain(bias).collect(),
        }
    }
}
