//! What a Prometheus server scrapes: `GET /metrics`, in the OpenMetrics text format.
//!
//! Durations are observed where answers are taken from the scheduler; everything else is read from the scheduler's own
//! snapshot at the time of the scrape, so that nothing is counted twice. Sums over all tenants.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, get, web};
use prefixd_cache::{CacheStats, DiskStats, SnapshotStats, TierStats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::error::ApiError;
use super::openapi::AdminRefusals;
use crate::scheduler::{BatchSizes, PromptUsage, RestoreParts, Status};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Adds the route.
pub fn configure(config: &mut ServiceConfig) {
    config.service(metrics);
}

/// Durations of answers. Cheap to share.
#[derive(Debug)]
pub struct Durations {
    first_token: Histogram,
    inter_token: Histogram,
    queue: Histogram,
    restore: Histogram,
    restore_parts: Family<Label, Histogram, fn() -> Histogram>,
    prefill: Histogram,
}

type Label = [(&'static str, &'static str); 1];

impl Default for Durations {
    fn default() -> Self {
        // 0.5 ms to about 4 minutes.
        let histogram = || Histogram::new(exponential_buckets(0.0005, 2.0, 20));
        // 10 us to about 40 s.
        let of_part = || Histogram::new(exponential_buckets(1e-5, 4.0, 12));
        let restore_parts: Family<Label, Histogram, _> =
            Family::new_with_constructor(of_part as fn() -> Histogram);
        // Each is told from the start on, if only as 0.
        for part in ["lookup", "read", "verify", "import"] {
            drop(restore_parts.get_or_create(&[("part", part)]));
        }
        Self {
            first_token: histogram(),
            inter_token: histogram(),
            queue: histogram(),
            restore: histogram(),
            restore_parts,
            prefill: histogram(),
        }
    }
}

impl Durations {
    /// A prompt is computed.
    pub fn note_prompt(&self, usage: &PromptUsage) {
        self.queue.observe(usage.queue_ms / 1e3);
        self.prefill.observe(usage.prefill_ms / 1e3);
        if usage.cached_tokens > 0 {
            self.restore.observe(usage.restore_ms / 1e3);
            let RestoreParts { lookup_ms, read_ms, verify_ms, import_ms } = usage.restore_parts;
            self.note_part("lookup", lookup_ms);
            if usage.disk_tokens > 0 {
                self.note_part("read", read_ms);
                self.note_part("verify", verify_ms);
            }
            self.note_part("import", import_ms);
        }
    }

    fn note_part(&self, part: &'static str, ms: f64) {
        self.restore_parts.get_or_create(&[("part", part)]).observe(ms / 1e3);
    }

    /// The first token came, so long after the request was handed in.
    pub fn note_first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    /// Another token came, so long after the one before it.
    pub fn note_token(&self, after: Duration) {
        self.inter_token.observe(after.as_secs_f64());
    }
}

/// Everything that is counted, in the `OpenMetrics` text format.
#[utoipa::path(
    tag = "server",
    security((), ("x-admin-key" = [])),
    responses(
        (status = 200, description = "The metrics", content_type = "application/openmetrics-text", body = String),
        AdminRefusals
    )
)]
#[get("/metrics")]
async fn metrics(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    if !state.settings.keys.is_empty() {
        state.settings.admin.admit(&request)?;
    }
    let text = text(&state.durations, state.scheduler.status())
        .map_err(|error| ApiError::Internal(format!("metrics could not be written: {error}")))?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(text))
}

