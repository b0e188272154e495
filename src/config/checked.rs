//! The configuration that the rest of the process uses: every value in range, sizes in bytes, all faults named.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file::{self, File, Overrides};
use super::size::Size;
use crate::wording::plain;

/// Checked values. Units are in the names.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Further names of the model.
    pub names: Vec<String>,
    /// Keys that requests must carry; none: every request is served.
    pub api_keys: Vec<String>,
    /// Requests a minute that a key may make; 0: any number.
    pub key_requests_per_minute: u32,
    /// Answers that a key may have in the making; 0: any number.
    pub key_concurrent_requests: u32,
    /// Origins whose pages may ask.
    pub cors_origins: Vec<String>,
    /// The key for what concerns every tenant; `None`: that is refused.
    pub admin_key: Option<String>,
    /// Largest request body.
    pub body_limit_bytes: usize,
    /// Silence in a stream before a comment is sent; `None` sends none.
    pub keepalive: Option<Duration>,
    /// What running answers get after SIGTERM.
    pub drain: Duration,
    /// What a model and its rows may take of a device that has memory of its own.
    pub device_budget: Size,
    /// What stored responses may take; 0 stores none.
    pub responses_bytes: u64,
    /// How long a response is stored.
    pub responses_ttl: Duration,
    /// Rows computed together.
    pub max_batch: usize,
    /// Requests that may wait.
    pub queue_limit: usize,
    /// Tokens of a prompt computed at once.
    pub prefill_step_tokens: usize,
    /// Slowdown of running streams that a prompt may cause.
    pub decode_slowdown: f64,
    /// Answer length when a request names none.
    pub max_tokens: usize,
    /// What all rows' KV together may grow to.
    pub live_bytes: u64,
    /// Reuse stops at a prefill step.
    pub exact: bool,
    /// Threads that compute.
    pub threads: usize,
    /// The KV setting as written; the engine checks it against the model.
    pub kv_bits: String,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// `None`: no cache.
    pub cache: Option<CacheConfig>,
    /// Where models come from.
    pub models: ModelsConfig,
    /// Log filter.
    pub log_level: String,
    /// Log as JSON lines.
    pub log_json: bool,
}

/// Where models come from.
#[derive(Clone, Debug)]
pub struct ModelsConfig {
    /// Where the embedded model is unpacked.
    pub unpack_dir: PathBuf,
    /// The Hugging Face cache; `None`: its usual place.
    pub hf_home: Option<PathBuf>,
    /// Token for gated models.
    pub hf_token: Option<String>,
    /// The address of a Hub other than the usual one, without a slash at its end.
    pub hf_endpoint: Option<String>,
    /// Take models from the Hugging Face cache only.
    pub hf_offline: bool,
}

/// The prefix cache's part.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Budget of the resident tier.
    pub ram_bytes: u64,
    /// `None`: nothing is kept on disk.
    pub disk: Option<DiskConfig>,
    /// Blocks unused for so long are removed; `None`: when their room is needed.
    pub idle_ttl: Option<Duration>,
    /// Bytes written to disk in a day; `None`: any number.
    pub daily_write_bytes: Option<u64>,
    /// Share of the budget that pins may take.
    pub pin_share: f64,
    /// Share of the budgets that snapshots may take.
    pub snapshot_share: f64,
    /// A session not used for so long is forgotten.
    pub session_ttl: Duration,
    /// Files with contexts to put at the start.
    pub contexts: Vec<PathBuf>,
}

/// The disk tier's part.
#[derive(Clone, Debug)]
pub struct DiskConfig {
    /// Where blocks are kept.
    pub dir: PathBuf,
    /// Budget in allocated bytes; 0: a share of a file system that does not tell its size.
    pub budget_bytes: u64,
    /// Bytes of the file system that stay free.
    pub free_floor_bytes: u64,
    /// Bytes that may wait to be written.
    pub write_queue_bytes: u64,
    /// Reader threads.
    pub readers: usize,
}

/// All faults of a configuration.
#[derive(Debug, thiserror::Error)]
#[error("{}", .faults.join("\n"))]
pub struct ConfigError {
    /// One text a fault.
    pub faults: Vec<String>,
}

impl ConfigError {
    pub(super) fn file(path: &Path, error: &dyn Display) -> Self {
        Self { faults: vec![format!("{}: {}", path.display(), plain(&error.to_string()))] }
    }

    pub(super) fn default_file(error: &dyn Display) -> Self {
        Self::file(Path::new("config/default.toml"), error)
    }
}

