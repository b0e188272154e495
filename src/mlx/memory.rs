//! What loading a model takes on the CPU, found before anything is read, and what the machine has.

use bytesize::ByteSize;

use super::error::LoadError;

/// Memory of a model to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryNeed {
    /// The weights, as they stay.
    pub weights_bytes: u64,
    /// What the largest tensor takes besides, while it is brought into the order that the kernels read.
    pub loading_bytes: u64,
    /// What may still be allocated; `None` where the system does not tell.
    pub available_bytes: Option<u64>,
}

impl MemoryNeed {
    /// Of tensors with these sizes.
    pub fn of(tensors: impl Iterator<Item = u64> + Clone) -> Self {
        Self {
            weights_bytes: tensors.clone().sum(),
            loading_bytes: tensors.max().unwrap_or(0),
            available_bytes: available_bytes(),
        }
    }

    /// Fails when there is too little.
    pub fn check(self) -> Result<(), LoadError> {
        match self.available_bytes {
            Some(available) if available < self.weights_bytes + self.loading_bytes => {
                Err(LoadError::Memory(self))
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl std::fmt::Display for MemoryNeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [weights, loading] = [self.weights_bytes, self.loading_bytes].map(ByteSize);
        write!(f, "the weights take {weights} and {loading} more while they are loaded; ")?;
        match self.available_bytes {
            Some(available) => write!(f, "{} are available", ByteSize(available)),
            None => write!(f, "what is available is unknown"),
        }
    }
}

/// Memory of the machine, or of the control group where that is less.
fn available_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let machine = system.available_memory();
    Some(system.cgroup_limits().map_or(machine, |limits| limits.free_memory.min(machine)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_the_numbers() {
        let need = |available_bytes| MemoryNeed {
            available_bytes,
            ..MemoryNeed::of([3 << 30, 1 << 30].into_iter())
        };
        need(Some(7 << 30)).check().unwrap();
        need(None).check().unwrap();
        let error = need(Some((7 << 30) - 1)).check().unwrap_err().to_string();
        for number in ["4.0 GiB", "3.0 GiB", "7.0 GiB"] {
            assert!(error.contains(number), "{error}");
        }
    }
}