fn text(durations: &Arc<Durations>, status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("prefixd");
    for (name, help, histogram) in [
        ("time_to_first_token", "From a request's submission to its first token", &durations.first_token),
        ("inter_token", "Between two tokens of an answer", &durations.inter_token),
        ("queue", "From submission to admission", &durations.queue),
        (
            "restore",
            "From the lookup to the row that holds what it found, for prompts that hit; beside its parts, waiting for the end of other rows' steps",
            &durations.restore,
        ),
        ("prefill", "Computing what of a prompt was not cached", &durations.prefill),
    ] {
        registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    }
    let help = "Wall time of a restore's parts. For prompts that hit, lookup: finding the chain in the index; import: bytes into arrays. For \
        those that hit on disk, read: file bytes into memory; verify: checksums and identities; threads that read and verify at the same \
        time count once, divided as their time was";
    registry.register_with_unit("restore_part", help, Unit::Seconds, durations.restore_parts.clone());
    registry.register_collector(Box::new(Snapshot(status)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot(Status);

/// Values under one name: one without a label, or several told apart by one label.
type Values<'a, V> = &'a [(&'a str, V)];

struct Writer<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Writer<'_> {
    fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: Values<'_, V>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value_of, value) in values {
            if label.is_empty() {
                metric.encode_counter::<NoLabelSet, _, u64>(value, None)?;
            } else {
                metric
                    .encode_family(&[(label, *value_of)])?
                    .encode_counter::<NoLabelSet, _, u64>(value, None)?;
            }
        }
        Ok(())
    }

    fn sizes(&mut self, name: &str, help: &str, sizes: &BatchSizes) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let buckets: Vec<(f64, u64)> = sizes.buckets().collect();
        metric.encode_histogram::<NoLabelSet>(sizes.rows() as f64, sizes.steps(), &buckets, None)
    }

    fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: Values<'_, V>,
    ) -> fmt::Result {
        let mut metric = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value_of, value) in values {
            if label.is_empty() {
                metric.encode_gauge(value)?;
            } else {
                metric.encode_family(&[(label, *value_of)])?.encode_gauge(value)?;
            }
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Writer { encoder };
        scheduler(&self.0, &mut out)?;
        let cache = &self.0.cache;
        lookups(cache, &mut out)?;
        tiers(cache, &mut out)?;
        snapshots(&cache.snapshots, &mut out)?;
        cache.disk.as_ref().map_or(Ok(()), |disk| disk_tier(disk, cache.dropped_windows, &mut out))
    }
}

fn scheduler(status: &Status, out: &mut Writer<'_>) -> fmt::Result {
    let rows =
        [("waiting", status.waiting), ("prefilling", status.prefilling), ("decoding", status.decoding)];
    out.gauge("sequences", "Sequences by what they do; decoding ones are the batch", "state", &rows)?;
    let ends = [("finished", status.finished), ("cancelled", status.cancelled), ("failed", status.failed)];
    out.counter("ended_sequences", "Sequences that ended, by how", "end", &ends)?;
    out.counter("prompt_tokens", "Tokens of prompts", "", &[("", status.prompt_tokens)])?;
    out.counter(
        "cached_tokens",
        "Tokens of prompts that were not computed again",
        "",
        &[("", status.cached_tokens)],
    )?;
    out.counter("completion_tokens", "Tokens generated", "", &[("", status.completion_tokens)])?;
    out.counter("steps", "Rounds of the scheduler", "", &[("", status.steps)])?;
    out.sizes("decode_batch_rows", "Rows of a decode step; each gets a token", &status.batch_sizes)
}

fn lookups(cache: &CacheStats, out: &mut Writer<'_>) -> fmt::Result {
    let hits = [("resident", cache.resident_hit_tokens), ("disk", cache.disk_hit_tokens)];
    out.counter("cache_hit_tokens", "Tokens that lookups found, by tier", "tier", &hits)?;
    out.counter("cache_asked_tokens", "Tokens that lookups asked for", "", &[("", cache.asked_tokens)])?;
    let misses = &cache.misses;
    let reasons = [
        ("nothing", misses.nothing),
        ("absent", misses.absent),
        ("diverged", misses.diverged),
        ("evicted", misses.evicted),
        ("expired", misses.expired),
        ("quarantined", misses.quarantined),
        ("unreadable", misses.unreadable),
        ("other_fingerprint", misses.other_fingerprint),
        ("no_state", misses.no_state),
    ];
    out.counter(
        "cache_lookups",
        "Lookups by the reason they ended; nothing: all was known",
        "reason",
        &reasons,
    )?;
    out.counter(
        "cache_evicted_blocks",
        "Blocks that left their last tier to make room",
        "",
        &[("", cache.evicted_blocks)],
    )?;
    out.counter(
        "cache_expired_blocks",
        "Blocks that were removed because nobody used them for their lifetime",
        "",
        &[("", cache.expired_blocks)],
    )?;
    out.gauge("cache_pinned_blocks", "Blocks that running sequences keep", "", &[("", cache.pinned_blocks)])?;
    out.gauge("cache_retained_blocks", "Blocks that pins keep", "", &[("", cache.retained_blocks)])?;
    out.gauge("cache_retained_bytes", "Bytes of blocks that pins keep", "", &[("", cache.retained_bytes)])?;
    out.counter(
        "cache_refused_pins",
        "Blocks that were to be pinned beyond the pins' share of the budget, or a key's part of it",
        "",
        &[("", cache.refused_pins)],
    )?;
    out.counter(
        "cache_yielded_pins",
        "Blocks whose pins, beyond their key's fair part, ended early for another key's",
        "",
        &[("", cache.yielded_pins)],
    )
}