/// Collects faults, so that all are reported at once.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn at_least(&mut self, key: &str, value: usize, least: usize) -> usize {
        if value < least {
            self.0.push(format!("{key} is {value}; expected at least {least}"));
        }
        value
    }

    /// The keys in a file: one a line, empty lines and those that begin with `#` aside.
    fn keys_of(&mut self, path: &Path) -> Vec<String> {
        if path.as_os_str().is_empty() {
            return Vec::new();
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.0.push(format!("server.api_keys_file: {}: {error}", path.display()));
                return Vec::new();
            }
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Vec<String> = lines.map(str::to_owned).collect();
        if keys.is_empty() {
            // Otherwise an emptied file would open the server to everyone.
            self.0.push(format!("server.api_keys_file: {} holds no key", path.display()));
        }
        keys
    }

    fn origins(&mut self, origins: &[String]) {
        for origin in origins.iter().filter(|origin| *origin != "*") {
            let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ', '*'])) {
                let expected = "expected \"*\" or scheme and host, such as \"https://example.org\"";
                self.0.push(format!("server.cors_origins holds {origin:?}; {expected}"));
            }
        }
    }

    /// A level, or a filter whose every part ends with one: a misspelled level would be read as a module's name.
    fn log_filter(&mut self, text: &str) {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let level = |part: &str| {
            let level = part.rsplit('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            LEVELS.contains(&level.as_str())
        };
        if let Some(part) = text.split(',').find(|part| !level(part)) {
            let found = if part.trim() == text.trim() { String::new() } else { format!(" in `{text}`") };
            self.0.push(format!(
                "log.level is `{}`{found}; expected {}, or a filter such as prefixd=debug",
                part.trim(),
                LEVELS.join(", ")
            ));
        }
    }

    fn endpoint(&mut self, address: Option<&str>) -> Option<String> {
        let address = address.filter(|address| !address.is_empty())?.trim_end_matches('/');
        let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
        if !host.is_some_and(|host| !host.is_empty() && !host.contains(char::is_whitespace)) {
            let expected = "expected an address such as https://hub.example.org";
            self.0.push(format!("HF_ENDPOINT is `{address}`; {expected}"));
        }
        Some(address.to_owned())
    }

    fn size(&mut self, key: &str, text: &str, whole_bytes: u64) -> u64 {
        self.unresolved(key, text).of(whole_bytes)
    }

    /// A size whose whole is known later.
    fn unresolved(&mut self, key: &str, text: &str) -> Size {
        text.parse().unwrap_or_else(|error| {
            self.0.push(format!("{key}: {error}"));
            Size::Bytes(0)
        })
    }
}

impl Config {
    /// Reads and checks the configuration that `overrides` ask for.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        Self::check(File::read(overrides)?, overrides)
    }

    /// Checks what was written. All faults come back together.
    fn check(file: File, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut faults = Faults::default();
        let ram_bytes = total_ram_bytes();
        let File { server, scheduler, compute, kv, cache, log } = file;
        let block_tokens = faults.at_least("cache.block_tokens", cache.block_tokens, 16);
        let prefill_step_tokens =
            faults.at_least("scheduler.prefill_step_size", scheduler.prefill_step_size, 16);
        // Written so that NaN is a fault too.
        if !(scheduler.decode_slowdown >= 1.05 && scheduler.decode_slowdown.is_finite()) {
            let found = scheduler.decode_slowdown;
            faults
                .0
                .push(format!("scheduler.decode_slowdown is {found}; expected a number of at least 1.05"));
        }
        if server.api_keys.iter().any(|key| key.trim().is_empty()) {
            faults
                .0
                .push("server.api_keys holds an empty key; expected keys of at least one character".into());
        }
        let mut api_keys = server.api_keys;
        api_keys.extend(faults.keys_of(&server.api_keys_file));
        faults.origins(&server.cors_origins);
        faults.log_filter(&log.level);
        let config = Self {
            host: server.host,
            port: server.port,
            names: server.names,
            api_keys,
            key_requests_per_minute: server.key_requests_per_minute,
            key_concurrent_requests: server.key_concurrent_requests,
            cors_origins: server.cors_origins,
            admin_key: Some(server.admin_key).filter(|key| !key.is_empty()),
            body_limit_bytes: faults.size("server.body_limit", &server.body_limit, ram_bytes) as usize,
            keepalive: (server.keepalive_s > 0).then(|| Duration::from_secs(server.keepalive_s)),
            drain: Duration::from_secs(server.drain_s),
            device_budget: faults.unresolved("server.device_budget", &server.device_budget),
            responses_bytes: faults.size("server.responses_budget", &server.responses_budget, ram_bytes),
            responses_ttl: Duration::from_secs(server.responses_ttl_h.saturating_mul(3600)),
            max_batch: faults.at_least("scheduler.max_batch", scheduler.max_batch, 1),
            queue_limit: faults.at_least("scheduler.queue_limit", scheduler.queue_limit, 1),
            prefill_step_tokens,
            decode_slowdown: scheduler.decode_slowdown,
            max_tokens: faults.at_least("scheduler.max_tokens", scheduler.max_tokens, 1),
            live_bytes: faults.size("scheduler.live_budget", &scheduler.live_budget, ram_bytes),
            exact: scheduler.exact,
            threads: if compute.threads == 0 { cores() } else { compute.threads },
            kv_bits: kv.bits,
            block_tokens,
            cache: check_cache(cache, ram_bytes, &mut faults),
            models: ModelsConfig {
                unpack_dir: user_dir().join("models"),
                hf_home: overrides.hf_home.clone(),
                hf_token: overrides.hf_token.clone(),
                hf_endpoint: faults.endpoint(overrides.hf_endpoint.as_deref()),
                hf_offline: overrides.hf_offline,
            },
            log_level: log.level,
            log_json: log.json,
        };
        if faults.0.is_empty() { Ok(config) } else { Err(ConfigError { faults: faults.0 }) }
    }
}

