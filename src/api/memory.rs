//! `GET /debug/memory`: what takes how many bytes.
//!
//! The process, the cache and everybody's agents together, for everyone while there are no API keys and for the admin key
//! once there are; an ordinary key then hears of its own agents alone.

use actix_web::{HttpRequest, HttpResponse, get, web};
use prefixd_engine::MemoryUse;
use serde::Serialize;
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use utoipa::ToSchema;
use utoipa_actix_web::service_config::ServiceConfig;

use super::ApiState;
use super::error::{ApiError, json_response};
use super::openapi::AdminRefusals;
use super::submit::blocking;
use crate::scheduler::{Status, SubmitError};

/// Adds the route.
pub fn configure(config: &mut ServiceConfig) {
    config.service(debug_memory);
}

/// Everything.
#[derive(Serialize, ToSchema)]
struct Memory {
    /// RAM of the process; null where the system does not tell.
    #[schema(required)]
    process_resident_bytes: Option<u64>,
    device: DeviceMemory,
    /// Memory of keys and values, of running sequences and of blocks in RAM together. What several of them share counts
    /// once here, so this is at most the sum of what each of them takes.
    kv_bytes: u64,
    cache: CacheMemory,
    agents: AgentMemory,
    sequences: Sequences,
}

/// Memory of the device that computes, as MLX counts it; on CPUs a part of the process's.
#[derive(Serialize, ToSchema)]
#[allow(clippy::struct_field_names, reason = "clients read the unit in each name")]
struct DeviceMemory {
    /// What all of it together may take (`server.device_budget`); null where there is no such bound, as on CPUs.
    #[schema(required)]
    budget_bytes: Option<u64>,
    weights_bytes: u64,
    /// All that is in use: weights, rows, and what a step works on.
    active_bytes: u64,
    /// Freed buffers that are kept to be used again.
    kept_bytes: u64,
    /// Pages of rows and of blocks that stay on the device, free ones included; part of what is in use.
    pages_bytes: u64,
    /// Of these, pages that only blocks keep: they go when a row needs the room.
    resident_bytes: u64,
    peak_bytes: u64,
}

impl DeviceMemory {
    fn new(status: &Status) -> Self {
        let MemoryUse {
            budget_bytes,
            weights_bytes,
            active_bytes,
            pages_bytes,
            resident_bytes,
            kept_bytes,
            peak_bytes,
        } = status.memory;
        Self {
            budget_bytes,
            weights_bytes,
            active_bytes,
            kept_bytes,
            pages_bytes,
            resident_bytes,
            peak_bytes,
        }
    }
}

/// Bytes of the cache's tiers.
#[derive(Serialize, ToSchema)]
struct CacheMemory {
    resident_blocks: u64,
    resident_bytes: u64,
    resident_budget_bytes: u64,
    /// Of blocks that requests or the operator pinned, in any tier.
    pinned_bytes: u64,
    /// Waiting to be written.
    write_queue_bytes: u64,
    disk_blocks: u64,
    disk_bytes: u64,
    disk_budget_bytes: u64,
    /// Of states of recurrent layers, in RAM.
    snapshot_bytes: u64,
    /// Of those on disk.
    snapshot_disk_bytes: u64,
}

/// What the registry of agents holds, blocks not included.
#[derive(Serialize, ToSchema)]
struct AgentMemory {
    agents: usize,
    tokens: usize,
    bytes: usize,
}

#[derive(Serialize, ToSchema)]
struct Sequences {
    waiting: usize,
    prefilling: usize,
    decoding: usize,
}

/// What a tenant hears, and nothing else: a reply is one of the two.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OwnMemory {
    agents: AgentMemory,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Told {
    All(Box<Memory>),
    Own(OwnMemory),
}

impl AgentMemory {
    fn new(agents: usize, tokens: usize) -> Self {
        Self { agents, tokens, bytes: tokens * size_of::<u32>() }
    }
}

impl CacheMemory {
    fn new(status: &Status) -> Self {
        let cache = &status.cache;
        let disk = cache.disk.as_ref();
        Self {
            resident_blocks: cache.resident.blocks,
            resident_bytes: cache.resident.bytes,
            resident_budget_bytes: cache.resident.budget_bytes,
            pinned_bytes: cache.retained_bytes,
            write_queue_bytes: disk.map_or(0, |disk| disk.writes.queued_bytes),
            disk_blocks: disk.map_or(0, |disk| disk.tier.blocks),
            disk_bytes: disk.map_or(0, |disk| disk.tier.bytes),
            disk_budget_bytes: disk.map_or(0, |disk| disk.tier.budget_bytes),
            snapshot_bytes: cache.snapshots.resident_bytes,
            snapshot_disk_bytes: cache.snapshots.disk_bytes,
        }
    }
}

/// What takes how many bytes: all of it for the admin key and where there are no keys, else the asking key's agents.
#[utoipa::path(
    tag = "agents",
    security((), ("bearer" = []), ("x-api-key" = []), ("x-admin-key" = [])),
    responses((status = 200, description = "Bytes", body = Told), AdminRefusals)
)]
#[get("/debug/memory")]
async fn debug_memory(request: HttpRequest, state: web::Data<ApiState>) -> Result<HttpResponse, ApiError> {
    let submit = |error: SubmitError| ApiError::Submit { error, param: "" };
    let (settings, scheduler) = (&state.settings, state.scheduler.clone());
    if !(settings.keys.is_empty() || settings.admin.admit(&request).is_ok()) {
        let tenant = settings.keys.tenant(&request)?;
        let own = blocking(move || scheduler.agents(tenant).map_err(submit)).await?;
        let agents = AgentMemory::new(own.len(), own.iter().map(|agent| agent.tokens).sum());
        return Ok(json_response(&mut HttpResponse::Ok(), &Told::Own(OwnMemory { agents })));
    }
    let all = blocking(move || {
        let (agents, tokens) = scheduler.agent_sums().map_err(submit)?;
        let status = scheduler.status();
        Ok(Told::All(Box::new(Memory {
            process_resident_bytes: process_bytes(),
            device: DeviceMemory::new(&status),
            kv_bytes: scheduler.info().memory.held_bytes(),
            cache: CacheMemory::new(&status),
            agents: AgentMemory::new(agents, tokens),
            sequences: Sequences {
                waiting: status.waiting,
                prefilling: status.prefilling,
                decoding: status.decoding,
            },
        })))
    });
    Ok(json_response(&mut HttpResponse::Ok(), &all.await?))
}

fn process_bytes() -> Option<u64> {
    let id = sysinfo::get_current_pid().ok()?;
    let mut system = System::new().ok()?;
    let memory = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[id]), true, memory);
    system.process(id).map(sysinfo::Process::memory)
}
