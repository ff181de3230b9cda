//! Notification of workers about new credentials: each signer claims a slot, whose queue notifies it.

use std::time::SystemTime;

use crate::credentials::CredentialStore;
use crate::host::Host;

/// Returns the name of the queue that notifies the worker of a slot.
pub(crate) fn queue_name(slot: usize) -> String {
    format!("sigv4.watcher.{slot}")
}

/// Notifies the signers of all workers, so that they pick up a change immediately rather than on the next tick.
pub(crate) fn notify_workers<H: Host>(host: &H, store: &CredentialStore<H>, now: SystemTime) {
    let vm_id = host.property("plugin_vm_id").ok().flatten().unwrap_or_default();
    for slot in store.live_slots(now) {
        if let Err(error) = host.notify_queue(&vm_id, &queue_name(slot)) {
            log::debug!("a worker will see the change on its next tick: {error}");
        }
    }
}
