//! Tables and JSON of what is said about a store.

use bytesize::ByteSize;
use jiff::Timestamp;
use prefixd_cache::maintenance::{
    BlockDetail, CollectReport, Damage, Removed, StoreSummary, StoredBlock, TransferReport, VerifyReport,
    WindowState,
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
    pub fn blocks(self, blocks: &[StoredBlock], found: usize, used_by: Option<&str>) -> anyhow::Result<()> {
        if self.json {
            return print_json(&json!({"used_by": used_by, "found": found, "blocks": blocks}));
        }
        let heads = ["key", "model", "tenant", "tokens", "size", "window", "used", "hits", ""];
        let mut table = Table::new(&heads, &[3, 4, 5, 7]);
        for block in blocks {
            let digits = |text: &str| text.chars().take(FEW).collect::<String>();
            table.add([
                short(&block.key.to_string()),
                digits(&block.fingerprint),
                digits(&block.tenant),
                format!("{}-{}", block.start, block.start + block.tokens),
                size(block.bytes),
                window(block.window, block.window_bytes),
                short_time(block.last_use_us),
                block.hits.map_or_else(|| "?".to_owned(), |hits| hits.to_string()),
                marks(block),
            ]);
        }
        println!("{table}");
        if blocks.len() < found {
            println!("{} of {found} blocks", blocks.len());
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
        facts.add(["orphans".to_owned(), format!("{} blocks", summary.orphan_blocks)]);
        facts.add(["tenants".to_owned(), summary.tenants.to_string()]);
        let quarantine = format!("{} files, {}", summary.quarantine_files, size(summary.quarantine_bytes));
        facts.add(["quarantine".to_owned(), quarantine]);
        facts.add(["index".to_owned(), size(summary.index_bytes)]);
        facts.add(["everything else".to_owned(), size(summary.other_bytes)]);
        println!("{facts}");
        if !summary.fingerprints.is_empty() {
            let mut models = Table::new(&["model", "blocks", "tokens", "size"], &[1, 2, 3]);
            for model in &summary.fingerprints {
                models.add([
                    short(&model.fingerprint),
                    model.blocks.to_string(),
                    model.tokens.to_string(),
                    size(model.bytes),
                ]);
            }
            println!("{models}");
        }
        note_use(summary.used_by.as_deref());
        Ok(())
    }

    pub fn detail(self, detail: &BlockDetail) -> anyhow::Result<()> {
        if self.json {
            return print_json(detail);
        }
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
        let mut tensors = Table::new(&["tensor", "part", "type", "shape", "bytes", "blake3"], &[4]);
        for tensor in &detail.tensors {
            tensors.add([
                tensor.name.clone(),
                tensor.part.to_owned(),
                tensor.dtype.clone(),
                shape(&tensor.shape),
                tensor.bytes.to_string(),
                short(&tensor.checksum),
            ]);
        }
        println!("{tensors}\ntoken ids: {:?}", detail.token_ids);
        Ok(())
    }

    pub fn verified(self, report: &VerifyReport, used_by: Option<&str>) -> anyhow::Result<()> {
        if self.json {
            return print_json(report);
        }
        println!("{} of {} blocks are sound; {} read", report.sound, report.blocks, size(report.read_bytes));
        print_damage("damaged", &report.damaged);
        print_damage("unreadable", &report.unreadable);
        if report.gone > 0 {
            println!("{} blocks left meanwhile", report.gone);
        }
        if report.quarantined > 0 {
            println!("{} blocks are in quarantine now", report.quarantined);
        } else if used_by.is_some() && !report.damaged.is_empty() {
            println!("the server will put them into quarantine when it reads them");
        }
        Ok(())
    }

    pub fn collected(self, report: &CollectReport, dry_run: bool) -> anyhow::Result<()> {
        if self.json {
            return print_json(report);
        }
        let mut rows = Table::new(&["why", "blocks"], &[1]);
        for (why, blocks) in [
            ("their parent is lost", report.orphan_blocks),
            ("expired", report.expired_blocks),
            ("of another model", report.foreign_blocks),
            ("over the budget", report.over_budget_blocks),
        ] {
            rows.add([why.to_owned(), blocks.to_string()]);
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
            "{what} {} blocks, {}; {} were there already",
            report.blocks,
            size(report.bytes),
            report.known
        );
        print_damage("refused", &report.refused);
        Ok(())
    }
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

fn removed(what: &str, report: &Removed) {
    println!(
        "{what} {} blocks and {} files in quarantine, {}",
        report.blocks,
        report.quarantine_files,
        size(report.bytes)
    );
}

fn print_damage(what: &str, found: &[Damage]) {
    for damage in found {
        println!("{what} {}: {}", damage.key, damage.reason);
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
    marks.join(", ")
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
