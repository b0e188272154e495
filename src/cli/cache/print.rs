//! Tables and JSON of what is said about a store.

use bytesize::ByteSize;
use jiff::Timestamp;
use prefixd_cache::maintenance::{
    BlockDetail, CollectReport, Damage, Detail, Kind, Removed, SnapshotDetail, StoreSummary, StoredBlock,
    StoredSnapshot, TensorDetail, TransferReport, VerifyReport, WindowState,
};
use serde::Serialize;
use serde_json::json;

use crate::cli::table::Table;

/// Digits of a key or fingerprint in a table: enough to name it in any store.
const SHORT: usize = 12;
/// Digits that tell models and tenants of one store apart.
const FEW: usize = 6;

/// How results are printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub json: bool,
}

impl Output {
    /// Blocks and snapshots, of how many.
    pub fn listed(
        self,
        blocks: &[StoredBlock],
        snapshots: &[StoredSnapshot],
        found: (usize, usize),
        used_by: Option<&str>,
    ) -> anyhow::Result<()> {
        if self.json {
            return print_json(&json!({
                "used_by": used_by,
                "found": found.0,
                "blocks": blocks,
                "found_snapshots": found.1,
                "snapshots": snapshots,
            }));
        }
        let heads = ["key", "model", "tenant", "tokens", "size", "window", "used", "hits", ""];
        let mut table = Table::new(&heads, &[3, 4, 5, 7]);
        for block in blocks {
            table.add([
                short(&block.key.to_string()),
                few(&block.fingerprint),
                few(&block.tenant),
                format!("{}-{}", block.start, block.start + block.tokens),
                size(block.bytes),
                window(block.window, block.window_bytes),
                short_time(block.last_use_us),
                block.hits.map_or_else(|| "?".to_owned(), |hits| hits.to_string()),
                marks(block),
            ]);
        }
        println!("{table}");
        if blocks.len() < found.0 {
            println!("{} of {} blocks", blocks.len(), found.0);
        }
        if !snapshots.is_empty() {
            println!("{}", snapshot_table(snapshots));
        }
        if snapshots.len() < found.1 {
            println!("{} of {} snapshots", snapshots.len(), found.1);
        }
        note_use(used_by);
        Ok(())
    }

    pub fn summary(self, summary: &StoreSummary) -> anyhow::Result<()> {
        if self.json {
            return print_json(summary);
        }
        let mut facts = Table::new(&["", ""], &[]);
        facts.add(["directory".to_owned(), summary.dir.clone()]);
        facts.add(["blocks".to_owned(), format!("{}, {} tokens", summary.blocks, summary.tokens)]);
        let of_windows =
            format!("{}, of which window parts {}", size(summary.bytes), size(summary.window_bytes));
        facts.add(["size".to_owned(), of_windows]);
        facts.add(["window parts dropped".to_owned(), summary.dropped_windows.to_string()]);
        facts.add(["pinned blocks".to_owned(), summary.pinned_blocks.to_string()]);
        let snapshots = format!("{}, {}", summary.snapshots, size(summary.snapshot_bytes));
        facts.add(["snapshots".to_owned(), snapshots]);
        facts.add(["pinned snapshots".to_owned(), summary.pinned_snapshots.to_string()]);
        let orphans = format!("{} blocks, {} snapshots", summary.orphan_blocks, summary.orphan_snapshots);
        facts.add(["orphans".to_owned(), orphans]);
        facts.add(["tenants".to_owned(), summary.tenants.to_string()]);
        let quarantine = format!("{} files, {}", summary.quarantine_files, size(summary.quarantine_bytes));
        facts.add(["quarantine".to_owned(), quarantine]);
        facts.add(["index".to_owned(), size(summary.index_bytes)]);
        facts.add(["everything else".to_owned(), size(summary.other_bytes)]);
        println!("{facts}");
        if !summary.fingerprints.is_empty() {
            let heads = ["model", "blocks", "tokens", "size", "snapshots", "size"];
            let mut models = Table::new(&heads, &[1, 2, 3, 4, 5]);
            for model in &summary.fingerprints {
                models.add([
                    short(&model.fingerprint),
                    model.blocks.to_string(),
                    model.tokens.to_string(),
                    size(model.bytes),
                    model.snapshots.to_string(),
                    size(model.snapshot_bytes),
                ]);
            }
            println!("{models}");
        }
        note_use(summary.used_by.as_deref());
        Ok(())
    }

