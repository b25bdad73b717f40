//! demo (below)
use crate::error::Error;
pub fn run(_keep: bool) -> Result<(), Error> {
    Ok(())
}