fn tiers(cache: &CacheStats, out: &mut Writer<'_>) -> fmt::Result {
    let mut tiers: Vec<(&str, &TierStats)> = vec![("resident", &cache.resident)];
    tiers.extend(cache.disk.as_ref().map(|disk| ("disk", &disk.tier)));
    let of = |part: fn(&TierStats) -> u64| -> Vec<(&str, u64)> {
        tiers.iter().map(|(name, tier)| (*name, part(tier))).collect()
    };
    out.gauge(
        "cache_blocks",
        "Blocks, by tier; on disk a file each, and another where a model has sliding windows",
        "tier",
        &of(|tier| tier.blocks),
    )?;
    out.counter(
        "cache_evicted_copies",
        "Blocks that left a tier to make room, by tier; most that leave RAM are on disk",
        "tier",
        &of(|tier| tier.evicted_blocks),
    )?;
    out.gauge("cache_block_tokens", "Tokens in blocks, by tier", "tier", &of(|tier| tier.tokens))?;
    out.gauge(
        "cache_bytes",
        "Bytes of blocks, by tier; allocated ones on disk",
        "tier",
        &of(|tier| tier.bytes),
    )?;
    out.gauge(
        "cache_budget_bytes",
        "Bytes that blocks may take, by tier",
        "tier",
        &of(|tier| tier.budget_bytes),
    )
}

fn snapshots(of: &SnapshotStats, out: &mut Writer<'_>) -> fmt::Result {
    let tiers = |resident, disk| [("resident", resident), ("disk", disk)];
    out.gauge("snapshots", "States of recurrent layers, by tier", "tier", &tiers(of.resident, of.on_disk))?;
    out.gauge(
        "snapshot_bytes",
        "Bytes of states, by tier; allocated ones on disk",
        "tier",
        &tiers(of.resident_bytes, of.disk_bytes),
    )?;
    out.gauge(
        "snapshot_budget_bytes",
        "Bytes that states may take, by tier; a share of the cache's budgets",
        "tier",
        &tiers(of.resident_budget_bytes, of.disk_budget_bytes),
    )?;
    out.gauge(
        "snapshots_waiting",
        "States to be written when their conversation is idle",
        "",
        &[("", of.waiting)],
    )?;
    let ends = [("taken", of.taken), ("written", of.written), ("evicted", of.evicted)];
    out.counter(
        "snapshot_events",
        "States taken, written to disk, and copies that made room",
        "event",
        &ends,
    )?;
    out.counter(
        "cache_no_state_tokens",
        "Tokens whose blocks lookups found and could not use, because no state was kept there",
        "",
        &[("", of.no_state_tokens)],
    )
}

fn disk_tier(disk: &DiskStats, dropped_windows: u64, out: &mut Writer<'_>) -> fmt::Result {
    let writes = &disk.writes;
    out.gauge(
        "disk_write_queue_blocks",
        "Blocks that wait to be written",
        "",
        &[("", writes.queued_blocks)],
    )?;
    out.gauge("disk_write_queue_bytes", "Bytes that wait to be written", "", &[("", writes.queued_bytes)])?;
    let ends = [
        ("written", writes.written_blocks),
        ("dropped", writes.dropped_blocks),
        ("failed", writes.failed_blocks),
        ("over_daily", writes.over_daily_blocks),
    ];
    out.counter("disk_writes", "Blocks for the disk, by how their write ended", "end", &ends)?;
    out.counter(
        "disk_written_bytes",
        "Allocated bytes of written blocks",
        "",
        &[("", writes.written_bytes)],
    )?;
    out.counter("disk_read_bytes", "Bytes read by restores", "", &[("", disk.read_bytes)])?;
    let failures = &disk.read_failures;
    let reasons = [("gone", failures.gone), ("io", failures.io), ("damaged", failures.damaged)];
    out.counter("disk_read_failures", "Blocks that could not be read, by reason", "reason", &reasons)?;
    out.counter("disk_quarantined_blocks", "Blocks found damaged", "", &[("", disk.quarantined)])?;
    out.counter(
        "disk_dropped_windows",
        "Sliding-window parts that made room without their blocks",
        "",
        &[("", dropped_windows)],
    )?;
    out.gauge("disk_stray_blocks", "Blocks that lookups cannot find", "", &[("", disk.stray_blocks)])?;
    let bytes = [("stray", disk.stray_bytes), ("other", disk.other_bytes)];
    out.gauge(
        "disk_unused_bytes",
        "Allocated bytes that serve no lookup: stray blocks and foreign files",
        "kind",
        &bytes,
    )?;
    let degraded = u64::from(disk.degraded.is_some());
    out.gauge(
        "disk_degraded",
        "1 while blocks are not being written, or not being read",
        "",
        &[("", degraded)],
    )
}
