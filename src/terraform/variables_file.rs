//! Writing the `*.auto.tfvars.json` files beside the Terraform files.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces the file `name` of this terraform directory in one step: whoever reads meanwhile sees the old or the new one.
///
/// # Errors
/// When it cannot be written; the file is as it was.
pub fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let file = directory.join(name);
    let mut draft = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempfile_in(directory)?;
    draft.write_all(text.as_bytes())?;
    // Temporary files are private; this one belongs to the repository like its neighbours.
    let like = fs::metadata(&file).or_else(|_| fs::metadata(directory.join("variables.tf")));
    if let Ok(like) = like {
        draft.as_file().set_permissions(like.permissions())?;
    }
    draft.as_file().sync_all()?;
    draft.persist(&file)?;
    Ok(())
}
