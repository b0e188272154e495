//! DeepSeek V2 and Coder V2, Lite too: attention over latents, which are what is cached, a dense layer, then experts beside one
//! that every token goes to. mlx-lm caches the keys and values that the latents stand for.

use super::prenorm::PreNorm;
use super::{Family, State};
use crate::mlx::config::{
    Defaults, Groups, Head, Latents, ModelConfig, RoutedExperts, Routing, Windows, groups, masks,
};
use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;

/// Its entry in the registry.
pub const FAMILY: Family = Family {
    model_types: &["deepseek_v2"],
    states: &[State::Latent],
    config,
    load: PreNorm::load_with_experts,
};

fn config(fields: Fields<'_>) -> Result<ModelConfig, LoadError> {
    let mut config = Defaults::default().read(fields)?;
    config.head = Head::Separate;
    config.masks = masks(fields, Windows::Never, config.context_tokens)?;
    Latents::default().read(fields, &mut config)?;
    let layers = config.masks.len();
    config.experts = RoutedExperts::default().read(fields, layers, |sizes| routing(fields, sizes))?;
    Ok(config)
}

fn routing(fields: Fields<'_>, [count, chosen]: [usize; 2]) -> Result<Routing, LoadError> {
    fields.refuse_true("norm_topk_prob", "false")?;
    let found = fields.text("scoring_func")?.unwrap_or("softmax");
    if found != "softmax" {
        let (key, found) = ("scoring_func", found.to_owned());
        return Err(LoadError::Unsupported { key, found, expected: "softmax" });
    }
    let groups = match fields.text("topk_method")?.unwrap_or("greedy") {
        // The second is mlx-lm's default.
        "greedy" | "gready" => Groups::ONE,
        "group_limited_greedy" => groups(fields, 1)?.check(count, chosen)?,
        other => {
            let (key, found) = ("topk_method", other.to_owned());
            return Err(LoadError::Unsupported { key, found, expected: "greedy, group_limited_greedy" });
        }
    };
    let factor = fields.number("routed_scaling_factor")?.unwrap_or(1.0) as f32;
    Ok(Routing::SoftmaxThenTop { groups, normalized: false, factor })
}
