//! Volumes and snapshots left over.

use super::Found;
use super::finding::{Class, Finding};
use super::scope::{Price, Scope};
use crate::cloud::inventory::{Inventory, Volume, tag};

/// Volumes with our tag that the state does not know; the database's, kept by `scripts/destroy.sh`, among them.
pub(super) async fn volumes(inventory: &Inventory, scope: &Scope) -> Found {
    let volumes = inventory.volumes(&scope.name).await?;
    let unknown = volumes
        .iter()
        .filter(|volume| volume.state != "deleting" && !is_known(&volume.volume_id, scope));
    Ok(unknown.map(|volume| describe(volume, scope)).collect())
}

fn is_known(id: &str, scope: &Scope) -> bool {
    // Root disks have no resource of their own.
    let roots = scope
        .state()
        .of_type("aws_instance")
        .flat_map(|instance| instance.blocks("root_block_device"));
    scope.knows("aws_ebs_volume", id)
        || roots
            .into_iter()
            .any(|root| root.optional_text("volume_id") == Some(id))
}

fn describe(volume: &Volume, scope: &Scope) -> Finding {
    let (id, size) = (&volume.volume_id, volume.size);
    let month = scope.month(Price::Volume(&volume.volume_type, size));
    let delete = scope.aws(&format!("ec2 delete-volume --volume-id {id}"));
    let is_databases = tag(&volume.tags, "Name") == Some(&format!("{}-database", scope.name));
    let has_another = scope.state().of_type("aws_ebs_volume").next().is_some();
    if is_databases && !has_another {
        let meaning = format!(
            "the database's volume of {size} GiB, kept on purpose when the deployment was destroyed"
        );
        return Finding::new(Class::Kept, "volume", id, meaning)
            .costing(month)
            .mended_by(format!("# to use it again, before the next apply: terraform -chdir=terraform import aws_ebs_volume.database {id}"))
            .mended_by(format!("# to delete it and the data: {delete}"));
    }
    let data = if is_databases {
        "; it may hold the data of an earlier database"
    } else {
        ""
    };
    let meaning = format!("a volume of {size} GiB ({}){data}", volume.state);
    Finding::new(Class::Leftover, "volume", id, meaning)
        .costing(month)
        .mended_by(delete)
}

/// Snapshots with our tag; Terraform makes none.
pub(super) async fn snapshots(inventory: &Inventory, scope: &Scope) -> Found {
    let describe = |id: &String, size: u64| {
        let meaning = format!(
            "a snapshot of a volume of {size} GiB; the cost is that of a full one, the real one is by what it holds"
        );
        Finding::new(Class::Leftover, "snapshot", id, meaning)
            .costing(scope.month(Price::Snapshot(size)))
            .mended_by(scope.aws(&format!("ec2 delete-snapshot --snapshot-id {id}")))
    };
    let snapshots = inventory.snapshots(&scope.name).await?;
    let unknown = snapshots
        .iter()
        .filter(|snapshot| !scope.knows("aws_ebs_snapshot", &snapshot.snapshot_id));
    Ok(unknown
        .map(|snapshot| describe(&snapshot.snapshot_id, snapshot.volume_size))
        .collect())
}
