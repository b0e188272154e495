//! Rotary positions: their base and how they are stretched, from older and newer files.

use serde_json::Value;

use crate::mlx::error::LoadError;
use crate::mlx::fields::Fields;
use crate::mlx::rope::{LongQueries, LongRope, RopeConfig, Scaling, Yarn};

/// What can be given as a type of `rope_scaling`.
const TYPES: &str = "default, linear, llama3, yarn, longrope, proportional";

/// `rope_theta`, of newer files within `rope_parameters`.
pub fn base_of(fields: Fields<'_>) -> Result<Option<f64>, LoadError> {
    let nested = fields.0.get("rope_parameters").filter(|value| value.is_object());
    let nested = nested.map(|parameters| Fields(parameters).number("rope_theta")).transpose()?.flatten();
    Ok(fields.number("rope_theta")?.or(nested))
}

/// Rotation of heads of `width` elements: stretched by `rope_scaling`, or by `rope_parameters` of newer files (nested by
/// `kind` where layers differ). `base` holds when no file says otherwise, `context_tokens` is the longest sequence.
pub fn rotation(
    fields: Fields<'_>,
    width: usize,
    base: f64,
    context_tokens: usize,
    kind: Option<&str>,
) -> Result<RopeConfig, LoadError> {
    let parameters = fields.0.get("rope_parameters").filter(|value| value.is_object());
    let parameters = parameters.and_then(|value| kind.and_then(|kind| value.get(kind)).or(Some(value)));
    let mut rope = RopeConfig::plain(width, base);
    let nested = parameters.map(|parameters| Fields(parameters).number("rope_theta")).transpose()?.flatten();
    rope.base = fields.number("rope_theta")?.or(nested).unwrap_or(base);
    let own = fields.0.get("rope_scaling").filter(|value| !value.is_null());
    let scaling = own.map(|own| ("rope_scaling", own)).or(parameters.map(|all| ("rope_parameters", all)));
    if let Some((key, scaling)) = scaling {
        rope.scaling = parse_scaling(key, scaling, fields, context_tokens)?;
        rope.long_queries = long_queries(Fields(scaling))?;
    }
    let nested = parameters.map(|parameters| Fields(parameters).number("partial_rotary_factor"));
    let partial = fields.number("partial_rotary_factor")?.or(nested.transpose()?.flatten()).unwrap_or(1.0);
    rope.dims = (width as f64 * partial) as usize;
    if !(partial > 0.0 && partial <= 1.0 && rope.dims >= 2 && rope.dims.is_multiple_of(2)) {
        return Err(LoadError::Config(format!(
            "partial_rotary_factor is {partial}, expected one that turns an even number of the head's {width} elements"
        )));
    }
    if let Scaling::Proportional { turned, .. } = &mut rope.scaling {
        // The pairs that do not turn are pairs all the same: of an element and that half a head behind it.
        *turned = rope.dims / 2;
        rope.dims = width;
    }
    match &rope.scaling {
        Scaling::LongRope(long) if long.pairs() != rope.dims / 2 => Err(LoadError::Config(format!(
            "long_factor has {} numbers, expected {}: one for each pair of elements that turn",
            long.pairs(),
            rope.dims / 2
        ))),
        _ => Ok(rope),
    }
}

/// The scaling that the value of `key` describes.
pub fn parse_scaling(
    key: &str,
    value: &Value,
    root: Fields<'_>,
    context_tokens: usize,
) -> Result<Scaling, LoadError> {
    let scaling = Fields(value);
    let kind = scaling.text("type")?.or(scaling.text("rope_type")?);
    let keys = value.as_object().map(|object| object.keys().map(String::as_str));
    let typeless =
        keys.is_none_or(|mut keys| keys.any(|key| !matches!(key, "rope_theta" | "partial_rotary_factor")));
    if kind.is_none() && typeless {
        return Err(LoadError::Config(format!(
            "{key} is {value}; expected an object with a rope_type: {TYPES}"
        )));
    }
    let positive = |key: &str| {
        let missing = || LoadError::Config(format!("rope_scaling without a positive {key}"));
        scaling.number(key)?.filter(|value| *value > 0.0).ok_or_else(missing)
    };
    let original = || match scaling.number("original_max_position_embeddings")? {
        Some(tokens) => Ok(Some(tokens)),
        None => root.number("original_max_position_embeddings"),
    };
    let or = |key, default| Ok::<_, LoadError>(scaling.number(key)?.unwrap_or(default));
    match kind.unwrap_or("default") {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear { factor: positive("factor")? }),
        "llama3" => Ok(Scaling::Llama3 {
            factor: positive("factor")?,
            low: or("low_freq_factor", 1.0)?,
            high: or("high_freq_factor", 4.0)?,
            original_tokens: original()?.unwrap_or(8192.0),
        }),
        "yarn" => {
            let yarn = Yarn {
                factor: positive("factor")?,
                original_tokens: original()?.unwrap_or(4096.0),
                fast: or("beta_fast", 32.0)?,
                slow: or("beta_slow", 1.0)?,
                mscale: or("mscale", 1.0)?,
                mscale_all_dim: or("mscale_all_dim", 0.0)?,
            };
            let amplitude = yarn.amplitude();
            match scaling.number("attention_factor")? {
                Some(asked) if (asked - amplitude).abs() > 1e-3 => Err(LoadError::Config(format!(
                    "rope_scaling's attention_factor is {asked}, expected none or {amplitude}"
                ))),
                _ => Ok(Scaling::Yarn(yarn)),
            }
        }
        "longrope" | "su" => {
            let missing = |key| LoadError::Config(format!("rope_scaling of type longrope without {key}"));
            let factors = scaling.0.get("long_factor").and_then(Value::as_array);
            let factors = factors.ok_or_else(|| missing("a list long_factor"))?;
            let factors: Option<Vec<f64>> = factors.iter().map(Value::as_f64).collect();
            let factors = factors.ok_or_else(|| missing("numbers in long_factor"))?;
            let original = original()?.ok_or_else(|| missing("original_max_position_embeddings"))?;
            Ok(Scaling::LongRope(LongRope::new(factors, context_tokens as f64 / original, original)))
        }
        "proportional" => Ok(Scaling::Proportional { factor: or("factor", 1.0)?, turned: 0 }),
        "dynamic" => Err(LoadError::Unsupported {
            key: "rope_scaling",
            found:
                "dynamic: it turns keys by an angle that depends on the current length, so keys kept from a \
                    shorter prompt would be wrong"
                    .into(),
            expected: TYPES,
        }),
        other => {
            Err(LoadError::Unsupported { key: "rope_scaling", found: other.to_owned(), expected: TYPES })
        }
    }
}

/// What queries far into a sequence are multiplied by, where the model was trained with it.
fn long_queries(scaling: Fields<'_>) -> Result<Option<LongQueries>, LoadError> {
    let Some(beta) = scaling.number("llama_4_scaling_beta")? else { return Ok(None) };
    let original_tokens = scaling.need("original_max_position_embeddings")?;
    if original_tokens == 0 {
        return Err(LoadError::Config("original_max_position_embeddings is 0".into()));
    }
    Ok(Some(LongQueries { beta, original_tokens }))
}