    pub fn detail(self, detail: &Detail) -> anyhow::Result<()> {
        if self.json {
            return print_json(detail);
        }
        match detail {
            Detail::Block(detail) => print_block(detail),
            Detail::Snapshot(detail) => print_snapshot(detail),
        }
        Ok(())
    }

    pub fn verified(self, report: &VerifyReport, used_by: Option<&str>) -> anyhow::Result<()> {
        if self.json {
            return print_json(report);
        }
        println!(
            "{} of {} blocks and {} of {} snapshots are sound; {} read",
            report.sound,
            report.blocks,
            report.sound_snapshots,
            report.snapshots,
            size(report.read_bytes)
        );
        print_damage("damaged", &report.damaged);
        print_damage("unreadable", &report.unreadable);
        if report.gone > 0 {
            println!("{} left meanwhile", report.gone);
        }
        if report.quarantined > 0 {
            println!("{} are in quarantine now", report.quarantined);
        } else if used_by.is_some() && !report.damaged.is_empty() {
            println!("the server will put them into quarantine when it reads them");
        }
        Ok(())
    }

    pub fn collected(self, report: &CollectReport, dry_run: bool) -> anyhow::Result<()> {
        if self.json {
            return print_json(report);
        }
        let mut rows = Table::new(&["why", "blocks", "snapshots"], &[1, 2]);
        for (why, blocks, snapshots) in [
            ("their parent is lost", report.orphan_blocks, report.orphan_snapshots),
            ("expired", report.expired_blocks, 0),
            ("of another model", report.foreign_blocks, report.foreign_snapshots),
            ("over the budget", report.over_budget_blocks, report.over_budget_snapshots),
        ] {
            rows.add([why.to_owned(), blocks.to_string(), snapshots.to_string()]);
        }
        println!("{rows}");
        removed(if dry_run { "would remove" } else { "removed" }, &report.removed);
        Ok(())
    }

    pub fn cleared(self, report: &Removed) -> anyhow::Result<()> {
        if self.json {
            return print_json(report);
        }
        removed("removed", report);
        Ok(())
    }

    pub fn transferred(self, what: &str, report: &TransferReport) -> anyhow::Result<()> {
        if self.json {
            return print_json(report);
        }
        println!(
            "{what} {} blocks and {} snapshots, {}; {} were there already",
            report.blocks,
            report.snapshots,
            size(report.bytes),
            report.known
        );
        print_damage("refused", &report.refused);
        Ok(())
    }
}

fn print_block(detail: &BlockDetail) {
    let block = &detail.block;
    let mut facts = Table::new(&["", ""], &[]);
    let parent = block.parent.clone().unwrap_or_else(|| "none: the start of a prompt".to_owned());
    let end = block.start + block.tokens;
    facts.add(["key".to_owned(), block.key.to_string()]);
    facts.add(["parent".to_owned(), parent]);
    facts.add(["model".to_owned(), block.fingerprint.clone()]);
    facts.add(["tenant".to_owned(), block.tenant.clone()]);
    facts.add(["tokens".to_owned(), format!("{} to {end}", block.start)]);
    facts.add(["size".to_owned(), size(block.bytes)]);
    facts.add(["window part".to_owned(), window(block.window, block.window_bytes)]);
    facts.add(["last use".to_owned(), time(block.last_use_us)]);
    facts.add(["blocks that follow".to_owned(), detail.children.to_string()]);
    facts.add(["priority".to_owned(), block.priority.to_string()]);
    facts.add(["state".to_owned(), marks(block)]);
    println!("{facts}");
    if !detail.snapshots_behind.is_empty() {
        println!("{}", snapshot_table(&detail.snapshots_behind));
    }
    print_tensors(&detail.tensors, &detail.token_ids);
}

