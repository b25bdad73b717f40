//! What functions say that their workers need (`memory_mb`), against the memory budget.
//!
//! Only what was said counts. Lambda's default of 128 MB is more than small boards have, and no
//! worker that was made there takes it: such functions have what there is.

use super::Host;
use crate::function::config::FunctionConfig;

impl Host {
    /// Refuses a configuration of the function `name` if one worker would not find room, or if the
    /// `ready` workers that it is to keep would not, beside those that other functions keep. The
    /// error is one line for people.
    pub fn check_memory(
        &self,
        name: &str,
        config: &FunctionConfig,
        ready: u16,
    ) -> Result<(), String> {
        let budget = self.facts.budget;
        let Some(each) = config.declared_mb() else { return Ok(()) };
        let (whole, workers) = (budget.whole_mb, budget.workers_mb());
        if each > workers {
            return Err(format!(
                "memory_mb: {each} MB are more than workers have here (allowed: up to {workers} MB \
                 of a memory budget of {whole} MB)"
            ));
        }
        let wanted = each.saturating_mul(ready.into());
        let left = budget.ready_mb().saturating_sub(self.ready_mb(name));
        if wanted > left {
            return Err(format!(
                "{ready} workers kept ready of {each} MB are {wanted} MB, and {left} MB are left \
                 for such (of a memory budget of {whole} MB)"
            ));
        }
        Ok(())
    }

    /// MB of the workers that functions other than `name` keep ready.
    fn ready_mb(&self, name: &str) -> u32 {
        let catalog = self.catalog.borrow();
        let others = catalog.functions().iter().filter(|function| *function.name != *name);
        let kept = others.flat_map(|function| function.serving()).map(|version| {
            let each = version.config.declared_mb().unwrap_or(0);
            each.saturating_mul(version.provisioned.get().into())
        });
        kept.fold(0, u32::saturating_add)
    }
}
