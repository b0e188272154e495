//! Configuration: as written ([`file`]), then checked ([`Config`]).
//!
//! 1. Precedence: flag, environment (`PREFIXD_*`), file, `config/default.toml`.
//! 2. An unknown key is refused, and all faults are reported at once.
//! 3. Nothing else in the process reads the environment, but for what systemd puts there for its services (`service`).

mod checked;
mod file;
mod mlx;
mod size;

pub use checked::{CacheConfig, Config, ConfigError, DiskConfig, ModelsConfig};
pub use file::Overrides;
pub use mlx::prepare_mlx;
pub use size::Size;
