//! The configuration as written: `config/default.toml`, overlaid by a file, overlaid by flags and environment.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::checked::ConfigError;

/// The complete default file, with comments.
const DEFAULT: &str = include_str!("../../config/default.toml");

/// Flags and environment variables, in that precedence; what is `None` leaves the file's value.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Overrides {
    /// Address to listen on [default: 127.0.0.1]
    #[arg(help_heading = "Server", long, env = "PREFIXD_HOST")]
    pub host: Option<String>,
    /// Port to listen on; 0 takes a free one [default: 8000]
    #[arg(help_heading = "Server", long, env = "PREFIXD_PORT")]
    pub port: Option<u16>,
    /// A further model name that requests may use (repeatable)
    #[arg(
        help_heading = "Server",
        long = "served-model-name",
        env = "PREFIXD_SERVED_MODEL_NAME",
        value_delimiter = ','
    )]
    pub names: Vec<String>,
    /// A key that requests must carry (repeatable); each is a tenant of its own
    #[arg(
        help_heading = "Server",
        long = "api-key",
        env = "PREFIXD_API_KEY",
        value_delimiter = ',',
        hide_env_values = true
    )]
    pub api_keys: Vec<String>,
    /// A file of further keys, one a line
    #[arg(help_heading = "Server", long, env = "PREFIXD_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,
    /// The key for what concerns every tenant, such as emptying the cache; without one that is refused
    #[arg(
        help_heading = "Server",
        long,
        env = "PREFIXD_ADMIN_KEY",
        value_name = "KEY",
        hide_env_values = true
    )]
    pub admin_key: Option<String>,
    /// Where prefix blocks are kept [default: the user's cache directory]
    #[arg(help_heading = "Cache", long, env = "PREFIXD_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Memory for prefix blocks, such as 4GB or 20% [default: 20%]
    #[arg(help_heading = "Cache", long, env = "PREFIXD_RAM_BUDGET", value_name = "SIZE")]
    pub ram_budget: Option<String>,
    /// Disk space for prefix blocks, such as 50GB or 10%; 0 keeps none on disk [default: 10%]
    #[arg(help_heading = "Cache", long, env = "PREFIXD_DISK_BUDGET", value_name = "SIZE")]
    pub disk_budget: Option<String>,
    /// Threads that compute; 0: one for each core [default: 0]
    #[arg(help_heading = "Computing", long, env = "PREFIXD_THREADS", value_name = "THREADS")]
    pub threads: Option<usize>,
    /// Bits of K and V: k8v4, 16, 8 or 4 [default: k8v4]
    #[arg(help_heading = "Computing", long, env = "PREFIXD_KV_BITS", value_name = "BITS")]
    pub kv_bits: Option<String>,
    /// Tokens of a prompt computed between two decode steps [default: 512]
    #[arg(help_heading = "Computing", long, env = "PREFIXD_PREFILL_STEP_SIZE", value_name = "TOKENS")]
    pub prefill_step_size: Option<usize>,
    /// Sequences computed together [default: 8]
    #[arg(help_heading = "Computing", long, env = "PREFIXD_MAX_BATCH", value_name = "ROWS")]
    pub max_batch: Option<usize>,
    /// Answer length when a request names none [default: 2048]
    #[arg(help_heading = "Computing", long, env = "PREFIXD_MAX_TOKENS", value_name = "TOKENS")]
    pub max_tokens: Option<usize>,
    /// Warm prefills compute the same chunks as cold ones; reuse stops at a multiple of the prefill step
    #[arg(help_heading = "Computing", long, env = "PREFIXD_EXACT", value_parser = clap::builder::FalseyValueParser::new())]
    pub exact: bool,
    /// Reuse nothing and keep nothing
    #[arg(help_heading = "Cache", long, env = "PREFIXD_NO_CACHE", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_cache: bool,
    /// error, warn, info, debug, trace, or a filter [default: info]
    #[arg(help_heading = "Log and configuration", long, env = "PREFIXD_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// A configuration file
    #[arg(help_heading = "Log and configuration", long, env = "PREFIXD_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the Hugging Face cache is
    #[arg(help_heading = "Model", long, env = "HF_HOME", value_name = "DIR", hide = true)]
    pub hf_home: Option<PathBuf>,
    /// Token for gated models
    #[arg(
        help_heading = "Model",
        long,
        env = "HF_TOKEN",
        value_name = "TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub hf_token: Option<String>,
    /// Address of a Hub other than the usual one
    #[arg(help_heading = "Model", long, env = "HF_ENDPOINT", value_name = "URL", hide = true)]
    pub hf_endpoint: Option<String>,
    /// Take models from the Hugging Face cache only
    #[arg(help_heading = "Model", long = "offline", env = "HF_HUB_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    pub hf_offline: bool,
}