/// Readers where the machine decides their number, at most. A guess: more than four were never measured.
const MOST_READERS: usize = 16;

fn check_cache(cache: file::Cache, ram_bytes: u64, faults: &mut Faults) -> Option<CacheConfig> {
    let readers = if cache.readers == 0 { cores().clamp(2, MOST_READERS) } else { cache.readers };
    for (key, found) in [("pin_share", cache.pin_share), ("snapshot_share", cache.snapshot_share)] {
        if !(0.0..=1.0).contains(&found) {
            faults.0.push(format!("cache.{key} is {found}; expected a number from 0 to 1"));
        }
    }
    faults.at_least("cache.session_ttl_m", usize::try_from(cache.session_ttl_m).unwrap_or(usize::MAX), 1);
    let resident_bytes = faults.size("cache.ram_budget", &cache.ram_budget, ram_bytes);
    let write_queue_bytes = faults.size("cache.write_queue", &cache.write_queue, ram_bytes);
    let dir = if cache.dir.as_os_str().is_empty() { user_dir().join("prefixes") } else { cache.dir };
    let disk_bytes = total_disk_bytes(&dir);
    let budget_bytes = faults.size("cache.disk_budget", &cache.disk_budget, disk_bytes);
    let free_floor_bytes = faults.size("cache.disk_free_floor", &cache.disk_free_floor, disk_bytes);
    let daily_write_bytes = faults.size("cache.daily_writes", &cache.daily_writes, disk_bytes);
    let disk = DiskConfig { dir, budget_bytes, free_floor_bytes, write_queue_bytes, readers };
    cache.enabled.then_some(CacheConfig {
        ram_bytes: resident_bytes,
        // A share of nothing is kept, for the cache to say so.
        disk: (budget_bytes > 0 || (disk_bytes == 0 && is_share(&cache.disk_budget))).then_some(disk),
        idle_ttl: (cache.idle_ttl_h > 0).then(|| Duration::from_secs(cache.idle_ttl_h.saturating_mul(3600))),
        daily_write_bytes: (daily_write_bytes > 0).then_some(daily_write_bytes),
        pin_share: cache.pin_share,
        snapshot_share: cache.snapshot_share,
        contexts: cache.contexts,
        session_ttl: Duration::from_secs(cache.session_ttl_m.saturating_mul(60)),
    })
}

fn is_share(text: &str) -> bool {
    matches!(text.parse(), Ok(Size::Share(share)) if share > 0.0)
}

/// The user's cache directory of this program; a temporary one for users without a home.
fn user_dir() -> PathBuf {
    directories::ProjectDirs::from("", "", "prefixd")
        .map_or_else(|| std::env::temp_dir().join("prefixd"), |dirs| dirs.cache_dir().to_owned())
}

/// RAM of the machine, or of the control group where that is less. 0 when the system does not tell: then shares of it
/// are 0 and sizes must be given in bytes.
fn total_ram_bytes() -> u64 {
    let Ok(mut system) = sysinfo::System::new() else { return 0 };
    system.refresh_memory();
    system
        .cgroup_limits()
        .map_or(system.total_memory(), |limits| limits.total_memory.min(system.total_memory()))
}

/// Cores that this process may use: neither a second thread of one core, nor more than the control group's quota.
fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    sysinfo::System::physical_core_count().map_or(allowed, |cores| cores.clamp(1, allowed))
}