fn print_snapshot(detail: &SnapshotDetail) {
    let snapshot = &detail.snapshot;
    let mut facts = Table::new(&["", ""], &[]);
    let parent = snapshot.parent.clone().unwrap_or_else(|| "none: before the first whole block".to_owned());
    let end = snapshot.start + snapshot.tokens;
    facts.add(["snapshot".to_owned(), snapshot.key.to_string()]);
    facts.add(["behind block".to_owned(), parent]);
    facts.add(["model".to_owned(), snapshot.fingerprint.clone()]);
    facts.add(["tenant".to_owned(), snapshot.tenant.clone()]);
    facts.add([
        "tokens before it".to_owned(),
        format!("{end}, of which {} behind the block", snapshot.tokens),
    ]);
    facts.add(["size".to_owned(), size(snapshot.bytes)]);
    facts.add(["last use".to_owned(), time(snapshot.last_use_us)]);
    facts.add(["state".to_owned(), snapshot_marks(snapshot)]);
    println!("{facts}");
    print_tensors(&detail.tensors, &detail.token_ids);
}

fn snapshot_table(snapshots: &[StoredSnapshot]) -> Table {
    let heads = ["snapshot", "model", "tenant", "at token", "size", "used", ""];
    let mut table = Table::new(&heads, &[3, 4]);
    for snapshot in snapshots {
        table.add([
            short(&snapshot.key.to_string()),
            few(&snapshot.fingerprint),
            few(&snapshot.tenant),
            (snapshot.start + snapshot.tokens).to_string(),
            size(snapshot.bytes),
            short_time(snapshot.last_use_us),
            snapshot_marks(snapshot),
        ]);
    }
    table
}

fn print_tensors(tensors: &[TensorDetail], token_ids: &[u32]) {
    let mut table = Table::new(&["tensor", "part", "type", "shape", "bytes", "blake3"], &[4]);
    for tensor in tensors {
        table.add([
            tensor.name.clone(),
            tensor.part.to_owned(),
            tensor.dtype.clone(),
            shape(&tensor.shape),
            tensor.bytes.to_string(),
            short(&tensor.checksum),
        ]);
    }
    println!("{table}\ntoken ids: {token_ids:?}");
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

fn removed(what: &str, report: &Removed) {
    println!(
        "{what} {} blocks, {} snapshots and {} files in quarantine, {}",
        report.blocks,
        report.snapshots,
        report.quarantine_files,
        size(report.bytes)
    );
}

fn print_damage(what: &str, found: &[Damage]) {
    for Damage { kind, key, reason } in found {
        let kind = match kind {
            Kind::Block => "block",
            Kind::Snapshot => "snapshot",
        };
        println!("{what} {kind} {key}: {reason}");
    }
}

fn note_use(used_by: Option<&str>) {
    if let Some(holder) = used_by {
        println!("in use by {holder}: uses and pins are known to it alone; times are those of writing");
    }
}

fn short(digits: &str) -> String {
    digits.chars().take(SHORT).collect()
}

fn few(digits: &str) -> String {
    digits.chars().take(FEW).collect()
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

fn window(state: WindowState, bytes: u64) -> String {
    match state {
        WindowState::None => "none".to_owned(),
        WindowState::Inside => "inside".to_owned(),
        WindowState::Apart => size(bytes),
        WindowState::Dropped => "dropped".to_owned(),
    }
}

fn marks(block: &StoredBlock) -> String {
    let mut marks = Vec::new();
    if block.pinned {
        marks.push("pinned".to_owned());
    }
    if block.orphan {
        marks.push("orphan".to_owned());
    }
    if let Some(seconds) = block.ttl_s {
        marks.push(format!("lives {seconds} s unused"));
    }
    match block.snapshots {
        0 => {}
        1 => marks.push("1 snapshot".to_owned()),
        count => marks.push(format!("{count} snapshots")),
    }
    marks.join(", ")
}

fn snapshot_marks(snapshot: &StoredSnapshot) -> String {
    let marks = [(snapshot.pinned, "pinned"), (snapshot.orphan, "orphan")];
    marks.into_iter().filter(|(is, _)| *is).map(|(_, mark)| mark).collect::<Vec<_>>().join(", ")
}

fn shape(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

/// To the minute, for tables.
fn short_time(us: u64) -> String {
    Timestamp::from_microsecond(us.cast_signed())
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%m-%d %H:%M").to_string())
}

fn time(us: u64) -> String {
    Timestamp::from_microsecond(us.cast_signed())
        .map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
