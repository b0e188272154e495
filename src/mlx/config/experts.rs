//! Experts under the names that DeepSeek gave them: behind some dense layers, and beside an MLP that every token goes to.

use super::{Experts, Groups, Routing};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// What a family's configurations may leave out, and what then holds.
#[derive(Clone, Copy, Default)]
pub struct RoutedExperts {
    /// `n_routed_experts`; `None`: the model has none.
    pub count: Option<usize>,
    /// `num_experts_per_tok`; `None`: it must be there.
    pub chosen: Option<usize>,
    /// `moe_intermediate_size`; `None`: it must be there.
    pub width: Option<usize>,
    /// `n_shared_experts`.
    pub shared: Option<usize>,
    /// `first_k_dense_replace`.
    pub dense: usize,
}

impl RoutedExperts {
    /// The experts of a model of `layers`, chosen as `routing` says, which is told how many there are and how many of them
    /// a token goes to.
    pub fn read(
        &self,
        fields: Fields<'_>,
        layers: usize,
        routing: impl FnOnce([usize; 2]) -> Result<Routing, LoadError>,
    ) -> Result<Option<Experts>, LoadError> {
        let Some(count) = fields.count("n_routed_experts")?.or(self.count) else { return Ok(None) };
        let or = |key, default: Option<usize>| match default {
            Some(default) => Ok(fields.count(key)?.unwrap_or(default)),
            None => fields.need(key),
        };
        let chosen = or("num_experts_per_tok", self.chosen)?;
        let width = or("moe_intermediate_size", self.width)?;
        let dense = or("first_k_dense_replace", Some(self.dense))?;
        let every = or("moe_layer_freq", Some(1))?;
        if every == 0 {
            return Err(LoadError::Config("moe_layer_freq is 0, expected at least 1".into()));
        }
        let shared = fields.count("n_shared_experts")?.or(self.shared);
        Ok(Some(Experts {
            count,
            chosen,
            width,
            routing: routing([count, chosen])?,
            layers: (0..layers).map(|layer| layer >= dense && layer.is_multiple_of(every)).collect(),
            module: "mlp.switch_mlp",
            router: "mlp.gate",
            bias: false,
            scales: None,
            shared: shared.map(|shared| ("mlp.shared_experts", shared * width)),
            shared_gate: None,
            narrow: None,
        }))
    }
}

/// What a router by scores between 0 and 1 does where its configuration does not say.
#[derive(Clone, Copy)]
pub struct Router {
    /// `norm_topk_prob`.
    pub normalized: bool,
    /// `routed_scaling_factor`.
    pub factor: f64,
}

impl Router {
    /// The routing for so many experts, of which a token goes to so many.
    pub fn read(&self, fields: Fields<'_>, [count, chosen]: [usize; 2]) -> Result<Routing, LoadError> {
        fields.refuse_other("scoring_func", "sigmoid")?;
        fields.refuse_other("topk_method", "noaux_tc")?;
        Ok(Routing::Sigmoid {
            groups: groups(fields, 2)?.check(count, chosen)?,
            normalized: fields.flag("norm_topk_prob")?.unwrap_or(self.normalized),
            factor: fields.number("routed_scaling_factor")?.unwrap_or(self.factor) as f32,
        })
    }
}

/// `topk_group` of `n_group` groups, each judged by so many of its best; one of one where a file does not say.
pub fn groups(fields: Fields<'_>, judged_by: usize) -> Result<Groups, LoadError> {
    let [count, chosen] = ["n_group", "topk_group"].map(|key| fields.count(key));
    Ok(Groups { count: count?.unwrap_or(1), chosen: chosen?.unwrap_or(1), judged_by })
}