/// The file's tables. Field names are the file's keys; `config/default.toml` documents them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct File {
    pub server: Server,
    pub scheduler: Scheduler,
    pub compute: Compute,
    pub kv: Kv,
    pub cache: Cache,
    pub log: Log,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub names: Vec<String>,
    pub api_keys: Vec<String>,
    pub api_keys_file: PathBuf,
    pub admin_key: String,
    pub key_requests_per_minute: u32,
    pub key_concurrent_requests: u32,
    pub cors_origins: Vec<String>,
    pub body_limit: String,
    pub keepalive_s: u64,
    pub drain_s: u64,
    pub device_budget: String,
    pub responses_budget: String,
    pub responses_ttl_h: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Scheduler {
    pub max_batch: usize,
    pub queue_limit: usize,
    pub prefill_step_size: usize,
    pub decode_slowdown: f64,
    pub max_tokens: usize,
    pub live_budget: String,
    pub exact: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Compute {
    pub threads: usize,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Kv {
    pub bits: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Cache {
    pub enabled: bool,
    pub dir: PathBuf,
    pub block_tokens: usize,
    pub ram_budget: String,
    pub disk_budget: String,
    pub disk_free_floor: String,
    pub write_queue: String,
    pub readers: usize,
    pub idle_ttl_h: u64,
    pub pin_share: f64,
    pub snapshot_share: f64,
    pub session_ttl_m: u64,
    pub contexts: Vec<PathBuf>,
    pub daily_writes: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Log {
    pub level: String,
    pub json: bool,
}

impl File {
    /// Reads the default, the file that `overrides` names, and the overrides, in rising precedence.
    pub fn read(overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut table: toml::Table =
            toml::from_str(DEFAULT).map_err(|error| ConfigError::default_file(&error))?;
        if let Some(path) = &overrides.config {
            let text = std::fs::read_to_string(path).map_err(|error| ConfigError::file(path, &error))?;
            let given: toml::Table =
                toml::from_str(&text).map_err(|error| ConfigError::file(path, &error))?;
            overlay(&mut table, given);
        }
        let origin = overrides.config.as_deref().unwrap_or(Path::new("config/default.toml"));
        let mut file: Self =
            table.try_into().map_err(|error: toml::de::Error| ConfigError::file(origin, &error))?;
        file.apply(overrides.clone());
        Ok(file)
    }

    fn apply(&mut self, overrides: Overrides) {
        fn set<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        set(&mut self.server.host, overrides.host);
        set(&mut self.server.port, overrides.port);
        set(&mut self.server.admin_key, overrides.admin_key);
        set(&mut self.server.api_keys_file, overrides.api_keys_file);
        set(&mut self.cache.dir, overrides.cache_dir);
        set(&mut self.cache.ram_budget, overrides.ram_budget);
        set(&mut self.cache.disk_budget, overrides.disk_budget);
        set(&mut self.compute.threads, overrides.threads);
        set(&mut self.kv.bits, overrides.kv_bits);
        set(&mut self.scheduler.prefill_step_size, overrides.prefill_step_size);
        set(&mut self.scheduler.max_batch, overrides.max_batch);
        set(&mut self.scheduler.max_tokens, overrides.max_tokens);
        set(&mut self.log.level, overrides.log_level);
        self.server.names.extend(overrides.names);
        self.server.api_keys.extend(overrides.api_keys);
        self.scheduler.exact |= overrides.exact;
        self.cache.enabled &= !overrides.no_cache;
    }
}

/// Lays `above` over `below`, table by table.
fn overlay(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(lower)), toml::Value::Table(upper)) => overlay(lower, upper),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};

    use super::*;

    /// Where the value of each flag whose help tells a default is in the default file.
    const DEFAULTS: [(&str, &str); 9] = [
        ("host", "/server/host"),
        ("port", "/server/port"),
        ("ram-budget", "/cache/ram_budget"),
        ("disk-budget", "/cache/disk_budget"),
        ("kv-bits", "/kv/bits"),
        ("prefill-step-size", "/scheduler/prefill_step_size"),
        ("max-batch", "/scheduler/max_batch"),
        ("max-tokens", "/scheduler/max_tokens"),
        ("log-level", "/log/level"),
    ];

    #[test]
    fn help_tells_the_defaults_of_the_file_and_every_flag_has_a_group() {
        let command = Overrides::augment_args(Command::new("prefixd"));
        let table: toml::Table = toml::from_str(DEFAULT).unwrap();
        let file = serde_json::to_value(table).unwrap();
        let mut told = 0;
        for argument in command.get_arguments() {
            let flag = argument.get_long().unwrap();
            assert!(argument.get_help_heading().is_some(), "{flag}");
            let help = argument.get_help().unwrap().to_string();
            if let Some((_, place)) = DEFAULTS.iter().find(|(name, _)| *name == flag) {
                let value = file.pointer(place).unwrap();
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                assert!(help.contains(&format!("[default: {value}]")), "--{flag}: {help}");
                told += 1;
            }
        }
        assert_eq!(told, DEFAULTS.len());
    }
}