/// The size of the file system that holds `dir`, or its nearest ancestor that exists.
fn total_disk_bytes(dir: &Path) -> u64 {
    dir.ancestors().find_map(|place| fs4::total_space(place).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prefixd.toml");
        std::fs::write(&path, text).unwrap();
        let overrides =
            Overrides { config: Some(path), cache_dir: Some(dir.path().into()), ..Overrides::default() };
        Config::load(&overrides)
    }

    #[test]
    fn the_default_file_is_complete_and_valid() {
        let config = written("").unwrap();
        assert_eq!((config.port, config.block_tokens, config.kv_bits.as_str()), (8000, 256, "k8v4"));
        assert!(config.cache.unwrap().disk.unwrap().budget_bytes > 0);
    }

    #[test]
    fn a_file_wins_over_the_default_and_a_flag_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prefixd.toml");
        std::fs::write(&path, "[server]\nport = 1\nhost = \"::1\"\n").unwrap();
        let overrides =
            Overrides { config: Some(path), port: Some(2), no_cache: true, ..Overrides::default() };
        let config = Config::load(&overrides).unwrap();
        assert_eq!((config.host.as_str(), config.port), ("::1", 2));
        assert!(config.cache.is_none());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = written("[server]\nprot = 1\n").unwrap_err().to_string();
        assert!(error.contains("prot"), "{error}");
    }

    #[test]
    fn keys_come_from_a_file_too_and_a_file_without_keys_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let with = |text: &str| {
            std::fs::write(&path, text).unwrap();
            written(&format!("[server]\napi_keys = [\"one\"]\napi_keys_file = {path:?}\n"))
        };
        assert_eq!(with("# of the team\n two \n\nthree\n").unwrap().api_keys, ["one", "two", "three"]);
        assert!(with("# none\n").unwrap_err().to_string().contains("holds no key"));
        std::fs::remove_file(&path).unwrap();
        let missing = written(&format!("[server]\napi_keys_file = {path:?}\n")).unwrap_err().to_string();
        assert!(missing.contains("server.api_keys_file"), "{missing}");
    }

    #[test]
    fn a_level_that_is_none_is_refused_and_a_filter_is_fine() {
        let with = |level: &str| written(&format!("[log]\nlevel = {level:?}\n"));
        for fine in ["info", "WARN", "off", "prefixd=debug", "warn,prefixd::api=trace"] {
            assert!(with(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "verbose", "inof", "prefixd", "info,prefixd=loud"] {
            let error = with(wrong).unwrap_err().to_string();
            assert!(error.contains("log.level") && error.contains("debug, trace"), "{error}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_without_names_of_types() {
        for (text, word) in [
            ("[server]\nport = \"x\"\n", "integer from 0 to 65535"),
            ("[scheduler]\nmax_batch = []\n", "integer of at least 0"),
            ("[cache]\nenabled = 1\n", "true or false"),
        ] {
            let error = written(text).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            for name in ["u16", "usize", "u64", "struct", "boolean"] {
                assert!(!error.contains(name), "{error}");
            }
        }
    }

    #[test]
    fn a_hub_has_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let load = |address: &str| {
            let cache_dir = Some(dir.path().into());
            Config::load(&Overrides { hf_endpoint: Some(address.into()), cache_dir, ..Overrides::default() })
        };
        assert_eq!(
            load("http://[::1]:8080/").unwrap().models.hf_endpoint.as_deref(),
            Some("http://[::1]:8080")
        );
        assert_eq!(load("").unwrap().models.hf_endpoint, None);
        for wrong in ["hub", "ftp://hub", "https://", "https://a b"] {
            let error = load(wrong).unwrap_err().to_string();
            assert!(error.contains("HF_ENDPOINT"), "{error}");
        }
    }

    #[test]
    fn an_origin_is_scheme_and_host() {
        assert!(
            written("[server]\ncors_origins = [\"*\", \"https://example.org\", \"http://localhost:3000\"]\n")
                .is_ok()
        );
        for wrong in ["example.org", "https://", "https://example.org/", "https://*.org", ""] {
            let error = written(&format!("[server]\ncors_origins = [{wrong:?}]\n")).unwrap_err().to_string();
            assert!(error.contains("server.cors_origins"), "{error}");
        }
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let error = written("[scheduler]\nmax_batch = 0\ndecode_slowdown = nan\n[cache]\nram_budget = \"lots\"\nblock_tokens = 1\npin_share = 1.5\nsnapshot_share = nan\n")
            .unwrap_err();
        assert_eq!(error.faults.len(), 6, "{error}");
        for key in [
            "scheduler.max_batch",
            "scheduler.decode_slowdown",
            "cache.ram_budget",
            "cache.block_tokens",
            "cache.pin_share",
            "cache.snapshot_share",
        ] {
            assert!(error.to_string().contains(key), "{error}");
        }
    }
}
