//! The matrices of experts: as Hugging Face stores them, put into MLX's form, where all of a layer lie in one tensor for each matrix.

use mlx_rs::ops::indexing::TryIndexOp;

use super::Weights;
use crate::mlx::error::LoadError;
use crate::mlx::gate::Mlx;

impl Weights {
    /// Takes module `path` of experts, whose tensor `gate_up_proj` has `width` rows of gates and then as many of ups for each, and
    /// whose `down_proj` is a tensor as well, apart into the three matrices of module `to`: Hugging Face's form, and MLX's. Nothing
    /// happens where they are not there.
    pub fn split_experts(&mut self, _: &Mlx, path: &str, to: &str, width: usize) -> Result<(), LoadError> {
        let (both, width) = (format!("{path}.gate_up_proj"), width as i32);
        if let Some(array) = self.tensors.remove(&both) {
            if array.ndim() != 3 || array.dim(1) != 2 * width {
                let found = array.shape();
                return Err(LoadError::Weights(format!(
                    "{both} has shape {found:?}, expected {} rows for each expert",
                    2 * width
                )));
            }
            for (part, from) in [("gate_proj", 0), ("up_proj", width)] {
                let own = array.try_index((.., from..from + width))?.contiguous()?;
                self.tensors.insert(format!("{to}.{part}.weight"), own);
            }
        }
        if let Some(down) = self.tensors.remove(&format!("{path}.down_proj")) {
            self.tensors.insert(format!("{to}.down_proj.weight"), down);
        }
        Ok(())
    }

    /// Puts the matrices of `count` experts of each layer together, as MLX stores them: Hugging Face has each expert's alone.
    pub fn stack_experts(&mut self, mx: &Mlx, layers: usize, count: usize) -> Result<(), LoadError> {
        (0..layers)
            .try_for_each(|layer| self.stack_experts_of(mx, &format!("model.layers.{layer}.mlp"), count))
    }

    /// The same for the experts of module `mlp`.
    pub fn stack_experts_of(&mut self, mx: &Mlx, mlp: &str, count: usize) -> Result<(), LoadError> {
        for matrix in ["gate_proj", "up_proj", "down_proj"] {
            let each = (0..count).map(|expert| format!("{mlp}.experts.{expert}.{matrix}.weight"));
            self.stack(mx, &each.collect::<Vec<_>>(), format!("{mlp}.switch_mlp.{matrix}.weight"))?;
        }
        Ok(())
    }

    /// Replaces tensors by one that stacks them in order. Nothing happens when none of them is there.
    fn stack(&mut self, _: &Mlx, names: &[String], whole: String) -> Result<(), LoadError> {
        if !names.iter().any(|name| self.contains(name)) {
            return Ok(());
        }
        let each = names.iter().map(|name| {
            self.tensors.remove(name).ok_or_else(|| LoadError::Weights(format!("{name} is missing")))
        });
        let each = each.collect::<Result<Vec<_>, _>>()?;
        let stacked = mlx_rs::ops::stack(&each, 0)
            .map_err(|error| LoadError::Weights(format!("{} and its like: {error}", names[0])))?;
        self.tensors.insert(whole, stacked);
        Ok(())
    }
}
